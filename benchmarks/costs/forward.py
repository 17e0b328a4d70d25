"""What prediction costs beside the bare frozen backbone with its head."""

from __future__ import annotations

from functools import partial

import torch

from costs.common import (
    Section,
    Setting,
    compare,
    default_config,
    make_backbone,
    make_images,
    take_turns,
    tell_disturbance,
)
from gopt_geo.models import Segmenter
from gopt_geo.models.baselines import build_model

BARE = "frozen backbone + head"
BUDGETS = {"embed_only": 1.08, "frozen": 2.1}


def measure(setting: Setting) -> list[Section]:
    """Time the forward pass with masks, as prediction passes them, and without."""
    backbone = make_backbone(setting)
    models: dict[str, Segmenter] = {
        BARE: build_model("rgb_only", backbone, default_config(backbone)),
        **{f"GoPT, {s}": build_model("gopt", backbone, default_config(backbone, aux_stream=s)) for s in BUDGETS},
    }
    for model in models.values():
        model.to(setting.device).eval()
    section = Section(f"forward pass, {setting.model}, {setting.size} x {setting.size}", not setting.quick)
    for batch in (setting.batch, 1):
        images, _ = make_images(setting, batch)
        edge = (batch, setting.size, setting.size)
        masks = {n: torch.ones(edge, dtype=torch.bool, device=setting.device) for n in images}
        for title, valid in {"with masks": masks, "without masks": None}.items():
            with torch.inference_mode():
                actions = {n: partial(m, images, valid) for n, m in models.items()}
                times = take_turns(actions, setting, 2 * setting.repeats)
            for name, row in compare(times, dict.fromkeys(times, BARE), setting).items():
                # The budget is for batches of 4.
                budget = BUDGETS.get(name.removeprefix("GoPT, ")) if batch == setting.batch else None
                section.add(f"{name}, batch {batch}, {title}", row, "ratio", budget)
    section.notes.append("Masks are true everywhere: prediction passes them with every tile.")
    tell_disturbance(section, setting)
    return [section]
