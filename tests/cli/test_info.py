"""``gopt-geo info`` on scene pairs and groups; the API is a recorder here, but for the last test."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import gopt_geo
from gopt_geo_cli.main import app


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The calls of `api.info`, which answers with the groups of a small model where they are asked for."""
    kept: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def answer(*args: Any, **kwargs: Any) -> dict[str, Any]:
        kept.append((args, kwargs))
        return {"kind": "scene pair", **({"groups": usage()} if "groups" in kwargs else {})}

    api = types.SimpleNamespace(info=answer)
    monkeypatch.setattr(gopt_geo, "api", api, raising=False)
    monkeypatch.setitem(sys.modules, "gopt_geo.api", api)
    return kept


def usage(groups: int = 12, assignment: str = "hard") -> dict[str, Any]:
    rows = [{"group": n, "share": 1 / groups, "entropy": 0.083, "token_entropy": 0.5} for n in range(1, groups + 1)]
    layer = {"layer": 3, "modality": "sar", "tokens": 640, "entropy": 0.7125, "used": groups - 2, "dead": [2, 7]}
    layers = [{**layer, "groups": rows}]
    return {"picture": "g.png", "assignment": assignment, "layers": layers, "notices": ["warning: a demo"]}


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["info", *arguments])


@pytest.mark.brief
def test_a_file_or_a_pair_is_handed_on_alone(calls: list[Any]) -> None:
    assert _run("x.tif").exit_code == 0
    assert _run("o.tif", "s.tif", "--json").exit_code == 0
    assert calls == [(("x.tif",), {}), (("o.tif", "s.tif"), {})]


@pytest.mark.brief
def test_sensors_are_listed_without_a_file(calls: list[Any]) -> None:
    run = _run("--sensors")
    assert (run.exit_code, calls) == (0, [])
    assert run.stdout.count("| `sentinel-") == 4


def test_options_are_handed_on(calls: list[Any]) -> None:
    texts = {"--optical-bands": "4,3,2", "--sar-bands": "VV", "--optical-units": "dn10000", "--sar-units": "db"}
    texts |= {"--sensor": "sentinel-2-l2a", "--sar-sensor": "sar", "--cloud-mask": "SCL", "--cloud-mask-kind": "scl"}
    paths = {"--groups": "g.png", "--pack": "p.safetensors", "--backbone-weights": "w.pth"}
    flat = [part for pair in (texts | paths).items() for part in pair]
    run = _run("o.tif", "s.tif", *flat, "--window", "8,16,320, 240", "--layers", "1,5", "--pixel-grid", "--overwrite")
    assert run.exit_code == 0, run.output
    ((args, kwargs),) = calls
    assert args == ("o.tif", "s.tif")
    names = {option: option[2:].replace("-", "_") for option in (*texts, *paths)}
    expected: dict[str, Any] = {names[option]: value for option, value in texts.items()}
    expected |= {names[option]: Path(value) for option, value in paths.items()}
    numbers = {"window": (8, 16, 320, 240), "layers": (1, 5)}
    assert kwargs == {**expected, **numbers, "pixel_grid": True, "overwrite": True}


@pytest.mark.parametrize(
    "wrong",
    [
        ["--window", "1,2,3"],
        ["--window", "1,2,3,4,5"],
        ["--window", "a,b,c,d"],
        ["--window", "1.5,2,3,4"],
        ["--window", ""],
        ["--layers", "1,,2"],
        ["--layers", "all"],
        ["--sar-units", "decibel"],
    ],
    ids=" ".join,
)
def test_what_is_no_number_is_refused(calls: list[Any], wrong: list[str]) -> None:
    assert _run("o.tif", "s.tif", "--groups", "g.png", *wrong).exit_code == 2
    assert calls == []


def test_negative_numbers_reach_the_check_of_the_window(calls: list[Any]) -> None:
    assert _run("o.tif", "s.tif", "--groups", "g.png", "--window=-8,0,16,16").exit_code == 0
    assert calls[0][1]["window"] == (-8, 0, 16, 16)


def test_usage_is_printed_as_a_table_and_notices_on_stderr(calls: list[Any]) -> None:
    run = _run("o.tif", "s.tif", "--groups", "g.png")
    assert run.stderr == "warning: a demo\n"
    lines = [" ".join(line.split()) for line in run.stdout.splitlines()]
    assert lines == [
        "kind: scene pair",
        "groups:",
        "picture: g.png",
        "assignment: hard",
        "",
        "layer 3, sar: 640 tokens, 10 of 12 groups used, entropy 0.713, dead: 2, 7",
        "group 1 2 3 4 5 6 7 8 9 10",
        "share, % " + " ".join(["8.3"] * 10),
        "entropy " + " ".join(["0.083"] * 10),
        "group 11 12",
        "share, % 8.3 8.3",
        "entropy 0.083 0.083",
    ]


def test_soft_assignments_have_a_row_more(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["gopt_geo.api"], "info", lambda *_, **__: {"groups": usage(2, "soft")})
    run = _run("o.tif", "s.tif", "--groups", "g.png")
    assert "token entropy   0.500  0.500" in run.stdout


def test_usage_is_part_of_the_json(calls: list[Any]) -> None:
    run = _run("o.tif", "s.tif", "--groups", "g.png", "--json")
    assert json.loads(run.stdout) == {"kind": "scene pair", "groups": usage()}
    assert run.stderr == "warning: a demo\n"


def test_a_pair_and_its_groups_for_real(tiny_pack: Path, tmp_path: Path, scene: dict[str, Path]) -> None:
    picture = tmp_path / "groups.png"
    pair = [str(scene["scene"]), str(scene["sar"])]
    options = ["--pack", str(tiny_pack), "--optical-bands", "red,green,blue", "--cloud-mask", str(scene["clouds"])]
    run = _run(*pair, "--groups", str(picture), *options)
    assert run.exit_code == 0, run.output
    assert "alignment: one warp brings SAR onto the optical grid" in run.stdout
    assert "layer 2, sar: " in run.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = _run(*pair, "--groups", str(picture), *options)
    assert again.exit_code == 2
    assert again.stderr == f"error: {picture}: exists; use --overwrite or another path\n"
    alone = _run(pair[0], "--groups", str(picture))
    assert alone.exit_code == 2
    assert alone.stderr.count("\n") == 1
    assert "gopt-geo info OPTICAL SAR" in alone.stderr
