"""The folder of a run and its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gopt_geo.errors import OutputError
from gopt_geo.packmeta import ClassInfo, ModalityInfo
from gopt_geo.training.curves import draw_confusion, draw_curves, picture_of
from gopt_geo.training.runfolder import MetricsTable, RunFolder


@pytest.mark.brief
def test_two_trainings_never_share_a_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "run") as folder:
        folder.begin()
        with (
            pytest.raises(OutputError, match="another training is writing there"),
            RunFolder(folder.path, overwrite=True),
        ):
            pass
    with RunFolder(folder.path, overwrite=True):
        pass
    assert folder.last.parent.is_dir()


def test_what_a_killed_run_left_goes(tmp_path: Path) -> None:
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    for name in (".config.yaml.part", "checkpoints/.last.ckpt.part", "checkpoints/best.ckpt", "mine"):
        (path / name).write_text("x")
    with RunFolder(path, resume=True) as folder:
        folder.begin()
    assert sorted(entry.name for entry in path.rglob("*") if entry.is_file()) == ["best.ckpt", "mine"]


def test_contradictions_and_files(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="contradict"):
        RunFolder(tmp_path, resume=True, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        RunFolder(tmp_path / "file")


def test_the_table_is_cut_back_to_a_step(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path / "metrics.csv", ["val_iou_a, b"])
    table.begin(0)
    table.append([{"step": 1, "loss": 0.5, "seconds": 1.0}, {"step": 2, "loss": 0.25, "val_iou_a, b": float("nan")}])
    table.append([{"step": 3, "loss": 0.125, "val_iou_a, b": 1.0}])
    with table.path.open("a") as file:
        file.write("4,0.1")  # killed while it wrote
    assert [row["step"] for row in table.rows()] == [1, 2, 3]
    assert table.rows()[2] == {"step": 3, "loss": 0.125, "val_iou_a, b": 1.0}
    table.begin(2)
    assert table.path.read_text().splitlines() == [
        'step,loss,learning_rate,seconds,"val_iou_a, b"',
        "1,0.5,,1,",
        "2,0.25,,,",
    ]


def test_pictures_of_modalities() -> None:
    info = ModalityInfo(
        bands=("blue", "green", "red", "nir"),
        units="raw",
        channels=((0.0, 0.0, 1.0, 0.0),) * 3,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    values = np.zeros((4, 2, 50), np.float32)
    values[2] = np.linspace(0, 7, 100).reshape(2, 50)
    valid = np.ones((2, 50), bool)
    valid[1, 49] = False
    picture = picture_of(values, valid, info)
    assert picture[..., 0].max() == 1  # red first
    assert picture[..., 1:].max() == 0
    assert (picture[1, 49] == 0).all()


def test_figures_of_odd_runs(tmp_path: Path) -> None:
    draw_curves(tmp_path / "a.png", [{"step": 1, "loss": 2.0, "learning_rate": 0.1, "seconds": 1.0}])
    classes = [ClassInfo(value=k, name=f"class $x_{k}$", color="#112233") for k in range(3)]
    matrix = np.array([[5, 1, 0, 2], [0, 0, 0, 0], [1, 0, 3, 0]])
    draw_confusion(tmp_path / "b.png", matrix, classes)
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2
