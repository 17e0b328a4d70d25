"""``--backbone-weights``: the weights of the pack's backbone from a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from gopt_geo.errors import OutputError, PackError
from gopt_geo.models.backbone import demo_backbone_path
from gopt_geo.packs import demo_pack_path
from gopt_geo.prediction import PredictReport
from gopt_geo_cli.main import app

Run = Callable[..., PredictReport]


def test_the_map_is_the_same_with_the_backbone_from_a_file(
    run: Run, pixels: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    weights = shutil.copy(demo_backbone_path(), tmp_path / "backbone.safetensors")
    run("usual.tif", pack=demo_pack_path())
    run("file.tif", pack=demo_pack_path(), backbone_weights=weights)
    assert np.array_equal(pixels(tmp_path / "usual.tif"), pixels(tmp_path / "file.tif"))


def test_other_weights_than_the_packs_are_refused(run: Run, tmp_path: Path) -> None:
    weights = tmp_path / "backbone.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(demo_backbone_path()).items()}, weights)
    with pytest.raises(
        PackError, match=r"not the weights that .* was trained on: gopt-geo:demo-vit-p8 with SHA-25"
    ) as e:
        run(pack=demo_pack_path(), backbone_weights=weights)
    assert str(e.value).startswith(f"{weights}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.safetensors"]


def test_weights_that_are_not_there_are_told(run: Run, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="there is no such file"):
        run(pack=demo_pack_path(), backbone_weights=tmp_path / "none.safetensors")


def test_the_file_of_weights_is_an_input_and_never_overwritten(run: Run, tmp_path: Path) -> None:
    weights = shutil.copy(demo_backbone_path(), tmp_path / "map.tif")
    with pytest.raises(OutputError, match="is also an input"):
        run("map.tif", pack=demo_pack_path(), backbone_weights=weights, overwrite=True)
    assert weights.read_bytes() == demo_backbone_path().read_bytes()


def test_the_option_of_the_command_line_is_handed_on(scene: dict[str, Path], tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    arguments = [str(scene["scene"]), str(scene["sar"]), "-o", str(tmp_path / "map.tif"), "--optical-bands"]
    arguments += ["red,green,blue", "--backbone-weights", str(missing), "--device", "cpu"]
    result = CliRunner().invoke(app, ["predict", *arguments])
    assert result.exit_code != 0
    assert str(missing) in f"{result.output}{result.exception}".replace("\n", "")


@pytest.mark.parametrize("said", ["missing.safetensors", "~/missing.safetensors"])
def test_the_variable_of_the_pack_is_named_where_it_is_wrong(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOPT_GEO_PACK", said)
    with pytest.raises(PackError) as caught:
        run(pack=None)
    path = said.replace("~", str(tmp_path))
    assert str(caught.value).startswith(f"GOPT_GEO_PACK: {path}: can't be read (No such file or directory); ")
    assert str(caught.value).endswith("or unset the variable")
