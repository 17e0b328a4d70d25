from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.datasets.classes import ClassTable, read_classes
from gopt_geo.errors import DatasetError

pytestmark = pytest.mark.brief

GOOD = """
classes:
  - {value: 10, name: farmland, color: "#f0e68c"}
  - {value: 40, name: water, color: "#0000ff"}
ignore: [0, 254]
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "classes.yaml"
    path.write_text(text)
    return path


def test_a_class_list_is_read(tmp_path: Path) -> None:
    table = read_classes(_write(tmp_path, GOOD))
    assert (table.values, table.names) == ((10, 40), ("farmland", "water"))
    assert (table.colours, table.ignore) == (("#f0e68c", "#0000ff"), (0, 254))
    labels = np.array([[40, 0], [10, 254]], np.uint8)
    assert table.index(labels, "labels.tif").tolist() == [[1, 255], [0, 255]]
    assert table.index(labels, "labels.tif").dtype == np.uint8


def test_colours_are_chosen_where_none_are_given(tmp_path: Path) -> None:
    table = read_classes(_write(tmp_path, "classes: [{value: -1, name: a}, {value: 0, name: b}, {value: 7, name: c}]"))
    assert len(set(table.colours)) == 3
    assert table.index(np.array([7, -1, 0]), "x").tolist() == [2, 0, 1]


@given(st.lists(st.integers(-(2**40), 2**40), min_size=2, max_size=255, unique=True), st.data())
def test_every_value_has_the_index_of_its_place(values: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(values)))
    table = ClassTable(tuple(values[:cut]), tuple(map(str, range(cut))), ignore=tuple(values[cut:]))
    drawn = data.draw(st.lists(st.sampled_from(values), max_size=20))
    wanted = [values.index(value) if values.index(value) < cut else 255 for value in drawn]
    assert table.index(np.array(drawn, np.int64), "x").tolist() == wanted
    strange = data.draw(st.integers(-(2**41), 2**41).filter(lambda value: value not in values))
    with pytest.raises(DatasetError, match=f"labels.tif: label {strange} is none of the classes"):
        table.index(np.array([*drawn, strange], np.int64), "labels.tif")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "line 1: classes: it is missing"),
        ("classes: []", "line 1: classes: 0 classes"),
        ("classes: [{value: 1}]", "classes.0.name: it is missing"),
        ("classes: [{value: one, name: a}]", "classes.0.value: Input should be a valid integer"),
        (
            "classes: [{value: 1, name: a, colour: '#000000'}]",
            "classes.0.colour: unknown key; did you mean classes.0.color?",
        ),
        ("classes: [{value: 1, name: a, color: red}]", "classes.0.color: String should match"),
        ("classes: [{value: 1, name: a, color: '#000000'}, {value: 2, name: b}]", "give every class a color, or none"),
        ("classes: [{value: 1, name: a}, {value: 1, name: b}]", "value 1 occurs twice"),
        ("classes: [{value: 1, name: a}, {value: 2, name: a}]", "the name 'a' occurs twice"),
        ("classes: [{value: 1, name: a}]\nignore: [1]", "value 1 occurs twice"),
        ("classes: [", "it isn't YAML"),
        ("[1, 2]", "line 1: the file: Input should hold keys and values, not a list"),
        ("!!python/object/apply:os.getcwd []", "it isn't YAML"),
    ],
)
def test_what_is_no_class_list_is_named(tmp_path: Path, text: str, found: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(DatasetError) as caught:
        read_classes(path)
    assert str(caught.value).startswith(str(path))
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.yaml: it can't be read"):
        read_classes(tmp_path / "nowhere.yaml")


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(DatasetError, match="256 classes"):
        ClassTable(tuple(range(256)), tuple(map(str, range(256))))
