"""The ceiling on memory: how it is stated, and what besides the tiler's own arrays has to fit below it."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import rasterio
from rasterio._env import get_gdal_config

from gopt_geo.errors import DeviceMemoryError, GoptGeoError
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.scene import BLOCK

__all__ = [
    "FIRST_USE",
    "GDAL_CACHE",
    "available_memory",
    "bounded_gdal_cache",
    "cache_share",
    "check_tiles",
    "parse_bytes",
    "resident_memory",
]

GDAL_CACHE = 64 << 20
"""Bytes of file blocks that GDAL may keep. Its own default, a twentieth of all memory, fills up as rows pass by."""

FIRST_USE = 64 << 20
"""Bytes of code and workspaces that torch and GDAL load with the first tiles, about."""

_MOST_CACHE = 512 << 20
_BANDS = 4  # bands a source is reckoned with: a cache has to hold a few blocks at least
_LEAST_CACHE = 4 * BLOCK * BLOCK * (4 * _BANDS + 1)


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as ``2GB``, ``500 MiB`` or ``1.5g``.

    Raises
    ------
    GoptGeoError
        If it isn't one.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE | re.ASCII)
    if match is None or float(match[1]) <= 0:
        raise GoptGeoError(f"--max-memory {text}", "not a number of bytes", "write it as 500MB, 2GB or 1.5GiB")
    power = " kmgt".index(match[2].lower() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def resident_memory() -> int:
    """Bytes of memory that this process holds now (where the system doesn't tell: has held at most)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
    return pages * resource.getpagesize()


def available_memory() -> int | None:
    """Bytes that this process may still take before the system ends it; None where the system doesn't tell."""
    limits = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        pass
    group = Path("/sys/fs/cgroup")  # of a container, where it has a limit of its own
    for most, now in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            held, stored = int((group / now).read_text("ascii")), (group / "memory.stat").read_text("ascii").split()
            cached = stored[stored.index("inactive_file") + 1] if "inactive_file" in stored else 0
            limits.append(int((group / most).read_text("ascii")) - held + int(cached))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return max(min(limits), 0) if limits else None


def check_tiles(model: PackModel, tile_size: int, batch_size: int, subject: str) -> None:
    """Refuse tiles whose forward pass can't fit into the memory that is free, before the system ends the process.

    What is reckoned is the least that one batch takes: its tiles, the widest moment of the transformer
    (`PackModel.working_memory`; on a GPU it is the GPU's own, which says itself when it is full), and its output.

    Raises
    ------
    DeviceMemoryError
        If they need more than `available_memory`.
    """
    free = available_memory()
    tile = tile_size**2 * 4 * (model.num_classes + len(model.modalities) * model.model.backbone.in_chans)
    need = batch_size * tile + (model.working_memory(tile_size, batch_size) if model.device.type == "cpu" else 0)
    if free is None or need <= free:
        return
    found = f"batches of {batch_size} tiles of {tile_size} x {tile_size} pixels need about {_gib(need)}"
    remedy = "lower --tile-size or --batch-size; a tile needn't be larger than the scene"
    raise DeviceMemoryError(subject, f"{found} of memory, and {_gib(free)} are free", remedy)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def cache_share(limit: int, sources: int) -> int:
    """Bytes of blocks that each of a scene's sources may keep under a ceiling: together a quarter of what is free."""
    free = max(limit - resident_memory() - GDAL_CACHE, 0)
    return max(min(free // 4 // sources, _MOST_CACHE), _LEAST_CACHE)


def bounded_gdal_cache() -> AbstractContextManager[object]:
    """Return a context in which GDAL's cache of file blocks, which all threads share, stays within `GDAL_CACHE`."""
    env: AbstractContextManager[object] = rasterio.Env(
        GDAL_CACHEMAX=min(int(get_gdal_config("GDAL_CACHEMAX")), GDAL_CACHE)
    )
    return env
