"""The command line's frame: exit codes, messages, signals, start-up cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gopt_geo.errors import SourceError
from gopt_geo_cli import guard, main

HEAVY = (
    "torch",
    "rasterio",
    "timm",
    "geopandas",
    "numpy",
    "pandas",
    "xarray",
    "dask",
    "lightning",
    "matplotlib",
    "rich",
)
REPO = Path(__file__).parents[2]
COMMANDS = ("predict", "init", "train", "evaluate", "sample", "vectorize", "info", "simulate")


def _env() -> dict[str, str]:
    # Unbuffered text output would drop what a closed pipe refuses, without an error: Python's doing, not ours.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return inherited | {"PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "cli")])}


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=_env(),
    )


# A stand-in for gopt_geo.api whose `info` does what the test's first argument says.
FAKE_API = """
import os, signal, sys, time, types
from gopt_geo.errors import SourceError
def info(path):
    how = os.environ["HOW"]
    if how == "refuse":
        raise SourceError("a\\nb.tif", "truncated", "download it again")
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT); time.sleep(30)
    if how == "wait":
        try:
            print("ready", file=sys.stderr, flush=True); time.sleep(30)
        finally:
            print("cleaned", file=sys.stderr, flush=True)
    return {"line %d" % i: "x" * 80 for i in range(20000)}
import gopt_geo
api = types.ModuleType("gopt_geo.api"); api.info = info
sys.modules["gopt_geo.api"] = gopt_geo.api = api
sys.argv[1:] = ["info", "x.tif"]
from gopt_geo_cli.main import main
main()
"""


def _fake(how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FAKE_API],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_env() | {"HOW": how},
    )


@pytest.mark.brief
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    """Start-up stays cheap: a count of modules rather than seconds, which a busy machine would spoil."""
    run = _python(
        f"""
        import sys
        from gopt_geo_cli.main import main
        try:
            main()
        finally:
            print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules], len(sys.modules))
        """,
        *arguments,
    )
    assert run.returncode == 0, run.stderr
    *_, last = run.stdout.splitlines()
    assert last.startswith("HEAVY [] ")
    assert int(last.split()[-1]) < 400  # 230 when this was written; torch alone brings 1,000


def test_help_names_every_command() -> None:
    text = CliRunner().invoke(main.app, ["--help"]).output
    for name in COMMANDS:
        assert f"  {name} " in text


@pytest.mark.brief
def test_user_error_is_one_line_and_exit_code_2() -> None:
    out, err = _fake("refuse").communicate(timeout=60)
    assert (out, err) == ("", "error: a b.tif: truncated; download it again\n")


def test_user_error_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    import gopt_geo

    def refuse(path: Path) -> dict[str, object]:
        raise SourceError(path, "truncated", "download it again")

    api = types.SimpleNamespace(info=refuse)
    monkeypatch.setattr(gopt_geo, "api", api, raising=False)
    monkeypatch.setitem(sys.modules, "gopt_geo.api", api)
    run = CliRunner().invoke(main.app, ["info", "x.tif"])
    assert run.exit_code == 2
    assert run.stderr == "error: x.tif: truncated; download it again\n"


def test_programming_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    import gopt_geo

    def fail(path: Path) -> dict[str, object]:
        raise ZeroDivisionError

    api = types.SimpleNamespace(info=fail)
    monkeypatch.setattr(gopt_geo, "api", api, raising=False)
    monkeypatch.setitem(sys.modules, "gopt_geo.api", api)
    assert isinstance(CliRunner().invoke(main.app, ["info", "x.tif"]).exception, ZeroDivisionError)


def test_interrupt_is_one_line_and_exit_code_130() -> None:
    process = _fake("interrupt")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "error: interrupted by Ctrl-C; nothing was written\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_termination_cleans_up(number: signal.Signals, code: int) -> None:
    process = _fake("wait")
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == f"cleaned\nerror: stopped by {number.name}; nothing was written\n"


def test_ignored_hangup_stays_ignored() -> None:
    """Under nohup a command goes on when its terminal closes."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with guard.on_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with guard.on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_closed_pipe_leaves_no_trace() -> None:
    process = _fake("print")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("line 0")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["nonsense"], ["predict", "a.tif"], ["info"], ["info", "a", "--nonsense"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main.app, arguments).exit_code == 2
