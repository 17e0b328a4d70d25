"""How good the embedded demo pack is on simulated scenes that training never saw, and what it is compared with.

    python benchmarks/demo_accuracy.py --json demo_accuracy.json

Scenes have seeds from 9000 on. All packs run through the project's tiler; gradient boosting sees all bands (four
optical and SAR) of single pixels, and is trained on pixels of the packs' own training scenes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from gopt_geo.inference import BlendedRows, TileOptions, run_tiles
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.packs import demo_pack_path, load_model, read_pack
from gopt_geo.scene.arrays import ArrayScene
from gopt_geo.simulate import CLASS_NAMES, SceneSpec, SimulatedScene, simulate_scene
from gopt_geo.training.demo import FIRST_TEST_SEED

HERE = Path(__file__).resolve().parent
FIRST_TRAINING_SEED = 1000  # as configs/demo_pack.yaml says
CLASSES = len(CLASS_NAMES)
Predict = Callable[[SimulatedScene], NDArray[np.integer]]


class Everywhere:
    """A pack's model asked for an answer at every pixel, clouded ones without SAR included.

    The product writes nodata there; a comparison that counted those pixels as wrong would flatter the other side. So
    a further modality, valid everywhere and read by nobody, keeps such pixels in the run.
    """

    def __init__(self, model: PackModel) -> None:
        self.model = model
        self.num_classes = model.num_classes
        self.modalities = (*model.modalities, "ground")

    def __call__(self, values: dict[str, Tensor], valid: dict[str, Tensor], /) -> Tensor:
        """Probabilities of the pack's model."""
        return self.model({k: v for k, v in values.items() if k != "ground"}, valid)


def pack_predictor(path: Path, *, use: set[str]) -> Predict:
    """Class indices of a scene by a pack, its modalities restricted to ``use``."""
    pack = read_pack(path)
    meta = pack.meta
    model = Everywhere(PackModel(load_model(pack), meta, meta.tile_size))
    options = TileOptions(tile_size=meta.tile_size, overlap=meta.overlap, batch_size=4)

    def predict(scene: SimulatedScene) -> NDArray[np.integer]:
        values = {"optical": scene.optical[:3], "sar": (10 * np.log10(scene.sar[:1])).astype(np.float32)}
        valid = {"optical": scene.clouds == 0, "sar": np.ones(scene.labels.shape, dtype=bool)}
        keep = [name for name in meta.modalities if name in use]
        ground = {"ground": np.ones((1, *scene.labels.shape), dtype=np.float32)}
        source = ArrayScene({n: values[n] for n in keep} | ground, {n: valid[n] for n in keep})
        result = np.full(scene.labels.shape, CLASSES, dtype=np.int64)

        def sink(rows: BlendedRows) -> None:
            w = rows.window
            result[w.row : w.row_stop, w.col : w.col_stop] = rows.probabilities.argmax(axis=0)

        run_tiles(source, model, options, sink=sink)
        return result

    return predict


def pixels(scene: SimulatedScene) -> NDArray[np.float32]:
    """All bands of single pixels, [pixels, 5]."""
    return np.concatenate([scene.optical, 10 * np.log10(scene.sar[:1])]).reshape(5, -1).T


def boosting_predictor(scenes: int, samples: int) -> Predict:
    """Gradient boosting on single-pixel values."""
    rng = np.random.default_rng(0)
    drawn = []
    for seed in range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + scenes):
        scene = simulate_scene(SceneSpec(seed))
        index = rng.choice(scene.labels.size, samples // scenes, replace=False)
        drawn.append((pixels(scene)[index], scene.labels.ravel()[index]))
    model = HistGradientBoostingClassifier(max_iter=200, random_state=0)
    model.fit(np.concatenate([x for x, _ in drawn]), np.concatenate([y for _, y in drawn]))

    def predict(scene: SimulatedScene) -> NDArray[np.integer]:
        return np.asarray(model.predict(pixels(scene))).reshape(scene.labels.shape)

    return predict


def score(predict: Predict, scenes: int, cloud: float) -> dict[str, object]:
    """Scores over all test scenes together."""
    total = np.zeros((CLASSES, CLASSES + 1), dtype=np.int64)
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + scenes):
        scene = simulate_scene(SceneSpec(seed, cloud=cloud))
        predicted = predict(scene)
        np.add.at(total, (scene.labels.ravel(), predicted.ravel()), 1)
    hits = np.diag(total[:, :CLASSES])
    union = total.sum(axis=1) + total[:, :CLASSES].sum(axis=0) - hits
    iou = hits / union
    return {
        "miou": float(iou.mean()),
        "oa": float(hits.sum() / total.sum()),
        "iou": {name: round(float(v), 4) for name, v in zip(CLASS_NAMES, iou, strict=True)},
    }


def main() -> None:
    """Run the comparison, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=12, help="test scenes of 512 x 512 pixels")
    parser.add_argument("--pack", type=Path, default=demo_pack_path())
    parser.add_argument("--packs", type=Path, default=HERE / "packs", help="folder of the single-modality packs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    both, optical, sar = {"optical", "sar"}, {"optical"}, {"sar"}
    runs: dict[str, tuple[Predict, float]] = {
        "GoPT, optical + SAR": (pack_predictor(given.pack, use=both), 0.0),
        "optical alone (own pack)": (pack_predictor(given.packs / "optical_only.safetensors", use=optical), 0.0),
        "SAR alone (own pack)": (pack_predictor(given.packs / "sar_only.safetensors", use=sar), 0.0),
        "GoPT, SAR withheld": (pack_predictor(given.pack, use=optical), 0.0),
        "GoPT, optical withheld": (pack_predictor(given.pack, use=sar), 0.0),
        "gradient boosting, single pixels": (boosting_predictor(40, 400_000), 0.0),
        "GoPT, 30 % cloud": (pack_predictor(given.pack, use=both), 0.3),
        "GoPT, 30 % cloud, SAR withheld": (pack_predictor(given.pack, use=optical), 0.3),
    }
    table = Table("run", "mIoU", "OA", *CLASS_NAMES, title=f"{given.scenes} unseen simulated scenes")
    results: dict[str, object] = {}
    for name, (predict, cloud) in runs.items():
        scores = score(predict, given.scenes, cloud)
        results[name] = scores
        iou = scores["iou"]
        assert isinstance(iou, dict)
        table.add_row(name, f"{scores['miou']:.3f}", f"{scores['oa']:.3f}", *(f"{v:.3f}" for v in iou.values()))
    Console(width=150).print(table)
    if given.json is not None:
        first = FIRST_TEST_SEED
        document = {"seeds": [first, first + given.scenes - 1], "pack": str(given.pack.name), "runs": results}
        given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
