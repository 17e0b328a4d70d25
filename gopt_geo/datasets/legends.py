"""Classes of the published data sets: label values, names and colours."""

from __future__ import annotations

from gopt_geo.datasets.classes import ClassTable

__all__ = ["MFNET", "NYU40", "PST900_CLASSES", "SUN37", "WHU7"]

_NYU_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat",
    "clothes", "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box",
    "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag",
    "other structure", "other furniture", "other prop",
)  # fmt: skip

WHU7 = ClassTable(
    values=(10, 20, 30, 40, 50, 60, 70),
    names=("farmland", "city", "village", "water", "forest", "road", "others"),
    colours=("#cc6600", "#ff0000", "#ffff00", "#0000ff", "#55a700", "#00ffff", "#996699"),
    ignore=(0,),
    source="WHU-OPT-SAR",
)
"""WHU-OPT-SAR: value / 10 - 1; 0 is background, which isn't labelled. The data set states no colours."""

NYU40 = ClassTable(tuple(range(1, 41)), _NYU_NAMES, ignore=(0,), source="NYUDv2")
"""NYUDv2, 40 classes: value - 1; 0 is void, which isn't labelled."""

SUN37 = ClassTable(tuple(range(1, 38)), _NYU_NAMES[:37], ignore=(0,), source="SUN RGB-D")
"""SUN RGB-D: the first 37 of NYUDv2's."""

MFNET = ClassTable(
    values=tuple(range(9)),
    names=("unlabelled", "car", "person", "bike", "curve", "car stop", "guardrail", "colour cone", "bump"),
    colours=("#000000", "#400080", "#404000", "#0080c0", "#0000c0", "#808000", "#404080", "#c08080", "#c04000"),
    source="MFNet",
)
"""MFNet: the values are the indexes; "unlabelled" is trained and scored."""

PST900_CLASSES = ClassTable(
    values=tuple(range(5)),
    names=("background", "fire extinguisher", "backpack", "hand drill", "rescue randy"),
    colours=("#000000", "#d1344b", "#3b7dd8", "#e3c567", "#2f7d4f"),
    source="PST900",
)
"""PST900: the values are the indexes; background is trained and scored."""
