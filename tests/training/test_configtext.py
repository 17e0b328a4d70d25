"""Configurations as text: what is printed reads back equal, and every key is described."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.modelfaults import keys_of
from gopt_geo.training.config import (
    AugmentationConfig,
    ClassEntry,
    ModelConfig,
    OptimisationConfig,
    SceneConfig,
    SplitNames,
    TrainConfig,
)
from gopt_geo.training.configfile import dump_config, parse_setting, read_train_config
from gopt_geo.yamlfile import parse_yaml

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ["ombria", "whu_opt_sar", "nyudv2", "sunrgbd", "mfnet", "pst900"]
SCENE = TrainConfig(scene=SceneConfig(optical="o.tif", sar="s.tif", labels="l.tif"))
STYLES = [{}, {"comments": False}, {"template": True}]

texts = st.text(min_size=1, max_size=20)
scenes = st.builds(
    SceneConfig,
    optical=texts,
    sar=st.none() | texts,
    labels=texts,
    class_field=st.none() | texts,
    aoi=st.none() | texts,
)
trainings = st.builds(
    OptimisationConfig,
    tile_size=st.none() | st.integers(8, 8192) | st.tuples(st.integers(8, 8192), st.integers(8, 8192)),
    learning_rate=st.floats(1e-9, 1e3),
    clip=st.none() | st.floats(1e-6, 1e6),
    seed=st.integers(0, 2**32 - 1),
    loss=st.sampled_from(["cross_entropy", "cross_entropy+dice"]),
)
classes = st.lists(texts, min_size=1, max_size=4, unique=True).map(
    lambda names: tuple(ClassEntry(value=10 * i, name=name) for i, name in enumerate(names))
)
configs = st.builds(
    TrainConfig,
    scene=scenes,
    training=trainings,
    classes=st.none() | texts | classes,
    title=st.none() | texts,
    output=st.none() | texts,
)


@pytest.mark.brief
@given(configs, st.sampled_from(STYLES))
def test_what_is_printed_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, config: TrainConfig, style: dict[str, bool]
) -> None:
    path = tmp_path_factory.getbasetemp() / "printed.yaml"
    path.write_text(dump_config(config, **style), "utf-8")
    assert read_train_config(path) == config


@pytest.mark.brief
@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_configurations_of_data_sets_read_back_equal(tmp_path: Path, name: str, style: dict[str, bool]) -> None:
    config = read_train_config(CONFIGS / f"{name}.yaml")
    path = tmp_path / "x.yaml"
    path.write_text(dump_config(config, **style))
    assert read_train_config(path) == config


@pytest.mark.brief
def test_the_whole_is_printed_with_a_comment_to_each_key() -> None:
    text = dump_config(SCENE)
    document = parse_yaml(text, "x", remedy="", error=RuntimeError)  # type: ignore[arg-type]
    left_out = {"dataset", "root", "splits", "options"}
    expected = {key for key in keys_of(TrainConfig) if key[0] not in left_out and key[:2] != ("classes", "value")}
    expected = {key for key in expected if key[0] != "classes" or len(key) == 1}
    assert {key for key in document.lines if key} - {(*key, i) for key in expected for i in range(3)} == expected
    lines = text.splitlines()
    for key, number in document.lines.items():
        if key and not isinstance(key[-1], int):
            assert " # " in lines[number - 1] or lines[number - 2].lstrip().startswith("# "), key
    assert max(map(len, lines)) <= 120


def test_units_and_choices_are_told() -> None:
    text = dump_config(SCENE)
    assert "loss: cross_entropy" in text
    assert "(cross_entropy, cross_entropy+dice or cross_entropy+lovasz)" in text
    assert "buffer: null # pixels kept free" in text
    assert "resolution: null # pixel size in units of the grid's CRS" in text


def test_a_template_has_what_isnt_said_commented_out() -> None:
    config = SCENE.model_copy(update={"training": OptimisationConfig(steps=77)})
    text = dump_config(config, template=True)
    assert "\n  steps: 77 # optimiser steps" in text
    assert "\n  # batch: null # tiles of a step" in text
    assert "\n  # sar_units: null #" in text
    assert "\n  labels: l.tif #" in text
    for line in (one.strip() for one in text.splitlines() if one.strip().startswith("# ") and ":" in one):
        assert "\n" not in line
    edited = text.replace("  # batch: null", "  batch: 6")
    read = parse_yaml(edited, "x", remedy="", error=RuntimeError).content  # type: ignore[arg-type]
    assert read["training"] == {"steps": 77, "batch": 6}


def test_plain_text_has_no_comment() -> None:
    assert "#" not in dump_config(SCENE, comments=False)


def test_what_a_data_set_would_take_is_told() -> None:
    names = SplitNames(train="train", val="val", test="test")
    config = TrainConfig(dataset="pair_folder", root="d", splits=names, options={"hold_out": 3})
    text = dump_config(config)
    assert "\n  hold_out: 3\n" in text
    assert "\n  # outside: edges\n" in text
    assert "scene:" not in text
    assert "split:" not in text


def test_modalities_and_dropout_read_back(tmp_path: Path) -> None:
    changed = {
        "model": ModelConfig(modalities=("sar", "optical")),
        "augmentation": AugmentationConfig(dropout={"sar": 0.25, "optical": 0.0}),
    }
    config = SCENE.model_copy(update=changed)
    path = tmp_path / "x.yaml"
    path.write_text(dump_config(config, comments=False))
    assert read_train_config(path) == config
    assert read_train_config(path, [parse_setting("model.modalities=null")]).model.modalities is None
