"""What browsers and caches may do with an answer: the values of its headers."""

from __future__ import annotations

from collections.abc import Mapping

DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""For every answer that is not a page: opened by itself it loads nothing and runs nothing."""
PAGE_POLICY = (
    f"{DATA_POLICY}; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src 'self' https: http:; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Media from anywhere: recordings in a bucket are reached by a redirect."""
SWAGGER_POLICY = (
    f"{DATA_POLICY}; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "media-src 'self' blob:"
)
"""Swagger UI writes style attributes, has its icons in data URLs and plays answers from memory."""

NOT_KEPT = "no-store"
KEPT_PRIVATELY = "private, no-cache"
"""Recordings: large, so a browser may keep them, but it asks each time whether they are still there."""
ASSET = "public, no-cache"
"""Scripts and styles: without a version in their names, so asked about each time (an ETag answers cheaply)."""
MAY_BE_KEPT = frozenset({KEPT_PRIVATELY, ASSET})

COMMON: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
