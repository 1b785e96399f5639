"""Places: a number of things at once, of which each owner may have some."""

from __future__ import annotations

from collections import Counter
from enum import Enum


class Taken(Enum):
    """Who uses up the places: all owners together, or the one who asks for another."""

    ALL = "all"
    OWN = "own"


class Places:
    """For one event loop.

    Args:
        count: places in all.
        own: places of one owner.
    """

    def __init__(self, count: int, own: int) -> None:
        self.count = count
        self.own = own
        self._taken: Counter[str] = Counter()

    def find_reason(self, owner: str) -> Taken | None:
        """Why an owner cannot have another place; None: it can."""
        if self._taken[owner] >= self.own < self.count:
            return Taken.OWN
        return Taken.ALL if self._taken.total() >= self.count else None

    def take(self, owner: str) -> None:
        self._taken[owner] += 1

    def free(self, owner: str) -> None:
        """Give a place back. Owners without a place are forgotten."""
        self._taken[owner] -= 1
        if self._taken[owner] <= 0:
            del self._taken[owner]
