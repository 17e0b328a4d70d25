"""What each command hands to the API, and what it says afterwards; the API itself is a recorder here."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import gopt_geo
from gopt_geo.assessment.evaluate import Assessment
from gopt_geo.assessment.metrics import Scores
from gopt_geo.scene import SceneMosaic
from gopt_geo_cli.main import app


class Recorder(types.ModuleType):
    """Stands where ``gopt_geo.api`` stands; keeps each call."""

    def __init__(self) -> None:
        super().__init__("gopt_geo.api")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.results: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in (
            "predict",
            "evaluate",
            "evaluate_pack",
            "evaluate_sample",
            "vectorize",
            "info",
            "simulate_files",
        ):
            raise AttributeError(name)

        def verb(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            result = self.results.get(name)
            return result(*args, **kwargs) if callable(result) else result

        return verb


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "gopt_geo.api", recorder)
    monkeypatch.setattr(gopt_geo, "api", recorder, raising=False)
    recorder.results["predict"] = types.SimpleNamespace(
        notices=("warning: a demo", "the SAR unit\nis dB"),
        outputs=(Path("m.tif"), Path("m.gpkg")),
        shape=(4, 5),
        shared=0.5,
        seconds=1.25,
        run=types.SimpleNamespace(tiles=9, forwarded=7),
    )
    return recorder


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.brief
def test_predict_defaults(api: Recorder) -> None:
    run = _run("predict", "o.tif", "s.tif", "-o", "m.tif")
    assert run.exit_code == 0, run.output
    ((name, args, kwargs),) = api.calls
    assert name == "predict"
    assert args == ("o.tif", "s.tif", [Path("m.tif")])
    assert callable(kwargs.pop("progress"))
    assert kwargs == {
        "pack": None,
        "backbone_weights": None,
        "optical_bands": None,
        "sar_bands": None,
        "optical_units": None,
        "sar_units": None,
        "sensor": None,
        "sar_sensor": None,
        "cloud_mask": None,
        "cloud_mask_kind": None,
        "aoi": None,
        "aoi_crs": None,
        "grid": "optical",
        "extent": "optical",
        "resolution": None,
        "crs": None,
        "allow_resolution": False,
        "coregister": False,
        "pixel_grid": False,
        "confidence": None,
        "probabilities": None,
        "probabilities_type": "float32",
        "preview": None,
        "reference": None,
        "tile_size": None,
        "overlap": None,
        "batch_size": "auto",
        "blend": "hann",
        "augment": "none",
        "scales": (1.0,),
        "readers": None,
        "max_memory": None,
        "device": "auto",
        "precision": "auto",
        "compile": False,
        "threads": None,
        "overwrite": False,
    }


def test_predict_options(api: Recorder) -> None:
    options = {
        "--pack": "p.safetensors",
        "--backbone-weights": "b.safetensors",
        "--optical-bands": "4,3,2",
        "--sar-bands": "VV",
        "--optical-units": "dn10000",
        "--sar-units": "power",
        "--sensor": "sentinel-2-l2a",
        "--sar-sensor": "sentinel-1-rtc",
        "--cloud-mask": "c.tif",
        "--cloud-mask-kind": "qa-pixel",
        "--aoi": "9,48,10,49",
        "--aoi-crs": "EPSG:4326",
        "--grid": "other.tif",
        "--extent": "union",
        "--resolution": "12.5",
        "--crs": "EPSG:32632",
        "--confidence": "k.tif",
        "--probabilities": "q.tif",
        "--probabilities-type": "uint16",
        "--preview": "v.png",
        "--reference": "l.tif",
        "--tile-size": "128",
        "--overlap": "0",
        "--batch-size": "2",
        "--blend": "none",
        "--augment": "dihedral",
        "--scales": "0.75, 1",
        "--readers": "1",
        "--max-memory": "2GB",
        "--device": "cuda:1",
        "--precision": "fp16",
        "--threads": "3",
    }
    flags = ["--allow-resolution", "--coregister", "--pixel-grid", "--compile", "--overwrite"]
    flat = [part for pair in options.items() for part in pair]
    run = _run("predict", "o.tif", "s.tif", "-o", "m.tif", "--output", "m.gpkg", *flat, *flags)
    assert run.exit_code == 0, run.output
    ((_, args, kwargs),) = api.calls
    assert args[2] == [Path("m.tif"), Path("m.gpkg")]
    del kwargs["progress"]
    numbers = {
        "resolution": 12.5,
        "tile_size": 128,
        "overlap": 0,
        "batch_size": 2,
        "readers": 1,
        "threads": 3,
        "scales": (0.75, 1.0),
    }
    paths = {
        name: Path(options[f"--{name.replace('_', '-')}"])
        for name in ("pack", "backbone_weights", "confidence", "probabilities", "preview", "reference")
    }
    texts = {flag[2:].replace("-", "_"): value for flag, value in options.items()}
    switches = {flag[2:].replace("-", "_"): True for flag in flags}
    expected = texts | numbers | paths | switches
    assert kwargs == expected


def test_predict_says_notices_on_stderr_and_paths_on_stdout(api: Recorder) -> None:
    run = _run("predict", "o.tif", "s.tif", "-o", "m.tif", "-o", "m.gpkg")
    assert run.stdout == "m.tif\nm.gpkg\n"
    warning, note, summary = run.stderr.splitlines()
    assert warning == "warning: a demo"
    assert note == "note: the SAR unit is dB"
    assert summary == "note: 4 x 5 pixels in 1.2 s, 7 of 9 tiles held data, both rasters have data on 50.0 % of the map"


def test_predict_takes_further_rasters_that_fill_in(api: Recorder) -> None:
    further = ["--optical-also", "o2.tif", "--sar-also", "s2.tif", "--optical-also", "o3.tif"]
    assert _run("predict", "o.tif", "s.tif", *further, "-o", "m.tif").exit_code == 0
    assert api.calls[-1][1][:2] == (SceneMosaic(("o.tif", "o2.tif", "o3.tif")), SceneMosaic(("s.tif", "s2.tif")))
    assert _run("predict", "--sar", "s.tif", "--sar-also", "s2.tif", "-o", "m.tif").exit_code == 0
    assert api.calls[-1][1][:2] == (None, SceneMosaic(("s.tif", "s2.tif")))
    refused = _run("predict", "o.tif", "--sar-also", "s2.tif", "-o", "m.tif")
    assert (refused.exit_code, len(api.calls)) == (2, 2)
    assert "--sar-also s2.tif: no SAR raster is named that it could go with; name the first" in refused.stderr


def test_predict_maps_an_optical_raster_alone(api: Recorder) -> None:
    run = _run("predict", "o.tif", "-o", "m.tif")
    ((_, args, _),) = api.calls
    assert args[:2] == ("o.tif", None)
    assert run.stderr.splitlines()[-1].endswith("tiles held data, the raster has data on 50.0 % of the map")
    refused = _run("predict", "-o", "m.tif")
    assert (refused.exit_code, len(api.calls)) == (2, 1)
    assert "predict: no raster is named; give OPTICAL and SAR, --sar alone, or --catalog" in refused.stderr


def test_predict_maps_sar_alone(api: Recorder) -> None:
    run = _run("predict", "--sar", "s.tif", "-o", "m.tif")
    ((_, args, _),) = api.calls
    assert args[:2] == (None, "s.tif")
    assert run.stderr.splitlines()[-1].endswith("tiles held data, the raster has data on 50.0 % of the map")
    assert _run("predict", "o.tif", "--sar", "s.tif", "-o", "m.tif").exit_code == 0
    assert api.calls[-1][1][:2] == ("o.tif", "s.tif")
    refused = _run("predict", "o.tif", "s.tif", "--sar", "s.tif", "-o", "m.tif")
    assert (refused.exit_code, len(api.calls)) == (2, 2)
    assert "--sar: SAR is named already, after OPTICAL; leave one of them out" in refused.stderr
    refused = _run("predict", "--sar", "s.tif", "--catalog", "c.json", "-o", "m.tif")
    assert "--catalog: it stands instead of OPTICAL and SAR" in refused.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["--extent", "all"],
        ["--sar-units", "decibel"],
        ["--optical-units", "dn"],
        ["--blend", "cosine"],
        ["--augment", "rotate"],
        ["--scales", "0.5,a"],
        ["--probabilities-type", "float16"],
        ["--cloud-mask-kind", "cloudy"],
        ["--tile-size", "x"],
        ["--batch-size", "some"],
        ["--batch-size", "1.5"],
        ["--precision", "int8"],
    ],
    ids=" ".join,
)
def test_predict_refuses_unknown_choices(api: Recorder, wrong: list[str]) -> None:
    assert _run("predict", "o.tif", "s.tif", "-o", "m.tif", *wrong).exit_code == 2
    assert api.calls == []


def test_predict_needs_an_output(api: Recorder) -> None:
    assert _run("predict", "o.tif", "s.tif").exit_code == 2
    assert api.calls == []


@pytest.fixture
def assessment() -> Assessment:
    matrix = np.array([[30, 5, 0, 1], [4, 12345678, 0, 2], [0, 0, 0, 0]])
    return Assessment(
        prediction="m.tif",
        reference="l.tif",
        class_values=(1, 2, 3),
        class_names=("water", "forest [dense]", "road"),
        matrix=matrix,
        scores=Scores.from_matrix(matrix),
        mapped_scores=Scores.from_matrix(matrix[:, :-1]),
        notices=("1 of 3 classes left out",),
    )


def test_evaluate_prints_tables_and_writes_json(api: Recorder, assessment: Assessment, tmp_path: Path) -> None:
    api.results["evaluate"] = assessment
    target = tmp_path / "scores.json"
    run = _run("evaluate", "m.tif", "--reference", "l.tif", "--json", str(target))
    assert run.exit_code == 0, run.output
    assert api.calls == [("evaluate", (Path("m.tif"), Path("l.tif")), {})]
    assert json.loads(target.read_text()) == assessment.to_dict()
    lines = [" ".join(line.split()) for line in run.stdout.splitlines()]
    assert "1 2 3 no class" in lines
    assert "2 forest [dense] 4 12345678 0 2" in lines
    assert "1 water 0.7500 0.8571 0.8824 0.8333" in lines  # 30 / (36 + 34 - 30), 60 / 70, 30 / 34, 30 / 36
    assert "3 road n/a n/a n/a n/a" in lines
    assert any(line.startswith("mIoU 0.8750 OA 1.0000 kappa 0.8") for line in lines)
    assert "over 12345720 pixels" in lines
    assert all(len(line) <= 80 for line in run.stdout.splitlines() if line != str(target))
    assert "kappa = (OA - pe) / (1 - pe)" in run.stdout
    assert lines[-1] == str(target)
    assert run.stderr == "note: 1 of 3 classes left out\n"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_evaluate_json_is_not_overwritten(api: Recorder, assessment: Assessment, tmp_path: Path) -> None:
    api.results["evaluate"] = assessment
    target = tmp_path / "scores.json"
    target.write_text("mine")
    arguments = ["evaluate", "m.tif", "--reference", "l.tif", "--json", str(target)]
    run = _run(*arguments)
    assert run.exit_code == 2
    assert run.stderr.startswith(f"error: {target}: ")
    assert (api.calls, target.read_text()) == ([], "mine")
    assert _run(*arguments, "--overwrite").exit_code == 0
    assert json.loads(target.read_text()) == assessment.to_dict()


def test_evaluate_needs_a_reference(api: Recorder) -> None:
    assert _run("evaluate", "m.tif").exit_code == 2


def test_evaluate_hands_on_what_is_said_of_a_map(api: Recorder, assessment: Assessment) -> None:
    api.results["evaluate"] = assessment
    said = ["--class-field", "kind", "--aoi", "0,0,1,1", "--ignore", "0", "--ignore", "9", "--boundary", "2"]
    run = _run("evaluate", "m.tif", "--reference", "l.gpkg", *said, "--confidence", "c.tif")
    assert run.exit_code == 0, run.output
    ((_, args, kwargs),) = api.calls
    assert args == (Path("m.tif"), Path("l.gpkg"))
    assert kwargs == {
        "class_field": "kind",
        "aoi": "0,0,1,1",
        "ignore": (0, 9),
        "confidence": Path("c.tif"),
        "boundary": 2,
    }


def test_evaluate_hands_on_what_is_said_of_a_pack(api: Recorder, assessment: Assessment) -> None:
    api.results["evaluate_pack"] = assessment
    run = _run(
        "evaluate",
        "--pack",
        "p",
        "--config",
        "c.yaml",
        "--split",
        "val",
        "--scales",
        "0.5, 1",
        "--flip",
        "--overlap",
        "0",
    )
    assert run.exit_code == 0, run.output
    ((name, args, kwargs),) = api.calls
    assert (name, args) == ("evaluate_pack", (Path("p"), Path("c.yaml")))
    assert callable(kwargs.pop("progress"))
    assert kwargs == {"split": "val", "scales": (0.5, 1.0), "flip": True, "overlap": 0}


def test_evaluate_hands_on_what_is_said_of_a_sample(api: Recorder, tmp_path: Path) -> None:
    entry = {"value": 1, "name": "water", "mapped_area": 5e6}
    areas = {f"area{end}": 4e6 for end in ("", "_se", "_lower", "_upper", "_plain_lower", "_plain_upper")}
    figures = ("share", "share_se", "lower", "upper", "plain_lower", "plain_upper")
    accuracies = ("users", "users_se", "producers", "producers_se", "mapped_units")
    estimates = {name: [0.5] for name in (*figures, *accuracies)}
    whole = dict.fromkeys(("overall", "overall_se", "overall_lower", "overall_upper"), 0.75)
    found = {
        "unit": "m2",
        "classes": [entry | areas],
        "units": [[60]],
        "strata": [{}],
        "estimates": estimates | whole | {"level": 0.9, "total_area": 8e6},
        "conventions": ["as it is"],
    }
    api.results["evaluate_sample"] = types.SimpleNamespace(to_dict=lambda: found, notices=("few",))
    said = ["--reference-field", "truth", "--level", "0.9", "--skip-unfilled", "--other-strata", "--aoi", "0,0,1,1"]
    run = _run("evaluate", "m.tif", "--sample", "s.gpkg", *said, "--json", str(tmp_path / "a.json"))
    assert run.exit_code == 0, run.output
    expected = {"reference_field": "truth", "level": 0.9, "skip_unfilled": True, "other_strata": True, "aoi": "0,0,1,1"}
    assert api.calls == [("evaluate_sample", (Path("m.tif"), Path("s.gpkg")), expected)]
    assert json.loads((tmp_path / "a.json").read_text()) == found
    assert "1 water     500.0     400.0" in run.stdout
    assert run.stderr == "note: few\n"


@pytest.mark.brief
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "evaluate: there is nothing to evaluate; give PREDICTION and --reference, or --sample;"),
        (["m.tif", "--pack", "p"], "evaluate: a map and a pack are given"),
        (["m.tif", "--reference", "l.tif", "--flip"], "--flip: it doesn't serve PREDICTION"),
        (["m.tif", "--reference", "l.tif", "--config", "c"], "--config: it doesn't serve PREDICTION"),
        (["--pack", "p", "--config", "c", "--aoi", "a"], "--aoi: it doesn't serve --pack"),
        (["--pack", "p"], "--pack: --config is missing"),
        (["m.tif"], "PREDICTION: --reference is missing; add --reference, or --sample"),
        (["m.tif", "--reference", "l.tif", "--level", "0.9"], "--level: it serves --sample alone"),
        (["m.tif", "--sample", "s.gpkg", "--reference", "l.tif"], "--reference: it doesn't serve --sample"),
        (["m.tif", "--sample", "s.gpkg", "--boundary", "2"], "--boundary: it doesn't serve --sample"),
        (["--pack", "p", "--config", "c", "--sample", "s"], "--sample: it doesn't serve --pack"),
    ],
)
def test_evaluate_refuses_what_does_not_go_together(api: Recorder, given: list[str], said: str) -> None:
    run = _run("evaluate", *given)
    assert (run.exit_code, api.calls) == (2, [])
    assert run.stderr.startswith(f"error: {said}")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", [["--scales", "a"], ["--scales", "-1"], ["--split", "all"], ["--boundary", "-1"]])
def test_evaluate_refuses_unknown_choices(api: Recorder, wrong: list[str]) -> None:
    assert _run("evaluate", "--pack", "p", "--config", "c", *wrong).exit_code == 2
    assert api.calls == []


def test_vectorize(api: Recorder) -> None:
    run = _run("vectorize", "m.tif", "-o", "m.gpkg", "-o", "m.fgb", "--confidence", "k.tif", "--overwrite")
    assert run.exit_code == 0, run.output
    outputs = [Path("m.gpkg"), Path("m.fgb")]
    assert api.calls == [("vectorize", (Path("m.tif"), outputs), {"confidence": Path("k.tif"), "overwrite": True})]
    assert run.stdout == "m.gpkg\nm.fgb\n"


def test_simulate(api: Recorder) -> None:
    api.results["simulate_files"] = lambda folder, **_: {stem: folder / f"{stem}.tif" for stem in ("scene", "sar")}
    run = _run("simulate", "-o", "d", "--seed", "7", "--size", "300x400", "--sar-bands", "2", "--cloud", "0.3")
    assert run.exit_code == 0, run.output
    ((name, args, kwargs),) = api.calls
    assert (name, args) == ("simulate_files", (Path("d"),))
    assert kwargs["size"] == (300, 400)  # rows first
    assert (kwargs["seed"], kwargs["sar_bands"], kwargs["cloud"]) == (7, 2, 0.3)
    assert run.stdout.split() == ["d/scene.tif", "d/sar.tif"]


@pytest.mark.parametrize("size", ["300", "0x5", "5x0", "axb", "3x4x5", "-3x4", "3.5x4"])
def test_simulate_refuses_sizes(api: Recorder, size: str) -> None:
    assert _run("simulate", "-o", "d", "--size", size).exit_code == 2
    assert api.calls == []


@pytest.mark.parametrize("wrong", [["--cloud", "1.5"], ["--sar-bands", "3"], ["--seed", "-1"]], ids=" ".join)
def test_simulate_refuses_values_out_of_range(api: Recorder, wrong: list[str]) -> None:
    assert _run("simulate", "-o", "d", *wrong).exit_code == 2
    assert api.calls == []


def test_info_as_text_and_json(api: Recorder) -> None:
    found = {
        "path": "x.tif",
        "size": [3, 4],
        "bands": [{"name": "VV", "unit": None}, {"name": "VH", "unit": "dB"}],
        "tags": {},
    }
    api.results["info"] = found
    assert json.loads(_run("info", "x.tif", "--json").stdout) == found
    assert _run("info", "x.tif").stdout.splitlines() == [
        "path: x.tif",
        "size: 3, 4",
        "bands:",
        "  - 1:",
        "    name: VV",
        "    unit: -",
        "  - 2:",
        "    name: VH",
        "    unit: dB",
        "tags: -",
    ]
