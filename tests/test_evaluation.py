"""Packs on the labelled ground of a configuration; the files of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from gopt_geo import ceiling
from gopt_geo.api import simulate_files
from gopt_geo.datasets.chips import Scoring
from gopt_geo.errors import DeviceMemoryError, GoptGeoError, OutputError, PackError
from gopt_geo.evaluation import PackAssessment, evaluate_pack
from gopt_geo.outputs.evaluationfiles import PICTURES, EvaluationFiles
from gopt_geo.packs import demo_pack_path, read_pack, write_pack
from gopt_geo.simulate import CLASS_NAMES, CLASS_VALUES
from gopt_geo_cli.main import app
from gopt_geo_cli.scoretables import score_lines


def write_config(folder: Path, name: str = "c.yaml", **changes: object) -> Path:
    listed = [{"value": value, "name": str(label)} for value, label in zip(CLASS_VALUES, CLASS_NAMES, strict=True)]
    scene = {
        "optical": str(folder / "s" / "scene.tif"),
        "sar": str(folder / "s" / "sar.tif"),
        "labels": str(folder / "s" / "labels.tif"),
    }
    content = {
        "scene": scene,
        "classes": listed,
        "training": {"tile_size": 32},
        "split": {"block": 64, "buffer": 0, "shares": [0.4, 0.2, 0.4]},
        "evaluation": {"tile_size": 64, "overlap": 16},
        **changes,
    }
    path = folder / name
    path.write_text(json.dumps(content))  # which is YAML, too
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    simulate_files(folder / "s", seed=9001, size=(192, 256))
    write_config(folder)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> PackAssessment:
    return evaluate_pack(demo_pack_path(), folder / "c.yaml", "test", scales=(1.0,), flip=True, device="cpu")


def test_a_pack_on_a_split(found: PackAssessment) -> None:
    assert found.class_names == tuple(CLASS_NAMES)
    assert found.single.scores.overall_accuracy > 0.7
    assert 0 < found.single.scores.pixels < 192 * 256
    assert found.single.boundary is not None
    assert found.augmented is not None
    assert found.augmented.scores.pixels == found.single.scores.pixels
    assert not np.array_equal(found.augmented.counts(), found.single.counts())
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["augmented"]["scales"] == [1.0]
    assert written["augmented"]["flip"] is True
    assert written["split"] == "test"
    assert "mean_iou_with_zero_classes" not in written
    assert any("tiles of 64 pixels, overlap 16" in line for line in found.conventions)


def test_single_scale_alone(folder: Path, found: PackAssessment) -> None:
    stages = []
    alone = evaluate_pack(
        demo_pack_path(),
        folder / "c.yaml",
        device="cpu",
        progress=lambda state: stages.append((state.stage, state.unit)),
    )
    assert alone.augmented is None
    assert np.array_equal(alone.single.counts(), found.single.counts())
    assert ("evaluate", "tiles") in stages
    assert ("multi-scale", "tiles") not in stages


def test_a_temperature_changes_confidence_and_no_class(folder: Path, tmp_path: Path, found: PackAssessment) -> None:
    demo = read_pack(demo_pack_path())
    write_pack(tmp_path / "warm", demo.meta.model_copy(update={"temperature": 3.0}), demo.state)
    warm = evaluate_pack(tmp_path / "warm", folder / "c.yaml", device="cpu").single
    agree = np.abs(warm.matrix - found.single.matrix).sum() / found.single.matrix.sum()
    assert agree < 0.05  # means over tiles, not single tiles: a few pixels differ
    assert warm.calibration.overconfidence < found.single.calibration.overconfidence - 0.05


def test_a_modality_that_lacks_is_said(folder: Path) -> None:
    config = write_config(folder, "optical.yaml", model={"modalities": ["optical"]})
    alone = evaluate_pack(demo_pack_path(), config, device="cpu")
    assert any("the pack also takes sar" in notice for notice in alone.notices)
    assert alone.single.scores.pixels > 0


def test_packs_for_something_else(folder: Path) -> None:
    others = [{"value": value, "name": f"k{value}"} for value in CLASS_VALUES]
    config = write_config(folder, "others.yaml", classes=others)
    with pytest.raises(
        PackError, match=r"its classes \(farmland, .* and 1 more\) aren't those of .*others\.yaml \(k10"
    ):
        evaluate_pack(demo_pack_path(), config)
    demo = read_pack(demo_pack_path())
    sar = demo.meta.modalities["sar"].model_copy(update={"units": "power"})
    infos = {**demo.meta.modalities, "sar": sar}
    write_pack(folder / "power", demo.meta.model_copy(update={"modalities": infos}), demo.state)
    with pytest.raises(PackError, match=r"its units of sar \(power\) aren't those of .* \(db\)"):
        evaluate_pack(folder / "power", folder / "c.yaml")


def test_splits_and_sizes_that_are_not_there(folder: Path) -> None:
    with pytest.raises(GoptGeoError, match="--split all: there is no such part; choose from train, val, test"):
        evaluate_pack(demo_pack_path(), folder / "c.yaml", "all")
    for scale in (-1, 0.01, 11, float("nan")):
        with pytest.raises(GoptGeoError, match=rf"--scales: {scale:g} is no factor of size; give 0\.1 to 10"):
            evaluate_pack(demo_pack_path(), folder / "c.yaml", scales=(1, scale))
    with pytest.raises(GoptGeoError, match="--scales: 1 is there twice; give each size once"):
        evaluate_pack(demo_pack_path(), folder / "c.yaml", scales=(1, 1))
    with pytest.raises(GoptGeoError, match="--scales: there are none"):
        evaluate_pack(demo_pack_path(), folder / "c.yaml", scales=())
    with pytest.raises(GoptGeoError, match="--tile-size 60: the backbone"):
        evaluate_pack(demo_pack_path(), folder / "c.yaml", tile_size=60)


def test_figures_with_classes_that_count_zero(found: PackAssessment) -> None:
    """WHU-OPT-SAR: the mean over 7 classes, and beside it the one over 8 that some publications have."""
    scoring = Scoring(7, ("miou",), zero_classes=1, note="background is ignored")
    told = PackAssessment(**{**{name: getattr(found, name) for name in found.__dataclass_fields__}, "scoring": scoring})
    matrix = found.single.matrix.copy()
    np.fill_diagonal(matrix, np.diagonal(matrix) + 1)  # no class is absent
    told.single.matrix[:] = matrix
    written = told.to_dict()
    other = written["mean_iou_with_zero_classes"]
    assert other == {"classes": 8, "mean_iou": pytest.approx(written["scores"]["mean_iou"] * 7 / 8)}
    assert "background is ignored" in written["conventions"]
    assert any("mIoU over 8 classes" in line for line in score_lines(written, 80))


@pytest.mark.brief
def test_files_whole_or_not_at_all(found: PackAssessment, tmp_path: Path) -> None:
    told, target, figures = found.to_dict(), tmp_path / "f.json", tmp_path / "figures"
    with EvaluationFiles(target, figures) as files:
        assert files.write(told) == [target, *(figures / name for name in PICTURES)]
    assert json.loads(target.read_text())["split"] == "test"
    for name in PICTURES:
        with rasterio.open(figures / name) as picture:
            assert min(picture.shape) > 200
            assert np.ptp(picture.read(1)) > 100
    with pytest.raises(OutputError, match=r"confusion\.png"), EvaluationFiles(None, figures):
        pass
    without = {**told, "calibration": None}
    with EvaluationFiles(target, figures, overwrite=True) as files:
        files.write(without)
    assert sorted(path.name for path in figures.iterdir()) == ["classes.png", "confusion.png"]


@pytest.mark.brief
def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), EvaluationFiles(tmp_path / "f.json", tmp_path / "figures"):
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(OutputError, match=r"use one of \.json"),
        EvaluationFiles(tmp_path / "f.txt", tmp_path / "figures"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match=r"a/b: it can't be made"), EvaluationFiles(None, tmp_path / "a" / "b"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="it can't be made"), EvaluationFiles(None, tmp_path / "file"):
        pass


@pytest.mark.brief
@pytest.mark.parametrize("classes", [2, 7, 40])
def test_tables_fit_eighty_columns(classes: int) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 99_999_999, (classes, classes)).tolist()
    figures = [None, *([0.12345] * (classes - 1))]
    names = [{"value": i, "name": "a name that is longer than most of them are"} for i in range(classes)]
    scores = dict.fromkeys(("iou", "f1", "users_accuracy", "producers_accuracy"), figures)
    whole = {"mean_iou": 0.5, "overall_accuracy": 0.5, "kappa": None, "pixels": 10**12}
    told = {
        "classes": names,
        "confusion_matrix": matrix,
        "unpredicted_pixels": [1] * classes,
        "scores": {**scores, **whole},
        "boundary": {"f1": figures, "mean_f1": 0.5},
        "calibration": {"ece": 0.1},
        "conventions": ["a line " * 30],
    }
    lines = "\n".join(score_lines(told, 80)).split("\n")
    assert max(map(len, lines)) <= 80
    shown = {word for line in lines for word in line.split()}
    assert all(str(count) in shown for row in matrix for count in row)
    assert sum("no class" in line for line in lines) == 1


def test_the_command(folder: Path, found: PackAssessment) -> None:
    arguments = ["evaluate", "--pack", str(demo_pack_path()), "--config", str(folder / "c.yaml"), "--device", "cpu"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    assert f"mIoU {found.to_dict()['scores']['mean_iou']:.4f}"[:8] in run.stdout
    assert "temperature of the pack" in run.stdout
    missing = CliRunner().invoke(app, [*arguments[:4], str(folder / "none.yaml")])
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)


def test_sizes_that_memory_cannot_hold_are_refused_and_not_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "available_memory", lambda: 300 << 20)
    with pytest.raises(DeviceMemoryError, match=r"--scales 10: batches of 4 tiles of 640 x 640 pixels need about"):
        evaluate_pack(demo_pack_path(), folder / "c.yaml", scales=(1.0, 10.0))
