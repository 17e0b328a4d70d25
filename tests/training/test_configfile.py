"""Configurations of trainings: read with line numbers, overridden by options, and checked as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gopt_geo.errors import ConfigError, DatasetError
from gopt_geo.modelfaults import keys_of
from gopt_geo.models.backbone import DEMO_BACKBONE
from gopt_geo.training.config import (
    AugmentationConfig,
    ClassEntry,
    EvaluationConfig,
    ModelConfig,
    OptimisationConfig,
    SceneConfig,
    SplitConfig,
    SplitNames,
    TrainConfig,
)
from gopt_geo.training.configfile import Override, dump_config, parse_setting, read_train_config

SCENE = "scene:\n  optical: o.tif\n  sar: s.tif\n  labels: l.tif\n"  # four lines
CHIPS = "dataset: pair_folder\nroot: data\nsplits: {train: train, val: val, test: test}\n"  # three


def read(tmp_path: Path, text: str, *settings: str) -> TrainConfig:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return read_train_config(path, [parse_setting(one) for one in settings])


def refused(tmp_path: Path, text: str, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, *settings)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.brief
def test_a_scene_and_a_data_set_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, SCENE) == TrainConfig(scene=SceneConfig(optical="o.tif", sar="s.tif", labels="l.tif"))
    text = CHIPS + (
        "options: {auxiliary: [sar, nir], hold_out: 5}\n"
        "classes: [{value: 3, name: water, color: '#0000ff'}, {value: 1, name: 'no', color: '#00ff00'}]\n"
        "training: {tile_size: [480, 640], epochs: 7, learning_rate: 6e-5, clip: null}\n"
        "augmentation: {scales: [0.5, 2], dropout: {sar: 1}}\n"
    )
    assert read(tmp_path, text) == TrainConfig(
        dataset="pair_folder",
        root="data",
        splits=SplitNames(train="train", val="val", test="test"),
        options={"auxiliary": ["sar", "nir"], "hold_out": 5},
        classes=(ClassEntry(value=3, name="water", color="#0000ff"), ClassEntry(value=1, name="no", color="#00ff00")),
        training=OptimisationConfig(tile_size=(480, 640), epochs=7, learning_rate=6e-5, clip=None),
        augmentation=AugmentationConfig(scales=(0.5, 2.0), dropout={"sar": 1.0}),
    )


def test_options_of_python_are_kept_as_a_file_holds_them() -> None:
    names = SplitNames(train="train", val="val", test="test")
    config = TrainConfig(dataset="pair_folder", root="d", splits=names, options={"auxiliary": ("sar",)})
    assert config.options == {"auxiliary": ["sar"]}


@pytest.mark.brief
def test_bands_may_be_numbers_and_lists(tmp_path: Path) -> None:
    text = SCENE + "  optical_bands: [4, 3, B02]\n  sar_bands: 1\n"
    scene = read(tmp_path, text).scene
    assert scene is not None
    assert (scene.optical_bands, scene.sar_bands) == ("4,3,B02", "1")


def test_a_section_without_anything_has_its_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, f"{SCENE}training:\n  # steps: 5\nsplit:\n") == read(tmp_path, SCENE)


def test_the_default_backbone_is_the_embedded_one() -> None:
    assert ModelConfig().backbone == DEMO_BACKBONE


@pytest.mark.brief
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("trainings: {steps: 3}", "x.yaml, line 5: trainings: unknown key; did you mean training?"),
        (
            "training:\n  lerning_rate: 1",
            "line 6: training.lerning_rate: unknown key; did you mean training.learning_rate?",
        ),
        ("steps: 100", "line 5: steps: unknown key; did you mean training.steps?"),
        (
            "model: {tile_size: 3}",
            "model.tile_size: unknown key; did you mean training.tile_size or evaluation.tile_size?",
        ),
        ("split: {zzz: 3}", "line 5: split.zzz: unknown key; the keys here are shares, buffer, block, seed"),
        ("model: {class_path: os.system}", "line 5: model.class_path: unknown key"),
        ("training:\n  batch: eight", "line 6: training.batch: Input should be a valid integer, not 'eight'"),
        ("training:\n  batch: 8.0", "line 6: training.batch: Input should be a valid integer, not 8.0"),
        ("training:\n  batch: true", "line 6: training.batch: Input should be a valid integer, not True"),
        ("training:\n  devices:", "line 6: training.devices: Input should be a valid integer, not null"),
        ("training:\n  learning_rate: 1e400", "line 6: training.learning_rate: Input should be"),
        ("training:\n  seed: 4294967296", "line 6: training.seed: Input should be less than 4294967296"),
        (
            "training:\n  tile_size: big",
            "training.tile_size: Input should be a valid integer or Input should be a valid",
        ),
        ("training:\n  tile_size: [256]", "line 6: training.tile_size"),
        ("training:\n  tile_size: 7", "line 6: training.tile_size: a side of 7 to 7 pixels; give 8 to 8192 pixels"),
        ("training:\n  loss: hinge", "line 6: training.loss: Input should be 'cross_entropy', 'cross_entropy+dice'"),
        ("training: 3", "line 5: training: Input should hold keys and values, not 3"),
        ("training:\n  steps: 3\n  epochs: 2", "line 7: training.epochs: steps is there, too; give one of the two"),
        ("training: {warmup_steps: 3, warmup_epochs: 1}", "training.warmup_epochs: warmup_steps is there, too"),
        ("training: {steps: 3, warmup_steps: 4}", "training.warmup_steps: 4 of 3 steps; give at most 3"),
        (
            "training: {batch: 8, accumulate: 3}",
            "training.accumulate: a batch of 8 can't be divided into 3 equal passes",
        ),
        ("training: {accumulate: 3}", "training.accumulate: a batch of 8 can't be divided into 3 equal passes"),
        ("split: {shares: [0.5, 0.3, 0.3]}", "line 5: split.shares: 0.5, 0.3, 0.3 don't sum to 1"),
        ("split: {shares: [1.5, -0.5, 0]}", "split.shares: 1.5, -0.5, 0.0 don't sum to 1"),
        ("split: {shares: [0.8, 0, 0.2]}", "split.shares: training and validation need labels"),
        ("augmentation: {scales: [2, 0.5]}", "augmentation.scales: 2.0 is larger than 0.5; give the smallest"),
        ("augmentation: {scales: [0, 1]}", "augmentation.scales.0: 0 is no factor of size; give 0.1 to 10"),
        ("augmentation:\n  dropout:\n    sra: 0.1", "line 7: augmentation.dropout.sra: there is no modality sra"),
        ("augmentation: {dropout: {sar: 1.5}}", "augmentation.dropout.sar: 1.5 is no share; give 0 to 1"),
        ("augmentation: {dropout: {sar: 0.7, optical: 0.7}}", "augmentation.dropout: the shares sum to 1.4"),
        ("evaluation: {scales: [1, 1]}", "evaluation.scales.1: 1 is there twice"),
        ("evaluation: {tile_size: 64, overlap: 33}", "evaluation.overlap: 33 is more than half of a tile of 64"),
        ("model: {modalities: [optical, nir]}", "model.modalities.1: the scene has no nir; choose from optical, sar"),
        ("model: {modalities: [sar, sar]}", "model.modalities.1: sar is there twice"),
        ("model: {modalities: []}", "line 5: model.modalities: Tuple should have at least 1 item"),
        (
            "model: {modalities: [sar]}\naugmentation: {dropout: {sar: 0.5}}",
            "line 6: augmentation.dropout.sar: sar is the",
        ),
        ("classes: [{value: 1, name: a}, {value: 1, name: b}]", "line 5: classes.1.value: value 1 occurs twice"),
        ("classes:\n- {value: 1, name: a}\n- {value: 2, name: a}", "line 7: classes.1.name: the name 'a' occurs twice"),
        ("classes: [{value: 1, name: a, color: '#000000'}, {value: 2, name: b}]", "classes.1: it has no color"),
        ("classes: [{value: 1, name: a, color: red}]", "classes.0.color: String should match pattern"),
        ("classes: [{value: 1, name: a}]\nignore: [1]", "line 6: ignore.0: value 1 occurs twice"),
        ("classes: []", "line 5: classes: 0 classes; give 1 to 255"),
        ("classes: ''", "line 5: classes: String should have at least 1 character"),
        ("dataset: pair_folder", "line 5: dataset: scene is there, too; train on a scene, or on a data set"),
        ("root: data", "line 5: root: it is of a data set, and this is a scene; leave it out"),
        ("options: {hold_out: 3}", "line 5: options: it is of a data set, and this is a scene"),
        ("title: ''", "line 5: title: String should have at least 1 character"),
        ("scene: {labels: x.tif}", "line 5: scene: it is there twice"),
    ],
)
def test_what_is_wrong_in_a_scene_is_named_with_its_line(tmp_path: Path, text: str, found: str) -> None:
    assert found in refused(tmp_path, f"{SCENE}{text}\n")


@pytest.mark.parametrize(
    ("scene", "found"),
    [
        ("labels: l.tif", "line 1: scene: it has neither optical nor sar"),
        ("optical: o.tif", "line 1: scene.labels: it is missing"),
        ("optical: ''\n  labels: l.tif", "line 2: scene.optical: String should have at least 1 character"),
        ("sar: s.tif\n  labels: l.tif\n  optical_bands: 1", "line 4: scene.optical_bands: there is no optical source"),
        ("optical: o.tif\n  labels: l.tif\n  sar_units: db", "line 4: scene.sar_units: there is no sar source"),
        ("optical: o.tif\n  labels: l.tif\n  coregister: true", "line 4: scene.coregister: it needs optical and sar"),
        ("optical: o.tif\n  labels: l.tif\n  grid: sar", "line 4: scene.grid: there is no sar source"),
        ("optical: o.tif\n  labels: l.tif\n  aoi_crs: EPSG:4326", "line 4: scene.aoi_crs: there is no aoi"),
        ("optical: o.tif\n  labels: l.tif\n  cloud_mask_kind: scl", "scene.cloud_mask_kind: there is no cloud_mask"),
        ("optical: o.tif\n  labels: l.tif\n  optical_units: dn", "scene.optical_units: Input should be 'ref"),
        ("optical: o.tif\n  labels: l.tif\n  optical_bands: {a: 1}", "a valid string, not a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_scene(tmp_path: Path, scene: str, found: str) -> None:
    assert found in refused(tmp_path, f"scene:\n  {scene}\n")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "x.yaml, line 1: the file: it has neither a scene nor a dataset"),
        ("scene: null\n", "line 1: the file: it has neither a scene nor a dataset"),
        ("- 1\n", "line 1: the file: Input should hold keys and values, not a list"),
        ("hello\n", "line 1: the file: Input should hold keys and values, not 'hello'"),
        ("dataset: pair_folder\nsplits: {train: a, val: b, test: c}\n", "line 1: root: it is missing"),
        ("dataset: pair_folder\nroot: d\n", "line 1: splits: it is missing"),
        ("dataset: pair_folder\nroot: d\nsplits: {train: a, val: b}\n", "line 3: splits.test: it is missing"),
        (
            "dataset: pair_foldr\nroot: d\nsplits: {train: a, val: b, test: c}\n",
            "there is no data set 'pair_foldr'; choose",
        ),
        (f"{CHIPS}options:\n  hold_otu: 3\n", "line 5: options.hold_otu: unknown key; did you mean options.hold_out?"),
        (f"{CHIPS}options:\n  outside: nowhere\n", "line 5: options.outside: Input should be 'edges' or 'declared'"),
        (f"{CHIPS}split: {{seed: 3}}\n", "line 4: split: it is of a scene's labels; a data set has splits"),
        (
            f"{CHIPS}classes: [{{value: 1, name: a}}, {{value: 1, name: b}}]\n",
            "line 4: classes.1.value: value 1 occurs",
        ),
        (CHIPS.replace("pair_folder", "mfnet") + "ignore: [0]\n", "line 4: ignore: mfnet has classes of its own"),
        (CHIPS.replace("pair_folder", "mfnet") + "classes: c.yaml\n", "line 4: classes: mfnet has classes of its own"),
    ],
)
def test_what_is_wrong_with_a_data_set(tmp_path: Path, text: str, found: str) -> None:
    assert found in refused(tmp_path, text)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing.yaml: it can't be read \(No such file"):
        read_train_config(tmp_path / "nothing.yaml")
    assert "it isn't YAML" in refused(tmp_path, "scene: [")


@pytest.mark.brief
def test_options_stand_over_the_file(tmp_path: Path) -> None:
    text = SCENE + "training: {steps: 9, batch: 4, warmup_epochs: 1}\n"
    settings = (
        "training.batch=2",
        "scene.aoi=[null][0]",
        "split.shares=[0.6, 0.2, 0.2]",
        "augmentation.dropout.sar=0.3",
    )
    config = read(tmp_path, text, *settings[:1], *settings[2:], "scene.sar_bands=VV", "title='5'")
    assert (config.training.batch, config.training.steps, config.title) == (2, 9, "5")
    assert config.split == SplitConfig(shares=(0.6, 0.2, 0.2))
    assert config.augmentation.dropout == {"sar": 0.3}
    assert config.scene == SceneConfig(optical="o.tif", sar="s.tif", labels="l.tif", sar_bands="VV")


@pytest.mark.parametrize(
    ("setting", "steps", "epochs"), [("training.steps=5", 5, None), ("training.epochs=5", None, 5)]
)
def test_an_option_removes_what_it_excludes(
    tmp_path: Path, setting: str, steps: int | None, epochs: int | None
) -> None:
    for kept in ("steps: 9", "epochs: 9"):
        training = read(tmp_path, f"{SCENE}training: {{{kept}}}\n", setting).training
        assert (training.steps, training.epochs) == (steps, epochs)
    both = refused(tmp_path, SCENE, "training.steps=5", "training.epochs=5")
    assert both.startswith("--set training.epochs: training.epochs: steps is there, too")


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("trainig.clip=1", "--set trainig.clip: trainig: unknown key; did you mean training?"),
        ("training.clip=-1", "--set training.clip: training.clip: Input should be greater than 0, not -1"),
        ("training.clip.x=1", "--set training.clip.x: training.clip: Input should be a valid number, not a mapping"),
        ("training.batch.x=1", "--set training.batch.x: training.batch holds no keys"),
        ("training.accumulate=3", "--set training.accumulate: training.accumulate: a batch of 4"),
        ("root=data", "--set root: root: it is of a data set, and this is a scene"),
        ("dataset=pair_folder", "--set dataset: dataset: scene is there, too"),
    ],
)
def test_a_faulty_option_is_named(tmp_path: Path, setting: str, found: str) -> None:
    assert refused(tmp_path, f"{SCENE}training: {{batch: 4}}\n", setting).startswith(found)


def test_an_option_may_show_a_fault_of_the_file(tmp_path: Path) -> None:
    found = refused(tmp_path, f"{SCENE}training:\n  warmup_steps: 50\n", "training.steps=10")
    assert found.startswith("x.yaml, line 6: training.warmup_steps: 50 of 10 steps")


def test_an_option_of_a_scene_doesnt_fit_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(CHIPS)
    with pytest.raises(ConfigError, match=r"--sar: it is of a scene, and .*x.yaml is of the data set pair_folder"):
        read_train_config(tmp_path / "x.yaml", [Override(("scene", "sar"), "s.tif", "--sar")])


@pytest.mark.brief
def test_a_configuration_of_options_alone() -> None:
    values: dict[str, Any] = {"optical": "o.tif", "labels": "l.gpkg", "class_field": "kind"}
    config = read_train_config(None, [Override(("scene", name), value, f"--{name}") for name, value in values.items()])
    assert config == TrainConfig(scene=SceneConfig(**values))
    assert config.evaluation == EvaluationConfig()
    with pytest.raises(ConfigError, match=r"--sar: scene.labels: it is missing"):
        read_train_config(None, [Override(("scene", "sar"), "s.tif", "--sar")])


@pytest.mark.parametrize("text", ["clip", "=3", "training..clip=3", ".=1"])
def test_a_setting_is_key_and_value(text: str) -> None:
    with pytest.raises(ConfigError, match=r"it isn't KEY=VALUE; write it like --set training.clip=0.5"):
        parse_setting(text)


def test_the_value_of_a_setting_is_yaml() -> None:
    assert parse_setting("a.b = [1, x]") == Override(("a", "b"), [1, "x"], "--set a.b")
    assert parse_setting("a=b=c").value == "b=c"
    assert parse_setting("a=").value is None
    with pytest.raises(ConfigError, match="--set a, line 1: it isn't YAML"):
        parse_setting("a=[1")


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
KEYS = [".".join(key) for key in keys_of(TrainConfig) if key[0] != "classes"] + [
    "classes",
    "options.crop",
    "nothing.here",
]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), WILD, max_size=3), st.sampled_from([SCENE, CHIPS, ""]))
def test_whatever_is_said_is_a_configuration_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, said: dict[str, Any], text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "wild.yaml"
    path.write_text(text)
    overrides = [Override(tuple(key.split(".")), value, f"--set {key}") for key, value in said.items()]
    found = either(path, overrides)
    if isinstance(found, TrainConfig):
        path.write_text(dump_config(found), "utf-8")
        assert read_train_config(path) == found
    else:
        assert "\n" not in str(found)
        assert str(found).startswith((str(path), "--set "))


def either(path: Path, overrides: list[Override]) -> TrainConfig | ConfigError:
    try:
        return read_train_config(path, overrides)
    except ConfigError as error:
        return error


@given(st.text(max_size=60))
def test_whatever_a_file_holds_is_a_configuration_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:  # none of them names labels
        read_train_config(path)
    assert "\n" not in str(caught.value)


def test_a_contradiction_is_told_in_python_too() -> None:
    with pytest.raises(ValidationError, match=r"epochs: steps is there, too"):
        OptimisationConfig(steps=3, epochs=2)
    with pytest.raises(ValidationError, match=r"options\.crop: unknown key"):
        TrainConfig(dataset="mfnet", root="d", splits=SplitNames(train="a", val="b", test="c"), options={"crop": 3})
    with pytest.raises(ValueError, match="it is of a scene"):
        TrainConfig(scene=SceneConfig(optical="o", labels="l")).dataset_config()


def test_a_data_set_that_isnt_there_is_named(tmp_path: Path) -> None:
    config = read(tmp_path, CHIPS.replace("root: data", f"root: {tmp_path}/nothing"))
    with pytest.raises(DatasetError, match="nothing"):
        config.dataset_config().open("train")
    with pytest.raises(ConfigError, match="part 'trian': there is no such part; choose from train, val, test"):
        config.dataset_config().open("trian")  # type: ignore[arg-type]
