"""Freed memory goes back to the system: else gaps in the C library's heap add up, the more the longer a run takes."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache

__all__ = ["HeapTrimmer"]

INTERVAL = 10.0
"""Seconds from one time to the next; each takes about 0.03 s, most of it when the model asks for the memory again."""


class HeapTrimmer:
    """Gives freed memory back when it is called, if it hasn't for `INTERVAL`.

    glibc keeps what is freed below a block that is still in use. Arrays of many sizes, of several threads, then leave
    gaps that nothing fits into: a few percent more for each doubling of a scene's height. Other C libraries are left
    alone.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> None:
        """Give back, if it is time."""
        now = time.monotonic()
        if now - self._last >= INTERVAL:
            self._last = now
            self.now()

    def now(self) -> None:
        """Give back at once."""
        trim = _malloc_trim()
        if trim is not None:
            trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function, None where the C library is another."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return lambda keep: int(trim(keep))
