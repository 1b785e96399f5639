"""How the C library keeps memory that inference has freed."""

from __future__ import annotations

import ctypes

# glibc's malloc.h; see mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
MMAP_THRESHOLD_BYTES = 8 * 1024 * 1024
TRIM_THRESHOLD_BYTES = 2 * MMAP_THRESHOLD_BYTES
"""As glibc has it when left alone. Once the other is set this would stay at 128 KB, and the chunks of an upload would
have their memory mapped anew all the time."""
ARENAS = 2


def return_large_blocks() -> None:
    """Have large arrays go back to the system when they are freed, instead of growing one heap per thread.

    Left alone, glibc raises its threshold to the largest block it has seen freed and keeps such blocks: a server that
    had processed an hour of audio peaked at 1047 MB, with this at 578 MB. A threshold of 1 MB gives 505 MB, but then
    mapping blocks costs a fifth of the speed. Other C libraries have no such switch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)


def return_freed() -> None:
    """Give the system what was freed in the midst of the heap, as the weights of a released model are."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
