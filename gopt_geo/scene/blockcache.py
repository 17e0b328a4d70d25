"""A cache of produced blocks: bounded in bytes, each block produced once however many ask at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["BlockCache"]

T = TypeVar("T")


class BlockCache(Generic[T]):
    """Least-recently-used cache with one producer per key.

    Parameters
    ----------
    capacity
        Bytes to keep at most, after each insertion; a block larger than that isn't kept, nor is one of no bytes.
    size
        Tells a block's bytes.
    """

    def __init__(self, capacity: int, size: Callable[[T], int]) -> None:
        self.capacity = capacity
        self._size = size
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Hashable, T] = OrderedDict()
        self._pending: dict[Hashable, Future[T]] = {}
        self._bytes = 0

    def get(self, key: Hashable, produce: Callable[[], T]) -> T:
        """Return the block of `key`; one caller produces it, the others wait, an error reaches them all."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
            future = self._pending.get(key)
            producing = future is None
            if future is None:
                future = self._pending[key] = Future()
        if producing:
            self._produce(key, produce, future)
        return future.result()

    def _produce(self, key: Hashable, produce: Callable[[], T], future: Future[T]) -> None:
        try:
            block = produce()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._pending[key]
            if (size := self._size(block)) > 0:
                self._blocks[key] = block
                self._bytes += size
            while self._bytes > self.capacity:
                _, dropped = self._blocks.popitem(last=False)
                self._bytes -= self._size(dropped)
        future.set_result(block)

    def clear(self) -> None:
        """Drop all blocks."""
        with self._lock:
            self._blocks.clear()
            self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return self._bytes
