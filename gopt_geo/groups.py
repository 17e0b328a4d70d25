"""The groups of a scene: run a pack's model over a window, count how its groups are used, and draw them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex, Unpack, cast

from gopt_geo.ceiling import bounded_gdal_cache, check_tiles
from gopt_geo.errors import GoptGeoError, OutputError, PackError, SourceError
from gopt_geo.grid import Window
from gopt_geo.inference import TilePlan
from gopt_geo.inference.groups import GroupCanvas, gather_groups
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.models.diagnostics import LayerUsage
from gopt_geo.outputs.groups import GroupPanel, draw_groups
from gopt_geo.outputs.staging import Staging
from gopt_geo.packchoice import choose_pack
from gopt_geo.packs import Pack, load_model
from gopt_geo.paths import StrPath
from gopt_geo.scene.bandfiles import Source, source_name
from gopt_geo.sources import SceneInputs, SceneOptions, SourceOptions, check_modalities, odd_pixel_size

__all__ = ["picture_groups"]

_TILES = 4  # along each side of the window taken where none is asked for
_EDGE = 1200  # pixels of an image in the picture; more don't show


def picture_groups(
    optical: Source,
    sar: Source,
    picture: StrPath,
    *,
    pack: StrPath | None = None,
    backbone_weights: StrPath | None = None,
    window: tuple[int, int, int, int] | None = None,
    layers: Sequence[int] | None = None,
    overwrite: bool = False,
    **said: Unpack[SourceOptions],
) -> dict[str, Any]:
    """Draw the groups that a pack's model makes of a scene, and tell how they are used.

    Parameters
    ----------
    optical, sar
        Rasters, as for `gopt_geo.predict`.
    picture
        The PNG to write.
    pack
        Prompt pack; else ``GOPT_GEO_PACK``, else the embedded demo pack.
    backbone_weights
        See `gopt_geo.predict`.
    window
        First column, first row, width and height, in pixels of the optical raster; it is widened to whole tokens.
        None: up to 4 x 4 tiles in the middle.
    layers
        Which prompted layers; None: all.
    overwrite
        Replace a picture that exists.
    said
        Of the sources: see `gopt_geo.sources.SourceOptions`.

    Returns
    -------
    Plain JSON data: the picture's path, pack, window, notices, and `GroupUsage.to_dict`.

    Raises
    ------
    GoptGeoError
        If an input, the pack, an option or the output doesn't serve; nothing stands at the picture's path then.
    """
    picture, inputs = Path(picture), SceneInputs(optical, sar, cast("SceneOptions", said))
    pixels = _numbers("--window", window, 4) if window is not None else None
    shown_layers = _numbers("--layers", layers) if layers is not None else None
    also = [path for path in (pack, backbone_weights) if path is not None]
    with Staging(overwrite, inputs=[*also, *inputs.files()]) as staging:
        staged = staging.path(picture, (".png",))
        if find_spec("matplotlib") is None:
            raise OutputError(picture, "matplotlib isn't installed", "pip install 'gopt-geo[report]'")
        with ExitStack() as stack:
            stack.enter_context(bounded_gdal_cache())
            chosen, notices = choose_pack(pack)
            meta = chosen.meta
            _check_groups(chosen)
            check_modalities(chosen, inputs.sources)
            scene = stack.enter_context(inputs.open(meta))
            plan = TilePlan(scene.shape, meta.tile_size, 0)
            asked = _asked(pixels, plan)
            notices += scene.notices
            odd = odd_pixel_size(scene, meta)
            if odd is not None:  # groups can be looked at all the same
                notices.append(f"warning: {odd}")
            model = PackModel(load_model(chosen, weights=backbone_weights), meta, meta.tile_size)
            check_tiles(model, meta.tile_size, 1, str(chosen.path or meta.title))
            canvas = gather_groups(scene, model, plan, asked, _wanted(shown_layers, chosen, model), _EDGE)
        told = canvas.usage.layers()
        shown = canvas.window.clip(plan.shape)  # whole tokens may hang over the scene's edges
        assert shown is not None
        _check_data(told, sar, asked if window is not None else None, said.get("sar_units"))
        _draw(staged, canvas, told, meta.config.groups, f"{meta.title}: {_where(shown)} of {inputs.names['optical']}")
        staging.publish()
    return {
        "picture": str(picture),
        "pack": meta.title,
        "pack_sha256": chosen.sha256,
        "window": [shown.col, shown.row, shown.width, shown.height],
        "tile_size": meta.tile_size,
        "patch_size": model.model.backbone.patch_size,
        "assignment": meta.config.assignment,
        **canvas.usage.to_dict(),
        "notices": notices,
    }


def _check_groups(pack: Pack) -> None:
    """Refuse a pack whose model has no groups."""
    config = pack.meta.config
    if not config.auxiliary:
        found = f"its model reads {config.primary} alone; groups are made of an auxiliary modality's tokens"
    elif config.cup != "grouping":
        found = f"its model works without groups (CUP is off: {config.cup})"
    elif config.layers == ():
        found = "its model prompts no layer, and groups are made where it prompts"
    else:
        return
    raise PackError(pack.path or pack.meta.title, found, "name a pack with groups with --pack")


def _wanted(layers: Sequence[int] | None, pack: Pack, model: PackModel) -> frozenset[int]:
    """Layers to show: those asked for, else all prompted ones."""
    prompted = pack.meta.config.prompted_layers(model.model.backbone.depth)
    if layers is None:
        return frozenset(prompted)
    missing = sorted(set(layers) - set(prompted))
    if missing or not layers:
        raise GoptGeoError(
            f"--layers {','.join(str(layer) for layer in layers)}",
            f"the model of {pack.meta.title!r} doesn't prompt layer {', '.join(map(str, missing))}"
            if missing
            else "no layer is named",
            f"choose from {','.join(str(layer) for layer in prompted)}",
        )
    return frozenset(layers)


def _numbers(option: str, given: object, count: int | None = None) -> tuple[int, ...]:
    """Check that whole numbers are given, and how many: a text has letters, and letters aren't numbers."""
    numbers = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (None,)
    whole = all(isinstance(number, SupportsIndex) and not isinstance(number, bool) for number in numbers)
    if not whole or count not in (None, len(numbers)):
        wanted = f"{count} whole numbers" if count is not None else "whole numbers"
        example = (0, 0, 512, 512) if count is not None else (1, 2)
        raise GoptGeoError(option, f"{given!r} isn't {wanted}", f"give {wanted}, such as {example}")
    return tuple(index(number) for number in numbers)


def _asked(window: tuple[int, ...] | None, plan: TilePlan) -> Window:
    """Window asked for, else whole tiles in the middle of the scene."""
    height, width = plan.shape
    if window is None:
        rows, cols = min(plan.rows, _TILES), min(plan.cols, _TILES)
        first = plan.window((plan.rows - rows) // 2, (plan.cols - cols) // 2)
        whole = Window(first.row, first.col, rows * plan.tile_size, cols * plan.tile_size).clip(plan.shape)
        assert whole is not None
        return whole
    col, row, across, down = window
    inside = min(col, row) >= 0 and min(across, down) >= 1 and col + across <= width and row + down <= height
    if not inside:
        raise GoptGeoError(
            f"--window {','.join(str(number) for number in window)}",
            f"it isn't inside the scene, which is {width} pixels wide and {height} high",
            "give COL,ROW,WIDTH,HEIGHT in pixels of the optical raster, columns and rows from 0",
        )
    return Window(row, col, down, across)


def _check_data(told: Sequence[LayerUsage], sar: Source, asked: Window | None, units: str | None) -> None:
    """Refuse a window of which there is nothing to show; ``asked`` is None where the window wasn't."""
    if any(usage.tokens for usage in told):
        return
    if asked is None:
        where, another = "in the middle of the scene", "name a window with data: --window COL,ROW,WIDTH,HEIGHT"
    else:
        where, another = f"in --window {asked.col},{asked.row},{asked.width},{asked.height}", "name another --window"
    meant = f"check --sar-units {units}" if units is not None else "state the right --sar-units"
    remedy = f"{another}, or {meant}: pixels that can't be of the unit count as missing"
    raise SourceError(source_name(sar), f"no token has data {where}", remedy)


def _draw(output: Path, canvas: GroupCanvas, told: Sequence[LayerUsage], groups: int, heading: str) -> None:
    """Draw images and the layers' panels."""
    several = len({usage.modality for usage in told}) > 1
    panels = []
    for usage in told:
        of = f", {usage.modality}" if several else ""
        title = f"layer {usage.layer}{of}: {usage.used} of {groups} groups used, entropy {usage.entropy:.2f}"
        panels.append(GroupPanel(title, canvas.numbers[usage.layer, usage.modality]))
    sar = canvas.images.get("sar")
    draw_groups(output, canvas.images.get("optical"), None if sar is None else sar[0], panels, groups, heading)


def _where(window: Window) -> str:
    return f"columns {window.col} to {window.col_stop - 1}, rows {window.row} to {window.row_stop - 1}"
