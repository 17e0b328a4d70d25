"""Finished pixels of a data set in whole blocks, kept in memory or in a file that worker processes share."""

from __future__ import annotations

import math
import mmap
import os
import pickle
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gopt_geo.errors import DatasetError
from gopt_geo.grid import Window, lattice
from gopt_geo.paths import StrPath
from gopt_geo.scene import BLOCK
from gopt_geo.scene.blockcache import BlockCache

__all__ = ["Blocks", "Layer", "Reopening"]

T = TypeVar("T")
Arrays = tuple[NDArray[Any], ...]


class Layer(NamedTuple):
    """One of the arrays that a block consists of: its leading axes, type, and value beyond the grid's edges."""

    axes: tuple[int, ...]
    dtype: Any
    fill: int = 0

    def make(self, window: Window, whole: bool) -> NDArray[Any]:
        """Return an array for a window; unset where all of it will be filled."""
        shape = (*self.axes, *window.shape)
        return np.empty(shape, self.dtype) if whole else np.full(shape, self.fill, self.dtype)

    @property
    def block_bytes(self) -> int:
        """Bytes of a whole block."""
        return int(math.prod(self.axes) * BLOCK * BLOCK * np.dtype(self.dtype).itemsize)


class Reopening(Generic[T]):
    """Holds what reads files, opened anew in a forked process: a handle's place in a file is shared with the parent.

    Parameters
    ----------
    reader
        Can be pickled; the copy opens its files anew.
    """

    def __init__(self, reader: T) -> None:
        self._reader, self._process = reader, os.getpid()

    def get(self) -> T:
        """Return this process's reader."""
        if self._process != os.getpid():
            self._reader = pickle.loads(pickle.dumps(self._reader))
            self._process = os.getpid()
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {"reader": self._reader}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._reader, self._process = state["reader"], os.getpid()


class Blocks:
    """Pixels of a grid, produced in whole blocks of its lattice and kept for the next window.

    Parameters
    ----------
    shape
        Height and width of the grid.
    layers
        The arrays of a block.
    produce
        Makes the arrays of a block (cut off at the grid's edges); the same for each call, and picklable.
    cache_bytes
        Bound of the blocks kept in memory, in each process.
    cache_dir
        Folder on a local disk. The blocks are kept there instead, all of them, in a file that worker processes share
        and that goes with this object; the system keeps in memory what fits. None keeps them in memory.

    Raises
    ------
    DatasetError
        If the folder can't be written to.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        layers: Sequence[Layer],
        produce: Callable[[Window], Arrays],
        cache_bytes: int,
        cache_dir: StrPath | None = None,
    ) -> None:
        self._shape, self._layers, self._produce, self._bytes = shape, tuple(layers), produce, cache_bytes
        across, down = -(-shape[1] // BLOCK), -(-shape[0] // BLOCK)
        self._file = None if cache_dir is None else _BlockFile(Path(cache_dir), across, across * down, self._layers)
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._memory: BlockCache[Arrays] = BlockCache(self._bytes, lambda block: sum(array.nbytes for array in block))

    def bytes_of(self, window: Window) -> int:
        """Return the bytes that the blocks of a window take."""
        count = sum(1 for _ in lattice(window, BLOCK))
        return count * sum(layer.block_bytes for layer in self._layers)

    def read(self, window: Window, into: Arrays | None = None) -> Arrays:
        """Return arrays of a window, which may hang over the grid's edges: new ones, or those to be filled."""
        inside = window.clip(self._shape)
        if into is None:
            arrays = tuple(layer.make(window, inside == window) for layer in self._layers)
        else:
            arrays = into
            for layer, array in zip(self._layers, arrays, strict=True):
                if inside != window:
                    array.fill(layer.fill)
        if inside is None:
            return arrays
        if self._process != os.getpid():  # a fork may have caught a lock that another thread held
            self._forget()
        for key in lattice(inside, BLOCK):
            block, part = key.clip(self._shape), key.intersect(inside)
            assert block is not None
            assert part is not None
            to, source = part.slices_in(window), part.slices_in(block)
            for array, kept in zip(arrays, self._block(block), strict=True):
                array[..., to[0], to[1]] = kept[..., source[0], source[1]]
        return arrays

    def _block(self, block: Window) -> Arrays:
        produce = partial(self._produce, block)
        if self._file is not None:
            return self._file.get(block, produce)
        return self._memory.get((block.row, block.col), produce)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_memory", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


class _BlockFile:
    """A file with a place for each block, and a byte for each that says whether it is filled.

    Processes that fill a place at the same time write the same bytes; the byte that says so is written after them.
    """

    def __init__(self, folder: Path, across: int, places: int, layers: tuple[Layer, ...]) -> None:
        self._across, self._layers = across, layers
        self._each = sum(layer.block_bytes for layer in layers)
        self._filled = self._each * places
        self._cache_dir = folder
        try:
            own = Path(tempfile.mkdtemp(prefix="gopt-geo-", dir=folder))
            self._path = own / "blocks"
            self._remove = weakref.finalize(self, _remove, own, os.getpid())
            with self._path.open("xb") as file:
                file.truncate(self._filled + places)  # a hole; the disk gives room as blocks come
        except OSError as error:
            raise self._error(f"no file can be made there ({error.strerror})") from error
        self._open()

    def _error(self, found: str) -> DatasetError:
        return DatasetError(self._cache_dir, found, "name another folder on a local disk with cache_dir")

    def _open(self) -> None:
        self._file = self._path.open("r+b", buffering=0)
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def get(self, block: Window, produce: Callable[[], Arrays]) -> Arrays:
        """Return the block's arrays as views of the file, after producing them where nobody has."""
        place = block.row // BLOCK * self._across + block.col // BLOCK
        if not self._map[self._filled + place]:
            arrays = produce()
            data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
            self._write(data, self._each * place)
            self._write(b"\1", self._filled + place)
        offset, views = self._each * place, []
        for layer in self._layers:
            shape = (*layer.axes, *block.shape)
            views.append(np.frombuffer(self._map, layer.dtype, math.prod(shape), offset).reshape(shape))
            offset += views[-1].nbytes
        return tuple(views)

    def _write(self, data: bytes, offset: int) -> None:
        try:
            while data:  # a nearly full disk takes a part
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise self._error(f"no more blocks can be kept there ({error.strerror})") from error

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_file", "_map", "_remove")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def _remove(folder: Path, process: int) -> None:
    """Remove the file with the object that made it, not with a copy in a worker."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
