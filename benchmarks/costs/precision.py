"""What bf16 and the batch size change: hard assignments that flip, and probabilities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from costs.common import Images, Section, Setting, default_config, make_backbone, make_images
from gopt_geo.models import GoPT, Grouping
from gopt_geo.packs import demo_pack_path, load_model, read_pack
from gopt_geo.simulate import SceneSpec, simulate_scene
from gopt_geo.training.demo import FIRST_TEST_SEED

IMAGES = 8
STEADY_BUDGET = 1e-5  # largest change of a probability where no assignment flips
FLIP_BUDGET = 1e-6  # share of assignments that flip


def make_model(setting: Setting) -> GoPT:
    """Build a model with random weights whose prompts and probabilities are large enough for errors to show."""
    torch.manual_seed(0)
    backbone = make_backbone(setting)
    model = GoPT(backbone, default_config(backbone, assignment="hard")).to(setting.device).eval()
    with torch.no_grad():
        for prompter in model.prompters.values():
            prompter.scale.fill_(1.0)
        images, _ = make_images(setting, 1)
        spread = model(images).std()
        model.head.classify.weight.mul_(3.0 / spread)  # type: ignore[union-attr, operator]
        model.head.classify.bias.mul_(3.0 / spread)  # type: ignore[union-attr, operator]
    return model


def predict(model: GoPT, images: Images, low: bool = False) -> tuple[Tensor, Tensor]:
    """Probabilities, and the group that each token chose, [layers, B, N]."""
    groupings: list[Grouping] = []
    some = next(iter(images.values()))
    with torch.autocast(some.device.type, torch.bfloat16, enabled=low):
        logits = model(images, None, groupings)
    groups = [g.assignment.argmax(dim=1) for g in groupings]
    return torch.softmax(logits.float(), dim=1), torch.stack(groups) if groups else torch.empty(0)


def differences(one: Tensor, other: Tensor) -> dict[str, float]:
    """How two predictions of the same images differ."""
    change = (one - other).abs()
    return {
        "largest change": float(change.max()),
        "mean change": float(change.mean()),
        "other class": float((one.argmax(1) != other.argmax(1)).float().mean()),
    }


@torch.inference_mode()
def measure(setting: Setting) -> list[Section]:
    """Compare bf16 autocast with fp32, and batches of 1 to 7 images with one of 8."""
    model = make_model(setting)
    images, _ = make_images(setting, IMAGES)
    whole, groups = predict(model, images)
    random = f"bf16 autocast against fp32, {setting.model}, random weights and images"
    trained = "bf16 autocast against fp32, embedded demo pack, a simulated scene"
    bf16 = [_bf16(random, model, images), _bf16(trained, *demo(setting))]
    batches = Section(f"batches of 1 to 7 images against one of 8, {setting.model}, fp32", not setting.quick)
    tokens, flips, largest = 0, 0, 0.0
    for size in range(1, IMAGES):
        row = _against(model, images, whole, groups, size)
        batches.add(f"batch {size}", row)
        tokens, flips, largest = tokens + row["tokens"], flips + row["flips"], max(largest, row["largest change"])
    batches.add("largest change, all", {"largest change": largest}, "largest change", STEADY_BUDGET)
    row = {"tokens": tokens, "flips": flips, "share": flips / tokens}
    batches.add("flips, all", row, "share", FLIP_BUDGET)
    batches.notes.append("largest change: of a probability, over the images in which no token flipped.")
    return [*bf16, batches]


def demo(setting: Setting) -> tuple[GoPT, Images]:
    """Load the embedded demo pack, and tiles of a simulated scene that its training never saw, normalised."""
    pack = read_pack(demo_pack_path())
    edge = pack.meta.tile_size
    scene = simulate_scene(SceneSpec(FIRST_TEST_SEED, height=(1 if setting.quick else 4) * edge, width=4 * edge))
    bands = {"optical": scene.optical[:3], "sar": 10 * np.log10(scene.sar[:1])}
    images = {}
    for name, info in pack.meta.modalities.items():
        values = torch.einsum("dc,chw->dhw", torch.tensor(info.channels), torch.from_numpy(bands[name]).float())
        normal = (values - torch.tensor(info.mean)[:, None, None]) / torch.tensor(info.std)[:, None, None]
        tiles = normal.unfold(1, edge, edge).unfold(2, edge, edge)  # [C, rows, columns, edge, edge]
        images[name] = tiles.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous().to(setting.device)
    return load_model(pack).to(setting.device), images


def _bf16(title: str, model: GoPT, images: Images) -> Section:
    """Compare bf16 autocast with fp32, layer by layer."""
    whole, groups = predict(model, images)
    low, low_groups = predict(model, images, low=True)
    flipped = (low_groups != groups).float().mean(dim=(1, 2)).tolist()
    section = Section(title)
    section.add("all layers", {"flips": sum(flipped) / len(flipped), **differences(low, whole)})
    for layer, share in zip(model.prompters, flipped, strict=True):
        section.add(f"layer {layer}", {"flips": share})
    alone, _ = predict(model, {"optical": images["optical"]})
    section.add("for comparison: SAR left out, fp32", differences(alone, whole))
    section.notes.append("flips: share of tokens that chose another group. Changes are of probabilities.")
    return section


def _against(model: GoPT, images: Images, whole: Tensor, groups: Tensor, size: int) -> dict[str, float | int]:
    """Run the images in batches of ``size`` and compare."""
    tokens, flips, largest = 0, 0, 0.0
    for start in range(0, IMAGES, size):
        part = slice(start, start + size)
        own, own_groups = predict(model, {n: v[part] for n, v in images.items()})
        flipped = own_groups != groups[:, part]
        tokens, flips = tokens + flipped.numel(), flips + int(flipped.sum())
        steady = ~flipped.any(dim=2).any(dim=0)
        if bool(steady.any()):
            largest = max(largest, float((own - whole[part])[steady].abs().max()))
    return {"tokens": tokens, "flips": flips, "largest change": largest}
