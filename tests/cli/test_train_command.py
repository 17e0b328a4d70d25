"""``gopt-geo train`` and ``init``: what options make of a configuration, what is said; the API is a recorder."""

from __future__ import annotations

import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import gopt_geo
from gopt_geo.modelfaults import keys_of
from gopt_geo.training.config import ClassEntry, OptimisationConfig, SceneConfig, SplitConfig, TrainConfig
from gopt_geo.training.configfile import dump_config, read_train_config
from gopt_geo_cli.guard import Terminated
from gopt_geo_cli.main import app
from gopt_geo_cli.train import train as train_command
from gopt_geo_cli.trainoptions import KEYS

CONFIGS = Path(__file__).parents[2] / "configs"
SAMPLES = Path(__file__).parents[2] / "sample_tiles"
PROJECT = "scene: {optical: o.tif, labels: l.tif}\ntraining: {steps: 7}\noutput: runs/mine\n"


class Recorder(types.ModuleType):
    """Stands where ``gopt_geo.api`` stands."""

    def __init__(self) -> None:
        super().__init__("gopt_geo.api")
        self.calls: list[tuple[str, TrainConfig, dict[str, Any]]] = []
        self.test: dict[str, Any] | None = {"scores": {"mean_iou": 0.25}}

    def train(self, config: TrainConfig, **options: Any) -> Any:
        self.calls.append(("train", config, options))
        options["say"]("classes: 2")
        return types.SimpleNamespace(
            pack=Path("runs/x/pack.gopt.safetensors"),
            notices=("warning: few labels",),
            steps=60,
            best_step=48,
            seconds=12.34,
            temperature=0.756638,
            validation={"scores": {"mean_iou": 0.5}},
            test=self.test,
        )

    def check_training(self, config: TrainConfig, **options: Any) -> None:
        self.calls.append(("check", config, options))
        options["say"]("classes: 3")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "gopt_geo.api", recorder)
    monkeypatch.setattr(gopt_geo, "api", recorder, raising=False)
    monkeypatch.chdir(tmp_path)
    return recorder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> str:
    found = run("train", *arguments)
    assert found.exit_code == 2, found.output
    assert found.stderr.count("\n") == 1
    return found.stderr.removeprefix("error: ").rstrip()


@pytest.mark.brief
def test_a_scene_by_options_alone(api: Recorder) -> None:
    found = run(
        "train", "--aoi", "a.geojson", "--optical", "o.tif", "--sar", "s.tif", "--labels", "l.gpkg", "-o", "runs/x"
    )
    assert found.exit_code == 0, found.output
    ((verb, config, options),) = api.calls
    assert verb == "train"
    scene = SceneConfig(aoi="a.geojson", optical="o.tif", sar="s.tif", labels="l.gpkg")
    assert config == TrainConfig(scene=scene, output="runs/x")
    assert callable(options.pop("progress"))
    assert callable(options.pop("say"))
    assert options == {"resume": False, "overwrite": False}
    assert found.stdout == "runs/x/pack.gopt.safetensors\n"
    assert found.stderr.splitlines() == [
        "classes: 2",
        "warning: few labels",
        "note: 60 steps in 12.3 s, of which step 48 is kept, validation mIoU 0.5000, test mIoU 0.2500,"
        " temperature 0.757",
    ]
    for nothing in (None, {"scores": {"mean_iou": None}}):
        api.test = nothing
        said = run("train", "--optical", "o.tif", "--labels", "l.gpkg", "-o", "runs/x").stderr
        assert said.endswith("kept, validation mIoU 0.5000, temperature 0.757\n")


@pytest.mark.brief
def test_every_option_reaches_its_key(api: Recorder) -> None:
    options = {
        "--aoi": "9,48,10,49",
        "--aoi-crs": "EPSG:4326",
        "--optical": "o.tif",
        "--sar": "s.tif",
        "--labels": "l.gpkg",
        "--class-field": "kind",
        "--optical-bands": "4,3,2",
        "--sar-bands": "VV",
        "--optical-units": "dn10000",
        "--sar-units": "power",
        "--sensor": "sentinel-2-l2a",
        "--sar-sensor": "sentinel-1-rtc",
        "--cloud-mask": "c.tif",
        "--cloud-mask-kind": "qa-pixel",
        "--grid": "sar",
        "--resolution": "12.5",
        "--classes": "classes.yaml",
        "--shares": "0.5,0.25,0.25",
        "--buffer": "3",
        "--block": "64",
        "--backbone": "timm:x",
        "--backbone-weights": "w.safetensors",
        "--modalities": "sar, optical",
        "--tile-size": "480x640",
        "--batch": "6",
        "--steps": "9",
        "--learning-rate": "1e-4",
        "--loss": "cross_entropy+dice",
        "--precision": "bf16",
        "--device": "cpu",
        "--devices": "2",
        "--workers": "0",
        "--seed": "5",
        "--title": "mine",
        "--output": "runs/x",
    }
    pairs = [part for pair in options.items() for part in pair]
    found = run("train", *pairs, "--coregister", "--class-weights", "--set", "training.clip=null")
    assert found.exit_code == 0, found.output
    config = api.calls[0][1]
    assert config.scene == SceneConfig(
        aoi="9,48,10,49",
        aoi_crs="EPSG:4326",
        optical="o.tif",
        sar="s.tif",
        labels="l.gpkg",
        class_field="kind",
        optical_bands="4,3,2",
        sar_bands="VV",
        optical_units="dn10000",
        sar_units="power",
        sensor="sentinel-2-l2a",
        sar_sensor="sentinel-1-rtc",
        cloud_mask="c.tif",
        cloud_mask_kind="qa-pixel",
        grid="sar",
        resolution=12.5,
        coregister=True,
    )
    assert config.split == SplitConfig(shares=(0.5, 0.25, 0.25), buffer=3, block=64)
    assert config.training == OptimisationConfig(
        tile_size=(480, 640),
        batch=6,
        steps=9,
        learning_rate=1e-4,
        loss="cross_entropy+dice",
        precision="bf16",
        accelerator="cpu",
        devices=2,
        workers=0,
        seed=5,
        class_weights=True,
        clip=None,
    )
    assert (config.model.backbone, config.model.backbone_weights) == ("timm:x", "w.safetensors")
    assert config.model.modalities == ("sar", "optical")
    assert (config.classes, config.title, config.output) == ("classes.yaml", "mine", "runs/x")


def test_every_key_of_an_option_is_one_of_the_configuration() -> None:
    assert set(KEYS.values()) <= {".".join(key) for key in keys_of(TrainConfig)}
    others = {"config", "settings", "print_config", "dry_run", "resume", "overwrite"}
    assert set(inspect.signature(train_command).parameters) == set(KEYS) | others


@pytest.mark.brief
def test_the_bare_command_needs_a_file_or_options(api: Recorder) -> None:
    said = refused("--aoi", "aoi.geojson")
    assert said.startswith(
        "train: it needs --optical or --sar and --labels, and there is no gopt-geo.yaml here; give them"
    )
    assert "gopt-geo init" in said
    assert "needs --labels, and" in refused("--optical", "o.tif")
    assert "needs --optical or --sar, and" in refused("--labels", "l.tif")
    assert refused("--optical", "o.tif", "--labels", "l.tif") == (
        "train: no folder for the run is named; give -o runs/NAME, or output: in a configuration"
    )
    assert api.calls == []


@pytest.mark.brief
def test_the_bare_command_takes_the_project_file(api: Recorder, tmp_path: Path) -> None:
    (tmp_path / "gopt-geo.yaml").write_text(PROJECT)
    found = run("train", "--aoi", "aoi.geojson", "--epochs", "3")
    assert found.exit_code == 0, found.output
    config = api.calls[0][1]
    assert config.scene == SceneConfig(optical="o.tif", labels="l.tif", aoi="aoi.geojson")
    assert (config.training.steps, config.training.epochs) == (None, 3)
    assert config.output == "runs/mine"
    assert found.stderr.splitlines()[0] == "note: configuration gopt-geo.yaml"


def test_a_named_configuration_goes_before_the_project_file(api: Recorder, tmp_path: Path) -> None:
    (tmp_path / "gopt-geo.yaml").write_text("this isn't read: [")
    found = run("train", "--config", str(CONFIGS / "ombria.yaml"), "--root", "elsewhere", "-o", "runs/o")
    assert found.exit_code == 0, found.output
    config = api.calls[0][1]
    assert (config.dataset, config.root, config.output) == ("pair_folder", "elsewhere", "runs/o")
    assert config.classes == (
        ClassEntry(value=0, name="not flooded", color="#c9c9c9"),
        ClassEntry(value=255, name="flood", color="#2166ac"),
    )


def test_switches_can_be_turned_off(api: Recorder, tmp_path: Path) -> None:
    text = "scene: {optical: o, sar: s, labels: l, coregister: true}\ntraining: {class_weights: true}\noutput: x\n"
    (tmp_path / "gopt-geo.yaml").write_text(text)
    assert run("train", "--no-coregister", "--no-class-weights").exit_code == 0
    config = api.calls[0][1]
    assert config.scene is not None
    assert not config.scene.coregister
    assert not config.training.class_weights


@pytest.mark.brief
def test_resume_takes_the_runs_own_configuration(api: Recorder, tmp_path: Path) -> None:
    own = TrainConfig(scene=SceneConfig(optical="own.tif", labels="l.tif"), output="runs/x")
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/config.yaml").write_text(dump_config(own, comments=False))
    (tmp_path / "gopt-geo.yaml").write_text(PROJECT)
    assert run("train", "--resume", "-o", "runs/x").exit_code == 0
    assert api.calls[-1][1] == own
    assert api.calls[-1][2]["resume"] is True
    assert run("train", "--resume").exit_code == 0
    assert api.calls[-1][1].output == "runs/mine"
    missing = run("train", "--resume", "-o", "runs/none")
    assert missing.exit_code == 2
    assert "runs/none: there is no run to go on with; check -o" in missing.stderr
    assert run("train", "-o", "runs/x", "--overwrite").exit_code == 0
    assert api.calls[-1][1].scene == SceneConfig(optical="o.tif", labels="l.tif")
    assert api.calls[-1][2]["overwrite"] is True


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Terminated(15), 143)])
def test_a_stop_between_the_steps_tells_what_stays(
    api: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: KeyboardInterrupt, code: int
) -> None:
    def interrupt(config: TrainConfig, **options: Any) -> None:
        raise stop

    monkeypatch.setattr(api, "train", interrupt)
    arguments = ("train", "--optical", "o.tif", "--labels", "l.tif", "-o", "runs/x")
    found = run(*arguments)
    assert (found.exit_code, found.stderr.endswith("nothing was written\n")) == (code, True)
    (tmp_path / "runs/x/checkpoints").mkdir(parents=True)
    found = run(*arguments)
    assert found.exit_code == code
    assert re.fullmatch(
        r"error: stopped by SIG\w+; the run in runs/x stays, and goes on with --resume .*\n", found.stderr
    )


def test_dry_run_reports_and_needs_no_output(api: Recorder) -> None:
    found = run("train", "--optical", "o.tif", "--labels", "l.tif", "--dry-run")
    assert found.exit_code == 0, found.output
    assert [call[0] for call in api.calls] == ["check"]
    assert (found.stdout, found.stderr) == ("", "classes: 3\n")


@pytest.mark.brief
def test_print_config_is_whole_and_reads_back(api: Recorder, tmp_path: Path) -> None:
    found = run("train", "--optical", "o.tif", "--labels", "l.tif", "--steps", "3", "--print-config")
    assert (found.exit_code, found.stderr) == (0, "")
    path = tmp_path / "printed.yaml"
    path.write_text(found.stdout)
    scene = SceneConfig(optical="o.tif", labels="l.tif")
    assert read_train_config(path) == TrainConfig(scene=scene, training=OptimisationConfig(steps=3))
    assert run("train", "--config", "printed.yaml", "--print-config").stdout == found.stdout
    assert "learning_rate: 0.003 # " in found.stdout
    assert api.calls == []


def test_print_config_without_anything_shows_examples(api: Recorder, tmp_path: Path) -> None:
    found = run("train", "--print-config")
    assert found.exit_code == 0
    assert found.stderr == "note: not all is named; examples stand in: optical, sar, labels, class_field\n"
    (tmp_path / "x.yaml").write_text(found.stdout)
    assert read_train_config(tmp_path / "x.yaml").scene is not None


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--steps", "0"], "--steps: training.steps: Input should be greater than or equal to 1, not 0"),
        (["--steps", "3", "--epochs", "3"], "--epochs: training.epochs: steps is there, too"),
        (["--shares", "0.7,x,0.1"], "--shares 0.7,x,0.1: it can't be read; give three numbers"),
        (["--shares", "0.7,0.3"], "--shares 0.7,0.3: it holds 2 numbers; give three numbers"),
        (["--tile-size", "big"], "--tile-size big: it can't be read; give pixels such as 256"),
        (["--tile-size", "4"], "--tile-size: training.tile_size: a side of 4 to 4 pixels"),
        (["--tile-size", "64x64x64"], "--tile-size 64x64x64: it holds 3 numbers; give pixels such as 256"),
        (["--modalities", "optical,nir"], "--modalities: model.modalities.1: the scene has no nir"),
        (["--seed", "-1"], "--seed: training.seed: Input should be greater than or equal to 0"),
        (["--learning-rate", "nan"], "--learning-rate: training.learning_rate"),
        (["--sar-units", "db"], "--sar-units: scene.sar_units: there is no sar source"),
        (["--root", "data"], "--root: root: it is of a data set, and this is a scene"),
        (["--set", "training.clp=1"], "--set training.clp: training.clp: unknown key; did you mean training.clip?"),
        (["--set", "clip"], "--set clip: it isn't KEY=VALUE"),
        (["--set", "model.class_path=os.system"], "--set model.class_path: model.class_path: unknown key"),
    ],
)
def test_faulty_options_are_named(api: Recorder, arguments: list[str], found: str) -> None:
    assert refused("--optical", "o.tif", "--labels", "l.tif", "-o", "x", *arguments).startswith(found)
    assert api.calls == []


@pytest.mark.parametrize("wrong", [["--loss", "hinge"], ["--precision", "int8"], ["--device", "tpu"], ["--batch", "x"]])
def test_unknown_choices_are_usage_errors(api: Recorder, wrong: list[str]) -> None:
    assert run("train", "--optical", "o.tif", "--labels", "l.tif", "-o", "x", *wrong).exit_code == 2
    assert api.calls == []


@pytest.mark.brief
def test_faulty_files_are_named_with_their_line(api: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "gopt-geo.yaml"
    for text, found in (
        (
            "scene: {optical: o, labels: l}\ntrianing: {}\n",
            "gopt-geo.yaml, line 2: trianing: unknown key; did you mean tra",
        ),
        ("scene: {optical: o, labels: l}\ndataset: mfnet\n", "gopt-geo.yaml, line 2: dataset: scene is there, too"),
        ("scene: [", "gopt-geo.yaml, line 1: it isn't YAML"),
        ("scene: {optical: o, labels: l}\ntraining: {batch: eight}\n", "gopt-geo.yaml, line 2: training.batch: Input"),
    ):
        path.write_text(text)
        assert refused("-o", "x").startswith(found)
    assert refused("--config", "nothing.yaml").startswith("nothing.yaml: it can't be read (No such file")
    path.unlink()
    path.symlink_to("/dev/zero")
    assert refused("-o", "x") == "gopt-geo.yaml: it is no regular file; name a file"
    said = refused("--config", str(CONFIGS / "mfnet.yaml"), "--sar", "s.tif")
    assert said.startswith("--sar: it is of a scene, and ")


@pytest.mark.brief
def test_init_writes_a_file_that_trains(api: Recorder, tmp_path: Path) -> None:
    found = run("init", "--optical", "o.tif", "--sar", "s.tif", "--labels", "l.gpkg", "--class-field", "kind")
    assert (found.exit_code, found.stdout, found.stderr) == (0, "gopt-geo.yaml\n", "")
    text = (tmp_path / "gopt-geo.yaml").read_text()
    assert "\n  # batch: null # " in text
    assert run("train", "--aoi", "aoi.geojson").exit_code == 0
    scene = SceneConfig(optical="o.tif", sar="s.tif", labels="l.gpkg", class_field="kind", aoi="aoi.geojson")
    assert api.calls[0][1] == TrainConfig(scene=scene, output="runs/first")


def test_init_replaces_nothing(api: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "gopt-geo.yaml"
    path.write_text("mine")
    found = run("init")
    assert found.exit_code == 2
    assert re.fullmatch(
        r"error: .*gopt-geo.yaml: exists; use --overwrite or another path", found.stderr.splitlines()[-1]
    )
    assert path.read_text() == "mine"
    assert run("init", "--overwrite").exit_code == 0
    assert read_train_config(path).output == "runs/first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["gopt-geo.yaml"]


def test_init_refuses_what_train_would(api: Recorder, tmp_path: Path) -> None:
    found = run("init", "--optical", "o.tif", "--labels", "l.tif", "--sar-units", "db")
    assert found.exit_code == 2
    assert found.stderr.startswith("error: --sar-units: scene.sar_units: there is no sar source")
    assert run("init", "x.txt").exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.brief
def test_the_sample_folder_trains_bare(api: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLES)
    found = run("train", "--aoi", "aoi.geojson")
    assert found.exit_code == 0, found.output
    config = api.calls[0][1]
    assert config.scene is not None
    for name in ("optical", "sar", "labels", "aoi"):
        assert (SAMPLES / getattr(config.scene, name)).is_file()
    assert config.output == "runs/sample"
