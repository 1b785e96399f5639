"""Models from the Hugging Face hub, or a mirror of it. The only file that talks to one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from backend.engines.catalogue import FILES, KnownModel
from backend.errors import EngineUnavailable


class HubRefusal(EngineUnavailable):
    """The hub cannot be reached or does not give the model; the message is one sentence."""


def download(known: KnownModel, models_dir: Path | None, token: str | None, endpoint: str | None) -> None:
    """Fetch a model, or finish a download that was cut; progress bars go to stderr.

    Raises:
        HubRefusal
        EngineUnavailable: no space, or the downloading library is missing.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise EngineUnavailable("Fetching models needs a package: pip install huggingface_hub.") from error
    files = None if known.kind == "pyannote" else list(FILES[known.kind])
    target = models_dir / known.name if models_dir else None
    try:
        snapshot_download(known.repo, local_dir=target, allow_patterns=files, token=token, endpoint=endpoint)
    except Exception as error:  # the hub library raises its own, its HTTP client's and the system's errors
        raise _refusal(known, error, token, endpoint) from error


def _refusal(known: KnownModel, error: Exception, token: str | None, endpoint: str | None) -> EngineUnavailable:
    """One sentence for why a download failed."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return HubRefusal(f"The model hub refuses {known.repo}{_how_to_get_access(known, token)}")
    if isinstance(error, HfHubHTTPError):
        return HubRefusal(f"The model hub answered {error.response.status_code} for {known.repo}. Try again later.")
    if isinstance(error, OSError) and not isinstance(error, LocalEntryNotFoundError) and error.errno in _DISK:
        return EngineUnavailable(
            f"{known.name} cannot be stored ({error.strerror}): about {known.size_mb} MB are needed."
        )
    hub = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return HubRefusal(f"Cannot reach the model hub {hub} ({_root(error)}).")


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


def _how_to_get_access(known: KnownModel, token: str | None) -> str:
    if known.kind != "pyannote":
        return ": check HF_TOKEN."
    missing = "this HF_TOKEN has no access" if token else "HF_TOKEN is not set"
    return (
        f": {missing}. Accept the conditions on https://huggingface.co/{known.repo}, "
        "set HF_TOKEN to a token with read access, and run `aperta models pull community-1` again."
    )


def _root(error: BaseException) -> str:
    """The innermost cause, which for network errors is the one worth reading."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__
