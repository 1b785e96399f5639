"""Names of languages that clients send, as the codes that engines know. Pure."""

from __future__ import annotations

import re

DETECT = "auto"
_TAG = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{1,8})*", re.IGNORECASE)


def language_code(tag: str) -> str | None:
    """Return the language of a tag such as `en`, `en-US` or `en_GB`, in lower case; None if it is to be detected.

    Raises:
        ValueError: it is no tag, but for example the name of a language.
    """
    name = tag.strip()
    if not name or name.lower() == DETECT:
        return None
    if match := _TAG.fullmatch(name):
        return match[1].lower()
    raise ValueError(f"give a code such as en, de or pt-BR (its region is ignored), or {DETECT} to detect the language")
