"""Data sets by name, and the configurations in configs/: each is loaded, and opened on a tiny copy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.configs import read_config
from gopt_geo.datasets.registry import DATASETS, check_options, dataset_class, open_dataset
from gopt_geo.errors import ConfigError, DatasetError
from gopt_geo.simulate.copies import LAYOUTS, write_copy
from gopt_geo.training.configfile import read_train_config

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ["ombria", "whu_opt_sar", "nyudv2", "sunrgbd", "mfnet", "pst900"]
EVERY_LAYOUT = [
    (name, layout) for name in NAMES for layout in LAYOUTS["pair_folder" if name == "ombria" else name]
]  # fmt: skip


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    return str(caught.value)


@pytest.mark.brief
@pytest.mark.parametrize(("name", "layout"), EVERY_LAYOUT)
def test_every_configuration_opens_a_copy_of_every_layout(tmp_path: Path, name: str, layout: str) -> None:
    config = read_config(CONFIGS / f"{name}.yaml")
    dropout = read_train_config(CONFIGS / f"{name}.yaml").augmentation.dropout
    root = write_copy(config.dataset, tmp_path / "copy", layout, train=10, test=2, size=(256, 256))
    sizes = {}
    seen: set[tuple[Path, str]] = set()
    for part in ("train", "val", "test"):
        dataset = config.open(part, root=root)
        sizes[part] = len(dataset)
        sample = dataset[0]
        assert sample["mask"].shape == sample["optical"].shape[1:]
        assert (sample["mask"] != 255).any()
        assert len(dataset.modalities) == 2
        assert set(dropout) <= set(dataset.modalities), "names of modalities that there are"
        names = {(dataset.files(i)["mask"], dataset.name(i)) for i in range(len(dataset))}
        assert not names & seen, "parts share nothing"
        seen |= names
    expected = {"train": 10, "val": 2, "test": 2} if name == "mfnet" else {"train": 9, "val": 1, "test": 2}
    assert sizes == expected


@pytest.mark.brief
def test_configurations_are_plain_data() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*NAMES, "demo_pack"}
    for name in NAMES:
        text = (CONFIGS / f"{name}.yaml").read_text()
        assert not re.search(r"class_path|gopt_geo\.|!!", text), name
        assert yaml.safe_load(text)["dataset"] in DATASETS


def test_the_documented_recipe_of_nyudv2_is_there() -> None:
    config = read_train_config(CONFIGS / "nyudv2.yaml")
    recipe, changes = config.training, config.augmentation
    assert recipe.tile_size == (480, 640)
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay, recipe.batch) == ("adamw", 6e-5, 0.01, 8)
    assert (recipe.schedule, recipe.power, recipe.warmup_epochs, recipe.warmup_steps) == ("poly", 0.9, 10, None)
    assert (changes.symmetry, changes.scales) == ("flip", (0.5, 1.75))
    assert (config.evaluation.scales, config.evaluation.flip) == ((1.0,), False)
    assert config.evaluation.overlap == pytest.approx(640 / 3, abs=1)


@pytest.mark.brief
@pytest.mark.parametrize("name", NAMES)
def test_configurations_are_trainings(name: str) -> None:
    config = read_train_config(CONFIGS / f"{name}.yaml")
    assert config.dataset_config() == read_config(CONFIGS / f"{name}.yaml")
    assert config.output == f"runs/{name}"
    above = name in ("ombria", "whu_opt_sar")
    assert config.augmentation.symmetry == ("dihedral" if above else "flip")
    assert (config.augmentation.clouds > 0) == above
    if not above:
        assert set(config.augmentation.dropout.values()) == {0}


@pytest.mark.brief
@pytest.mark.parametrize(
    ("line", "text", "found"),
    [
        (4, "optoins: {crop: 256}", "line 4: optoins: unknown key"),
        (5, "options:\n  crops: 256", "line 5: options.crops: unknown key"),
        (5, "options:\n  crop: big", "line 5: options.crop: Input should be a valid integer"),
        (5, "options:\n  crop: true", "line 5: options.crop: Input should be a valid integer"),
        (5, "options:\n  auxiliary: [1]", "line 5: options.auxiliary.0: Input should be a valid string"),
        (4, "options: {transforms: os.system}", "line 4: options.transforms: unknown key"),
        (4, "scene: {labels: l.tif}", "line 4: scene: it is of a scene, not of a data set"),
        (4, "ignore: [0]", "line 4: ignore: whu_opt_sar has classes of its own"),
        (4, "classes: [{value: 1, name: a}]", "line 4: classes: whu_opt_sar has classes of its own"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, line: int, text: str, found: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"dataset: whu_opt_sar\nroot: data\nsplits: {{train: train, val: val, test: test}}\n{text}\n")
    assert f"{path}, {found}" in refused(path)


def test_other_faults_of_configurations(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert "can't be read" in refused(path)
    rest = "root: data\nsplits: {train: train, val: val, test: test}\n"
    for text, found in (
        ("", "line 1: dataset: it is missing"),
        ("- 1\n", "line 1: the file"),
        ("dataset: whu_opt_sar\nroot: data\nsplits: {train: a, val: b}\n", "line 3: splits.test: it is missing"),
        (f"dataset: nothing\n{rest}", "line 1: dataset: there is no data set 'nothing'; choose from pair_folder"),
        (f"dataset: !!python/object:os.system {{}}\n{rest}", "isn't YAML"),
        ("a: [", "isn't YAML"),
        ("a: &a [*a]", "isn't YAML"),
    ):
        path.write_text(text)
        assert found in refused(path), text
    path.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(path)


def test_options_are_those_of_the_class(tmp_path: Path) -> None:
    assert check_options("whu_opt_sar", {"auxiliary": ["sar", "nir"], "crop": None}) == {
        "auxiliary": ("sar", "nir"),
        "crop": None,
    }
    assert check_options("whu_opt_sar", {"split_file": tmp_path})["split_file"] == str(tmp_path)
    with pytest.raises(DatasetError, match=r"option crops: .*; its options are crop, auxiliary, split_file, hold_out"):
        open_dataset("whu_opt_sar", tmp_path, "train", crops=3)
    with pytest.raises(DatasetError, match="no such data set; choose from pair_folder"):
        dataset_class("os")
    with pytest.raises(DatasetError, match="classes of its own"):
        open_dataset("mfnet", tmp_path, "train", classes=ClassTable((0,), ("a",)))


@pytest.mark.brief
def test_opens_by_name_with_classes_and_transforms(tmp_path: Path) -> None:
    root = write_copy("pair_folder", tmp_path / "chips")
    classes = ClassTable((0, 255), ("dry", "flood"))
    dataset = open_dataset("pair_folder", root, "train", classes=classes, transforms=lambda s: {"n": s["mask"]})
    assert dataset.classes is classes
    assert set(dataset[0]) == {"n"}
