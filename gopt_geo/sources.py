"""What a user and a pack say about a scene's sources, as `gopt_geo.scene.open_scene` wants it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from gopt_geo.errors import BandError, PackError
from gopt_geo.grid import pixel_size_m
from gopt_geo.packs import Pack, PackMeta
from gopt_geo.scene import Scene, SourceSpec

__all__ = ["check_modalities", "odd_pixel_size", "source_spec"]

_RATIO = 1.5  # promise 7: pixels further from the pack's in size than this


def source_spec(
    name: str,
    path: Path,
    meta: PackMeta,
    *,
    bands: str | None = None,
    units: str | None = None,
    mask: Path | None = None,
) -> SourceSpec:
    """Put together what is known of one source.

    Parameters
    ----------
    name
        Its modality, one of the pack's.
    path
        Its raster.
    meta
        Of the pack: how many bands it expects, how they are called, and their unit.
    bands
        Comma-separated band numbers (from 1) or names, as given with ``--NAME-bands``.
    units
        As given with ``--NAME-units``.
    mask
        Raster that marks pixels not to use.

    Raises
    ------
    BandError
        If the list of bands has a gap.
    """
    info = meta.modalities[name]
    return SourceSpec(
        path=path,
        bands=_bands(bands, f"--{name}-bands"),
        units=units,
        target_units=info.units,
        count=len(info.bands),
        band_names=info.bands,
        mask=mask,
    )


def check_modalities(pack: Pack, names: Iterable[str]) -> None:
    """Refuse a pack that doesn't know one of these modalities.

    Raises
    ------
    PackError
        If it doesn't.
    """
    unknown = [name for name in names if name not in pack.meta.modalities]
    if unknown:
        raise PackError(
            pack.path or pack.meta.title,
            f"it knows {', '.join(pack.meta.modalities)}, not {', '.join(unknown)}",
            "use a pack for these modalities",
        )


def odd_pixel_size(scene: Scene, meta: PackMeta) -> str | None:
    """Say what was found where a scene's pixels are more than 1.5 times larger or smaller than the pack's.

    None where they aren't, or where the scene has no CRS to tell.
    """
    if scene.grid.crs is None:
        return None
    size = pixel_size_m(scene.grid)
    ratio = max(size / meta.resolution_m, meta.resolution_m / size) if size > 0 else math.inf
    if ratio <= _RATIO:
        return None
    return f"pixels of {size:.3g} m on the scene grid, and the pack {meta.title!r} knows {meta.resolution_m:g} m"


def _bands(text: str | None, option: str) -> list[int | str] | None:
    """Split a list of bands; whole numbers are 1-based indices, all else names."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise BandError(f"{option} {text!r}", "a band is missing in the list", f"write it as {option} 3,2,1 or B04,B03")
    return [int(part) if part.isdecimal() else part for part in parts]
