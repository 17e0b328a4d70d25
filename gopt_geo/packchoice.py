"""Which pack a job takes, and whether a scene's pixels are of the pack's size."""

from __future__ import annotations

import os
from pathlib import Path

from gopt_geo.errors import PackError, ResolutionError
from gopt_geo.packs import Pack, PackMeta, demo_pack_path, read_pack
from gopt_geo.paths import StrPath, optional_path
from gopt_geo.scene import Scene
from gopt_geo.scene.bandfiles import Source, source_name
from gopt_geo.sources import odd_pixel_size

__all__ = ["check_resolution", "choose_pack"]


def choose_pack(pack: StrPath | None) -> tuple[Pack, list[str]]:
    """Read the pack asked for, else the one in ``GOPT_GEO_PACK``, else the embedded demo pack; and what to say of it.

    Raises
    ------
    PackError
        See `gopt_geo.packs.read_pack`.
    """
    variable = os.environ.get("GOPT_GEO_PACK") if pack is None else None
    path = Path(variable).expanduser() if variable else optional_path(pack)
    try:
        read = read_pack(path if path is not None else demo_pack_path())
    except PackError as error:
        if not variable:
            raise
        raise PackError(f"GOPT_GEO_PACK: {path}", error.found, f"{error.remedy}, or unset the variable") from error
    notices = []
    if read.meta.notice:
        how = "" if path is not None else "; name another with --pack or GOPT_GEO_PACK"
        notices.append(f"warning: pack {read.meta.title!r}: {read.meta.notice}{how}")
    return read, notices


def check_resolution(scene: Scene, meta: PackMeta, source: Source, allowed: bool) -> list[str]:
    """Refuse a scene whose pixels are too far from the pack's in size (promise 7), or say what was found.

    Raises
    ------
    ResolutionError
        If they are, and that isn't ``allowed``.
    """
    if meta.resolution_m is None:
        return [f"the pixel size isn't checked: the pack {meta.title!r} doesn't know the one it was trained at"]
    if scene.grid.crs is None:
        return [f"no CRS: the pixel size can't be checked against the pack's {meta.resolution_m:g} m"]
    found = odd_pixel_size(scene, meta)
    if found is None:
        return []
    if not allowed:
        remedy = f"resample with --resolution (about {meta.resolution_m:g} m), or accept it with --allow-resolution"
        raise ResolutionError(source_name(source), found, remedy)
    return [f"warning: {found}; mapped as asked"]
