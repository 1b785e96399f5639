"""Language codes that clients send."""

from __future__ import annotations

import pytest

from backend.domain.languages.codes import language_code


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en", "en"),
        (" DE ", "de"),
        ("en-US", "en"),
        ("en_GB", "en"),
        ("pt-br", "pt"),
        ("zh-Hant-TW", "zh"),
        ("es-419", "es"),
        ("yue", "yue"),
        ("auto", None),
        ("AUTO", None),
        ("", None),
        (" ", None),
    ],
)
def test_a_tag_names_a_language_or_asks_to_detect_it(tag: str, code: str | None) -> None:
    assert language_code(tag) == code


@pytest.mark.parametrize("tag", ["German", "Deutsch", "e", "en-", "en--US", "en US", "en;de", "-US", "12", "日本語"])
def test_anything_else_is_refused_with_the_valid_forms(tag: str) -> None:
    with pytest.raises(ValueError, match="such as en, de or pt-BR"):
        language_code(tag)
