"""How long it takes to read another pack and put it on a loaded backbone."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from costs.common import CLASSES, Section, Setting, default_config, make_backbone
from gopt_geo.models import GoPT
from gopt_geo.packs import BackboneRef, ClassInfo, ModalityInfo, PackMeta, load_model, read_pack, write_pack

BUDGET_MS = 50.0


def describe(model: GoPT, tile_size: int) -> PackMeta:
    """Describe a pack that is made to be loaded, not used."""
    three = {"channels": ((1, 0, 0), (0, 1, 0), (0, 0, 1)), "mean": (0.1,) * 3, "std": (0.1,) * 3}
    one = {"channels": ((1,),) * 3, "mean": (-12,) * 3, "std": (4,) * 3}
    return PackMeta(
        title="benchmark",
        backbone=BackboneRef(id=model.backbone.identity, sha256=model.backbone.digest()),
        config=model.config,
        classes=tuple(ClassInfo(value=v, name=f"class {v}", color="#808080") for v in range(CLASSES)),
        modalities={
            "optical": ModalityInfo(bands=("red", "green", "blue"), units="reflectance", **three),
            "sar": ModalityInfo(bands=("VV",), units="db", **one),
        },
        resolution_m=10.0,
        tile_size=tile_size,
        overlap=tile_size // 4,
    )


def measure(setting: Setting) -> list[Section]:
    """Time switching between two packs; the first time is apart, as it hashes the backbone."""
    backbone = make_backbone(setting)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.safetensors" for seed in range(2)]
        for seed, path in enumerate(paths):
            torch.manual_seed(seed)
            model = GoPT(backbone, default_config(backbone))
            write_pack(path, describe(model, setting.size), model.trainable_state())
        fresh = make_backbone(setting)  # the same weights, not hashed yet
        fresh.vit.load_state_dict(backbone.vit.state_dict())
        reading, placing, whole, processor = [], [], [], []
        for turn in range(4 * setting.repeats + 1):
            before = time.process_time()
            started = time.perf_counter()
            pack = read_pack(paths[turn % 2])
            read = time.perf_counter()
            load_model(pack, fresh)
            done = time.perf_counter()
            reading.append(1000 * (read - started))
            placing.append(1000 * (done - read))
            whole.append(1000 * (done - started))
            processor.append(1000 * (time.process_time() - before))
        size = paths[0].stat().st_size
    section = Section(f"switching packs on {setting.model}, loaded", not setting.quick)
    section.add("first pack, backbone hashed", {"wall ms": whole[0], "processor ms": processor[0]})
    for name, times, budget in (
        ("read_pack", reading, None),
        ("load_model", placing, None),
        ("both", whole, BUDGET_MS),
    ):
        ordered = sorted(times[1:])
        row = {
            "wall ms": statistics.median(ordered),
            "90 % below": ordered[int(0.9 * len(ordered))],
            "largest": ordered[-1],
        }
        if times is whole:
            row = {"processor ms": statistics.median(processor[1:]), **row}
        section.add(name, row, "wall ms" if setting.device.type == "cuda" else "processor ms", budget)
    section.notes.append(
        f"A pack is a file of {size / 2**20:.2f} MiB here. Medians over {len(whole) - 1} switches; one during which "
        "Python collects garbage takes longer. On the CPU the processor time is judged: on a machine that is busy with "
        "other things wall time is longer."
    )
    return [section]
