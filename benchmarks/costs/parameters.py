"""How many parameters the default configuration trains."""

from __future__ import annotations

import torch

from costs.common import Section, Setting, default_config, make_backbone
from gopt_geo.models import GoPT
from gopt_geo.models.parameters import count_parameters

DATA_SETS = {"NYUDv2": 40, "SUN RGB-D": 37, "MFNet": 9, "PST900": 5, "WHU-OPT-SAR": 7}
EQUATIONS = {  # the equations' own counts: as many groups as classes, every matrix, no mask token
    "vit_base_patch16_224": (583_912, 581_413, 558_089, 554_757, 556_423),
    "vit_large_patch16_224": (2_506_152, 2_502_693, 2_470_409, 2_465_797, 2_468_103),
}
SHARE_BUDGET = 1.0
DEVIATION_BUDGET = 1.0


def measure(_: Setting) -> list[Section]:
    """Count for the class numbers of five data sets, without memory for the weights."""
    share = Section("trained share, default configuration as built")
    every = Section("trained parameters against the equations' count, K = classes")
    for name, expected in EQUATIONS.items():
        with torch.device("meta"):
            backbone = make_backbone(Setting(torch.device("meta")), name)
        for (data_set, classes), wanted in zip(DATA_SETS.items(), expected, strict=True):
            changes = {
                "default": {},
                "K = classes": {"groups": classes},
                "every": {"groups": classes, "acp_mode": "both"},
            }
            with torch.device("meta"):
                counts = {
                    title: count_parameters(GoPT(backbone, default_config(backbone, classes=classes, **change)))
                    for title, change in changes.items()
                }
            title = f"{name.removesuffix('_224')}, {data_set} ({classes} classes)"
            built = counts["default"]
            row = {"trained": built.trained, "frozen": built.frozen, "%": 100 * built.share, **built.by_part}
            share.add(title, row, "%", SHARE_BUDGET)
            deviation = {t: 100 * (counts[t].trained / wanted - 1) for t in ("K = classes", "every")}
            row = {
                "equations": wanted,
                "acp_mode both": counts["every"].trained,
                "off by %": abs(deviation["every"]),
                "default": counts["K = classes"].trained,
                "default off by %": deviation["K = classes"],
                "default's share %": 100 * counts["K = classes"].share,
            }
            every.add(title, row, "off by %", DEVIATION_BUDGET)
    share.notes.append("K = max(8, classes).")
    every.notes.append(
        f"acp_mode both builds every matrix of the equations; the default, {default_config(backbone).acp_mode}, "
        "leaves out those that it has no use for. Both have a mask token that the equations' count leaves out."
    )
    return [share, every]
