"""YAML as plain data: what is read, what is refused, with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.errors import ConfigError
from gopt_geo.yamlfile import YamlDocument, parse_yaml, read_yaml, yaml_text

TEXT = st.text(max_size=30)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


def parse(text: str) -> YamlDocument:
    return parse_yaml(text, "x.yaml", remedy="see the page", error=ConfigError)


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.brief
@given(VALUES)
def test_what_is_written_reads_back_equal(value: Any) -> None:
    text = yaml_text({"key": value})
    assert parse(text).content == {"key": value}
    assert parse(f"key: {yaml_text(value)} # comment").content == {"key": value}


@given(
    st.one_of(
        st.sampled_from(["no", "on", "6e-5", "1_0", "0o7", "010", "1:30", "2024-01-01", "~", "=", "<<", ".5"]), TEXT
    )
)
def test_text_stays_text_for_readers_of_yaml_1_1_too(value: str) -> None:
    assert yaml.safe_load(yaml_text(["a", value])) == ["a", value]


@pytest.mark.brief
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6e-5", 6e-5),
        ("6.0e-5", 6e-5),
        ("-.5", -0.5),
        ("010", 10),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("|\n  a\n  b", "a\nb"),
        (".nan", ".nan"),
        ("4,3,2", "4,3,2"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(f"a: {text}").content["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.brief
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: [", "x.yaml, line 1: it isn't YAML"),
        ("a: 1\nb: 2\na: 3", "x.yaml, line 3: a: it is there twice"),
        ("a:\n  b: {c: 1, c: 2}", "x.yaml, line 2: a.b.c: it is there twice"),
        ("a: &x 1\nb: *x", "x.yaml, line 1: it isn't YAML as it is read here (a tag, anchor or alias)"),
        ("a: 1\nb: !!python/object/apply:os.getcwd []", "x.yaml, line 2: it isn't YAML as it is read here"),
        ("a: !!str 5", "x.yaml, line 1: it isn't YAML as it is read here"),
        ("? [1, 2]\n: 3", "x.yaml, line 1: it isn't YAML as it is read here (a key that is no text)"),
        ("a: 1\n---\nb: 2", "x.yaml, line 2: it isn't YAML"),
        ("- " * 5000 + "1", "nested too deeply"),
        ("a: \x07", "x.yaml: it isn't YAML (unacceptable character"),
        ("a: 'b", "x.yaml, line 1: it isn't YAML"),
        ("a: b: c", "x.yaml, line 1: it isn't YAML"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text: str, found: str) -> None:
    assert refused(text).startswith(found) or found in refused(text)


def test_an_avalanche_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    assert "line 1" in refused("\n".join(lines))


def test_lines_of_keys_and_entries() -> None:
    document = parse("a:\n  - x\n  - {b: 1}\nc: {d:\n  1}\n")
    assert document.lines == {(): 1, ("a",): 1, ("a", 0): 2, ("a", 1): 3, ("a", 1, "b"): 3, ("c",): 4, ("c", "d"): 4}
    assert document.where(("c", "nothing", "there")) == "x.yaml, line 4"
    assert document.where(("z",)) == "x.yaml, line 1"


def test_an_option_stands_for_its_value() -> None:
    document = parse("a: 1\n").having({"a": 2}, {("a",): "--option"})
    assert str(document.fault(("a",), "too much", "less")) == "--option: a: too much; less"


def test_files_that_are_none(tmp_path: Path) -> None:
    def why(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            read_yaml(path, kind="configuration", remedy="see the page", error=ConfigError)
        return str(caught.value).removeprefix(f"{path}: ")

    path = tmp_path / "x.yaml"
    assert why(path).startswith("it can't be read (No such file")
    assert why(tmp_path) == "it is a folder; name a file"
    os.mkfifo(tmp_path / "pipe")
    assert why(tmp_path / "pipe") == "it is no regular file; name a file"
    path.write_bytes(b"\xff\xfe\x00")
    assert why(path) == "it isn't text in UTF-8; see the page"
    with path.open("wb") as file:
        file.truncate(20 << 30)  # a sparse file: nobody reads it
    assert why(path) == f"{20 << 30} bytes are no configuration; see the page"


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    document = read_yaml(path, kind="configuration", remedy="", error=ConfigError)
    assert (document.content, document.lines[("b",)]) == ({"a": 1, "b": 2}, 2)
