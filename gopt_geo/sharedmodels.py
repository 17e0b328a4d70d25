"""Models that a process keeps: one for all maps of a pack, and one backbone under all packs that are made for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from gopt_geo.inference import TileOptions
from gopt_geo.inference.execution import Execution
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.maprequest import MapRequest
from gopt_geo.models.backbone import Backbone
from gopt_geo.openmap import load_pack_model
from gopt_geo.packs import Pack

__all__ = ["shared_model"]

_KEPT = 4  # models that a process keeps; those of one backbone share it, and have a few MB of their own
_LOADING = threading.Lock()
_MODELS: OrderedDict[tuple[Any, ...], PackModel] = OrderedDict()


def shared_model(request: MapRequest, pack: Pack, options: TileOptions, execution: Execution) -> PackModel:
    """Load a pack's model once in a process, whichever maps of the same options it serves.

    A backbone that another pack's model has brought here, on the same device, is taken, not loaded again.

    Raises
    ------
    GoptGeoError
        If it can't be loaded, or the tile size isn't one for it.
    """
    key = (pack.sha256, execution, options.tile_size, request.backbone_weights)
    with _LOADING:
        if key not in _MODELS:
            backbone = _loaded_backbone(pack, execution)
            _MODELS[key] = load_pack_model(request, pack, options, execution, backbone)
        _MODELS.move_to_end(key)
        while len(_MODELS) > _KEPT:
            _MODELS.popitem(last=False)
        return _MODELS[key]


def _loaded_backbone(pack: Pack, execution: Execution) -> Backbone | None:
    """Return the pack's backbone as it came from its file, if a model here has it."""
    for model in _MODELS.values():
        # Of a reduced precision a model holds a rounded copy, whose weights aren't those that a pack asks for.
        if model.execution.device == execution.device and model.execution.low_dtype is None:
            backbone = model.model.backbone
            if backbone.digest() == pack.meta.backbone.sha256:
                return backbone
    return None
