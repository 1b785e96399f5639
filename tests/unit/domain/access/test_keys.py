"""Keys as they are written in settings: what is read from them, and that no message repeats a secret."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from backend.config import Settings, describe_invalid_settings
from backend.domain.access.keys import AccessKeys, Caller, read_keys

ADA, BOB = "ada-0123456789abcdef", "bob:0123456789=abcdef"


def refusal(monkeypatch: pytest.MonkeyPatch, **values: str) -> str:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    said = describe_invalid_settings(caught.value)
    assert "0123456789" not in said + str(caught.value) + repr(caught.value)
    return said


@pytest.mark.parametrize("between", [" ", ",", ", ", "\n", "\t,\n"])
def test_keys_are_separated_by_blanks_or_commas(between: str) -> None:
    keys = AccessKeys(read_keys(f" ada:{ADA}{between}bob.b-1_:{BOB}, "), frozenset({"ada"}))
    assert keys.find(ADA.encode()) == Caller("ada", is_admin=True)
    assert keys.find(BOB.encode()) == Caller("bob.b-1_", is_admin=False)


def test_a_name_must_be_the_secrets_own() -> None:
    keys = AccessKeys(read_keys(f"ada:{ADA} bob:{BOB}"), frozenset())
    assert keys.find(ADA.encode(), "ada") is not None
    assert keys.find(ADA.encode(), "bob") is None
    assert keys.find(ADA.encode(), "") is None


@pytest.mark.parametrize("secret", [b"", b"ada", ADA[:-1].encode(), ADA.upper().encode(), b"\xff\x00"])
def test_a_secret_must_be_the_same_to_the_last_byte(secret: bytes) -> None:
    assert AccessKeys(read_keys(f"ada:{ADA}"), frozenset()).find(secret) is None


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("0123456789abcdef0123", "entry 1 does not begin with a name"),
        (":0123456789abcdef0123", "entry 1 does not begin with a name"),
        (f"ada:{ADA} Łukasz:0123456789abcdef", "entry 2 does not begin with a name"),
        (f"{'a' * 61}:{ADA}", "entry 1 does not begin with a name"),
        (f"ada:{ADA}, bob:0123456789abcde", "the secret of entry 2 is not 16"),
        ("ada:0123456789abcdefé", "the secret of entry 1 is not 16"),
        (f"ada:{ADA} ada:{BOB}", "entry 2 has the name or the secret"),
        (f"ada:{ADA} bob:{ADA}", "entry 2 has the name or the secret"),
        (" , ", "no key in it"),
    ],
)
def test_keys_that_cannot_be_used_stop_the_start(monkeypatch: pytest.MonkeyPatch, keys: str, says: str) -> None:
    said = refusal(monkeypatch, API_KEYS=keys)
    assert said.startswith("API_KEYS: ") and says in said


def test_admins_without_keys_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, API_ADMINS="ada") == "API_ADMINS needs API_KEYS, which it names some of"


@pytest.mark.parametrize("admins", ["ada bob", f"ada,ada:{ADA}", "ada, 0123456789abcdef"])
def test_an_admin_without_a_key_stops_the_start(monkeypatch: pytest.MonkeyPatch, admins: str) -> None:
    said = refusal(monkeypatch, API_KEYS=f"ada:{ADA}", API_ADMINS=admins)
    assert said == "API_ADMINS: entry 2 is not the name of a key"


def test_everybody_is_an_admin_unless_some_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", f"ada:{ADA} bob:{BOB}")
    assert Settings().access_keys().admins == {"ada", "bob"}
    monkeypatch.setenv("API_ADMINS", "bob,")
    assert Settings().access_keys().admins == {"bob"}


def test_settings_show_no_secret_and_no_keys_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().access_keys() is None
    monkeypatch.setenv("API_KEYS", f"ada:{ADA}")
    assert "0123456789" not in repr(Settings()) + str(Settings())
