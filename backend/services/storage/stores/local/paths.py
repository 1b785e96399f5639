"""LocalPaths: which file a locator means. The only place that turns a locator into a path."""

from __future__ import annotations

from pathlib import Path

from backend.errors import InvalidInput, StorageMisconfigured
from backend.services.storage.files import refuse_links
from backend.services.storage.keys import validated_key


class LocalPaths:
    """
    Args:
        upload_dir: the folder; a relative one is taken from the working directory of now.

    Attributes:
        prefix: what every locator begins with: the folder as configured, and a slash.
        root: the folder, absolute.
    """

    def __init__(self, upload_dir: str) -> None:
        self.prefix = upload_dir.rstrip("/") + "/"
        self.root = Path(upload_dir).absolute()

    def owns(self, locator: str) -> bool:
        """Whether a locator has the form of a path."""
        return "://" not in locator

    def locator(self, key: str) -> str:
        """The locator of a key."""
        return self.prefix + validated_key(key)

    def key(self, locator: str) -> str:
        """The key in a locator. Errors as in `path`."""
        return self.path(locator).relative_to(self.root).as_posix()

    def path(self, locator: str) -> Path:
        """Return where a locator points.

        Raises:
            InvalidInput: no object at all.
            StorageMisconfigured: outside UPLOAD_DIR, or a symbolic link leads there.
        """
        if not self.owns(locator) or "\0" in locator:
            raise InvalidInput(f"{locator[:200]!r} is not a local object.")
        path = self.root / locator.removeprefix(self.prefix)
        if not locator.startswith(self.prefix):
            path = Path(locator).absolute()
        if self.root not in path.parents:
            raise StorageMisconfigured(
                f"{locator[:200]!r} is outside UPLOAD_DIR. Was it moved? See `aperta storage relocate`."
            )
        validated_key(path.relative_to(self.root).as_posix())
        refuse_links(path, self.root)
        return path

    def path_of_key(self, key: str) -> Path:
        """Return where a key points, without a look at links."""
        return self.root / validated_key(key)
