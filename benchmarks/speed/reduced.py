"""What reduced precision changes in a map, and what it saves."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from costs.clocks import in_turns
from costs.common import Section

from gopt_geo.errors import GoptGeoError
from gopt_geo.inference.execution import choose_precision
from speed.exact import Pixels, compare, map_of
from speed.inputs import Pair
from speed.setting import Setting

__all__ = ["measure"]

SIZE = 1024


def measure(setting: Setting) -> list[Section]:
    """Compare bf16 and fp16 with fp32: classes, probabilities, and time."""
    known = [name for name in ("bf16", "fp16") if _has(name, setting.device)]
    scene = setting.scene(*((200, 200) if setting.quick else (SIZE, SIZE)))
    device = {"device": str(setting.device), "threads": setting.threads if setting.device.type == "cpu" else None}
    cases: dict[str, tuple[Pair, dict[str, object]]] = {
        "embedded pack, simulated scene": (scene, device),
        "embedded pack, real pair": (setting.real(), device),
        f"{setting.model}, random weights, simulated scene": (scene, {**setting.said, **device}),
    }
    section = Section(f"reduced precision against fp32, {setting.device}")
    for title, (pair, said) in cases.items():
        maps: dict[str, Pixels] = {}

        def run(name: str, pair: Pair = pair, said: dict[str, object] = said, maps: dict[str, Pixels] = maps) -> None:
            maps[name] = map_of(pair, {**said, "precision": name})

        clocks = in_turns({name: partial(run, name) for name in ("fp32", *known)}, setting.turns, setting.device)
        for name in known:
            row = compare(maps[name], maps["fp32"])
            sure = np.sort(maps["fp32"][0], axis=0)[-2:]
            ratio = clocks[name].main(setting.device) / clocks["fp32"].main(setting.device)
            row["margin of 0.1 at most"] = float((sure[1] - sure[0] < 0.1).mean())
            section.add(f"{name}, {title}", {**row, "time": ratio})
    section.notes.append("margin of 0.1 at most: share of pixels whose two likeliest classes are that near, in fp32.")
    section.notes.append("time: of the whole run (read, warp, forward, blend) against fp32.")
    return [section]


def _has(name: str, device: torch.device) -> bool:
    try:
        choose_precision(name, device)  # type: ignore[arg-type]
    except GoptGeoError:
        return False
    return True
