"""Every setting, from the environment or `.env`. Storage's own settings live with storage."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.database.session import validated_url
from backend.domain.access.addresses import parse_allowance
from backend.domain.access.hosts import ANY, OwnNames, parse_names, parse_prefix
from backend.domain.access.keys import AccessKeys, read_admins, read_keys
from backend.domain.access.shares import ShareLimits
from backend.engines.audio.allowance import MAX_DECODED_BYTES
from backend.engines.audio.confinement import Confinement
from backend.errors import InvalidInput
from backend.observability.logs import LogFormat, log_handler
from backend.services.remote.client import parse_url
from backend.services.storage import StorageConfig
from backend.services.webhooks.service import read_secrets

logger = logging.getLogger(__name__)

GIB = 1024**3
Device = Literal["auto", "cpu", "cuda"]


class AsrEngine(StrEnum):
    AUTO = "auto"
    FASTER_WHISPER = "faster-whisper"
    MOONSHINE = "moonshine"


class DiarizationEngine(StrEnum):
    AUTO = "auto"
    PYANNOTE = "pyannote"
    EMBEDDED = "embedded"
    NONE = "none"


class SpeechConfig(BaseSettings):
    """Which engines run and how. `auto` uses models on disk and never downloads."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    asr_engine: AsrEngine = AsrEngine.AUTO
    asr_model: str | None = None
    asr_device: Device = "auto"
    asr_compute_type: str = "auto"
    asr_batch_size: int = Field(8, ge=1, le=128)
    diarization_engine: DiarizationEngine = DiarizationEngine.AUTO
    diarization_model: str | None = None
    diarization_device: Device = "auto"
    models_dir: Path | None = None
    models_memory_bytes: int | None = Field(None, ge=1)
    models_auto_pull: bool | None = None
    models_idle_s: float = Field(600, ge=0, allow_inf_nan=False)
    hf_token: SecretStr | None = None
    threads: int = Field(0, ge=0, le=256)


def _allowance(text: str) -> str:
    parse_allowance(text)
    return text


def _secrets(secret: SecretStr) -> SecretStr:
    read_secrets(secret.get_secret_value())
    return secret


def _keys(keys: SecretStr) -> SecretStr:
    read_keys(keys.get_secret_value())
    return keys


def _proxies(text: str) -> str:
    for entry in text.split(","):
        if text != "*":
            ip_network(entry.strip())
    return text


def _names(text: str) -> str:
    parse_names(text)
    return text


def _web_address(url: str) -> str:
    try:
        parse_url(url)
    except InvalidInput as error:
        raise ValueError(str(error)) from error
    return url


class Settings(BaseSettings):
    """The server's settings; nested parts read the same environment.

    Raises:
        ValidationError: `describe_invalid_settings` makes sentences of it.
        InvalidInput: `.env` cannot be read as text.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,  # DATABASE_URL may hold a password
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    api_keys: Annotated[SecretStr, AfterValidator(_keys)] | None = None
    api_admins: str | None = None
    allow_no_keys: bool = False
    allowed_hosts: Annotated[str, AfterValidator(_names)] | None = None
    root_path: Annotated[str, AfterValidator(parse_prefix)] | None = None
    forwarded_allow_ips: Annotated[str, AfterValidator(_proxies)] = "127.0.0.1,::1"
    log_level: str = Field("info", pattern="^(?i:critical|error|warning|info|debug)$")
    log_format: LogFormat = LogFormat.TEXT
    database_url: Annotated[str, AfterValidator(validated_url)] = "sqlite+aiosqlite:///./aperta.db"
    max_upload_bytes: int = Field(2 * GIB, ge=1)
    max_audio_seconds: float = Field(12 * 3600, gt=0, le=7 * 86_400, allow_inf_nan=False)
    max_decode_seconds: float = Field(900, gt=0, le=86_400, allow_inf_nan=False)
    max_decoded_bytes: int = Field(MAX_DECODED_BYTES, ge=1)
    decoder_confinement: Confinement = Confinement.AUTO
    max_concurrent_uploads: int = Field(64, ge=1, le=10_000)
    upload_stall_timeout_s: float = Field(30, gt=0, allow_inf_nan=False)
    upload_expires_s: int = Field(86_400, ge=60, le=604_800)
    upload_least_bytes_per_s: int = Field(32_768, ge=1)
    max_open_uploads: int = Field(1000, ge=1)
    max_connections: int = Field(4096, ge=1)
    max_connections_per_peer: int | None = Field(None, ge=1)
    max_event_streams: int = Field(500, ge=1)
    key_share: float = Field(0.5, gt=0, le=1, allow_inf_nan=False)
    workers: Literal["embedded", "none"] = "embedded"
    jobs_at_once: int = Field(1, ge=1, le=64)
    max_queued_jobs: int = Field(1000, ge=1)
    max_queued_jobs_per_key: int | None = Field(None, ge=1)
    queue_poll_s: float = Field(0.1, ge=0.01, le=60)
    jobs_keep_days: float = Field(30, gt=0, allow_inf_nan=False)
    known_voices: bool = False
    ingest_from_url: bool = False
    ingest_timeout_s: float = Field(3600, gt=0, allow_inf_nan=False)
    webhook_secret: Annotated[SecretStr, AfterValidator(_secrets)] | None = None
    webhook_url: Annotated[str, AfterValidator(_web_address)] | None = None
    webhook_timeout_s: float = Field(15, gt=0, le=120, allow_inf_nan=False)
    outbound_allow_private: Annotated[str, AfterValidator(_allowance)] | None = None
    storage: StorageConfig = Field(default_factory=StorageConfig)
    speech: SpeechConfig = Field(default_factory=SpeechConfig)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except UnicodeDecodeError as error:
            raise InvalidInput(f"The file .env is not UTF-8 text ({error}). Save it as UTF-8.") from error

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> Self:
        if self.webhook_url and not self.webhook_secret:
            raise ValueError("WEBHOOK_URL needs WEBHOOK_SECRET, which messages are signed with")
        return self

    @model_validator(mode="after")
    def _admins_have_keys(self) -> Self:
        if self.api_admins is not None and self.api_keys is None:
            raise ValueError("API_ADMINS needs API_KEYS, which it names some of")
        try:
            self.access_keys()
        except ValueError as error:
            raise ValueError(f"API_ADMINS: {error}") from error
        return self

    def access_keys(self) -> AccessKeys | None:
        """The keys of this installation; None if every caller may use it."""
        if self.api_keys is None:
            return None
        digests = read_keys(self.api_keys.get_secret_value())
        admins = frozenset(digests) if self.api_admins is None else read_admins(self.api_admins, digests)
        return AccessKeys(digests, admins)

    def own_names(self) -> OwnNames:
        """What this server may be called. With keys that is any name, unless ALLOWED_HOSTS narrows it."""
        listed = parse_names(self.allowed_hosts or (ANY if self.api_keys else ""))
        return listed.also(self.host)

    def share_limits(self) -> ShareLimits:
        """What all callers may have at once, and how much of it one key. A lone user may have all of it."""
        keys = self.access_keys()
        return ShareLimits(
            bodies=self.max_concurrent_uploads,
            uploads=self.max_open_uploads,
            jobs=self.max_queued_jobs,
            streams=self.max_event_streams,
            part=self.key_share if keys is not None and len(keys.digests) > 1 else 1.0,
            jobs_per_key=self.max_queued_jobs_per_key,
        )


def describe_invalid_settings(error: ValidationError, shown: Callable[[str], str] = str.upper) -> str:
    """One sentence per setting that cannot be used, under the name it has in the environment, or as `shown` says."""
    found = ((item["loc"], item["msg"].removeprefix("Value error, ")) for item in error.errors())
    return "; ".join(f"{shown(str(place[0]))}: {message}" if place else message for place, message in found)


def read_settings() -> Settings:
    """The settings of this environment; logging follows them from now on.

    Raises:
        ValidationError: `describe_invalid_settings` tells it to people.
        InvalidInput: `.env` cannot be read.
    """
    settings = Settings()
    set_up_logging(settings)
    for sentence in describe_misspelt_settings({**dotenv_values(".env"), **os.environ}):
        logger.warning("%s", sentence)
    return settings


def describe_misspelt_settings(given: Mapping[str, str | None]) -> list[str]:
    """One sentence per variable that is nearly the name of a setting of S3: recordings would stay on the disk.

    Nothing of others: they may mean other programs.
    """
    known = [name.upper() for name in StorageConfig.model_fields]
    found = []
    for name in sorted(name for name, value in given.items() if value and name.upper().startswith("S3_")):
        like = get_close_matches(name.upper(), known, 1, cutoff=0.75)
        if like and like[0] != name.upper():
            found.append(f"{name} is no setting of Aperta's and does nothing. Did you mean {like[0]}?")
    return found


def set_up_logging(settings: Settings) -> None:
    """Log to stderr, one line an event; libraries only from warnings on."""
    logging.basicConfig(level=logging.WARNING, handlers=[log_handler(settings.log_format)])
    logging.getLogger("dbos").addHandler(logging.NullHandler())  # it adds its own format if it has no handler
    for name in ("backend", "uvicorn.access"):
        logging.getLogger(name).setLevel(settings.log_level.upper())
