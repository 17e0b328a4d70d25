"""Prediction from files to files against the network alone, and what a half-empty scene costs."""

from __future__ import annotations

import torch
from costs.clocks import Clocks, in_turns
from costs.common import Section
from torch import Tensor

from gopt_geo import api
from gopt_geo.inference.execution import Execution
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.packs import load_model, read_pack
from gopt_geo.prediction import PredictReport
from speed.inputs import Pair
from speed.setting import Setting

__all__ = ["measure_empty", "measure_end_to_end"]

LEAST_SHARE = 0.95  # of bare forward time in that of prediction
HALF_EMPTY = 0.55


def measure_end_to_end(setting: Setting) -> list[Section]:
    """Compare `predict` (read, warp, forward, softmax, blend, COG with overviews) with forward passes from memory.

    As many tiles in batches of the same size, from normalised images and masks in memory to logits of full size.
    """
    pair = setting.scene()
    found: list[PredictReport] = []
    first = _predict(setting, pair, "first.tif")  # files, GDAL and the allocator are warm from now on
    network = Bare(setting, first.run.batch_size)
    forwards = -(-first.run.forwarded // first.run.batch_size)
    actions = {
        "bare forward": lambda: network.run(forwards),
        "predict": lambda: found.append(_predict(setting, pair, "map.tif")),
    }
    network.run(1)
    clocks = in_turns(actions, setting.turns, setting.device)
    title = f"end to end, {setting.size} x {setting.size}, {setting.title}, {setting.threads} threads"
    section = Section(title, judged=not setting.quick)
    _rows(section, clocks, setting, found[-1], setting.size**2 / 1e6)
    run = found[-1].run
    section.notes += [
        f"predict: {run.forwarded} tiles in batches of {run.batch_size}, loading the model included; bare: {forwards} "
        f"batches. Turns: {setting.turns}, one after the other.",
        f"Ratios are of {'processor' if setting.device.type == 'cpu' else 'wall'} time.",
    ]
    return [section]


def _rows(
    section: Section, clocks: dict[str, Clocks], setting: Setting, report: PredictReport, megapixels: float
) -> None:
    bare, whole = (clocks[name].main(setting.device) for name in ("bare forward", "predict"))
    for name, clock in clocks.items():
        section.add(name, {**clock.row(), "megapixels/s": megapixels / clock.main(setting.device)})
    walls = [sum(clocks[name].wall) for name in ("bare forward", "predict")]
    row = {"share of bare forward": bare / whole, "of wall time": walls[0] / walls[1], "time over bare": whole / bare}
    section.add("bare / predict", row, "time over bare", 1 / LEAST_SHARE)
    tiles = report.run.forwarded / (report.run.batches * report.run.batch_size)
    section.add("slots of batches that held a tile", {"share": tiles})


class Bare:
    """The network alone, on one batch in memory.

    Parameters
    ----------
    setting
        What is measured.
    batch
        Tiles of a batch.
    """

    def __init__(self, setting: Setting, batch: int) -> None:
        assert setting.files is not None
        pack = read_pack(setting.files.pack)
        execution = Execution.choose(str(setting.device), setting.precision, compiled=setting.compiled)  # type: ignore[arg-type]
        loaded = load_model(pack, weights=setting.files.weights)
        self._model = PackModel(loaded, pack.meta, setting.tile_size, execution)
        self._threads = Execution(setting.device, threads=setting.threads if setting.device.type == "cpu" else None)
        generator, edge = torch.Generator().manual_seed(0), setting.tile_size
        self._images = {
            n: torch.randn(batch, 3, edge, edge, generator=generator).to(setting.device) for n in ("optical", "sar")
        }
        self._masks = {
            n: torch.ones((batch, edge, edge), dtype=torch.bool, device=setting.device) for n in self._images
        }

    def run(self, batches: int) -> Tensor:
        """Return the last logits."""
        with torch.inference_mode(), self._threads.in_force(), self._model.execution.autocast():
            for _ in range(batches):
                logits: Tensor = self._model.network(self._images, self._masks)
        return logits


def _predict(setting: Setting, pair: Pair, name: str) -> PredictReport:
    """Make a map, as the command line does."""
    done: PredictReport = api.predict(  # type: ignore[call-overload]
        pair.optical,
        pair.sar,
        [setting.folder / name],
        overwrite=True,
        **pair.said,
        **setting.said,
    )
    return done


def measure_empty(setting: Setting) -> list[Section]:
    """Compare a scene of which exactly half of the tiles carry no data with the full one."""
    stride = setting.tile_size - setting.overlap
    half = max(1, round((setting.size - setting.overlap) / stride / 2))
    height = 2 * half * stride + setting.overlap  # 2 x half rows of tiles
    full, sparse = setting.scene(height), setting.scene(height, data_rows=half * stride)
    found: dict[str, PredictReport] = {}

    def predict(name: str, pair: Pair) -> None:
        found[name] = _predict(setting, pair, f"{name}.tif")

    actions = {"full": lambda: predict("full", full), "half empty": lambda: predict("half-empty", sparse)}
    clocks = in_turns(actions, setting.turns, setting.device)
    section = Section(f"half-empty scene, {height} x {setting.size}, {setting.title}", judged=not setting.quick)
    for name, clock in clocks.items():
        run = found[name.replace(" ", "-")].run
        section.add(name, {**clock.row(), "tiles forwarded": run.forwarded, "skipped": run.skipped})
    ratio = clocks["half empty"].main(setting.device) / clocks["full"].main(setting.device)
    walls = sum(clocks["half empty"].wall) / sum(clocks["full"].wall)
    section.add("half empty / full", {"ratio": ratio, "of wall time": walls}, "ratio", HALF_EMPTY)
    return [section]
