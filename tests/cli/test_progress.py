"""Progress lines of runs whose output isn't a terminal."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest

from gopt_geo_cli.progress import PlainLines, progress_display, talking_display


@dataclass
class State:
    stage: str
    done: int
    total: int


def _lines(*events: tuple[float, int], total: int = 10_000_000, stage: str = "map") -> list[str]:
    """Play (seconds, pixels done) events against a clock of our own."""
    out, clock = io.StringIO(), [0.0]
    show = PlainLines("predict", out, now=lambda: clock[0])
    for seconds, done in events:
        clock[0] = seconds
        show(State(stage, done, total))
    return out.getvalue().splitlines()


@pytest.mark.brief
def test_rate_and_time_left() -> None:
    (line,) = _lines((0, 0), (20, 4_000_000))
    assert line == "predict: map 40 %, 4.00 of 10.00 megapixels, 0.2 megapixels/s, 0:30 left"


def test_a_line_every_ten_per_cent_but_at_most_one_a_second() -> None:
    slow = [(2.0 * i, 1_000_000 * i) for i in range(11)]
    assert len(_lines(*slow)) == 10
    fast = [(0.1 * i, 1_000_000 * i) for i in range(10)]
    assert _lines(*fast) == []


def test_a_line_every_ten_seconds_when_nothing_moves() -> None:
    assert len(_lines(*((float(i), 0) for i in range(31)))) == 3


def test_the_end_is_always_told() -> None:
    (line,) = _lines((0, 0), (0.5, 10_000_000))
    assert line == "predict: map 100 %, 10.00 of 10.00 megapixels, 20 megapixels/s"


def test_long_runs_show_hours() -> None:
    (line,) = _lines((0, 0), (3600, 1_000_000))
    assert line.endswith(", 9:00:00 left")


def test_empty_work_divides_by_nothing() -> None:
    assert len(_lines((0, 0), (20, 0), total=0)) == 1


def test_display_writes_plain_lines_when_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display("predict") as show:
        show(State("map", 0, 100))
        show(State("map", 100, 100))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("predict: map 100 %, ")


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress_display("predict") as show:
        for done in (0, 50, 100):
            show(State("map", done, 100))
    assert "map" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


@dataclass
class Training(State):
    loss: float | None = None
    miou: float | None = None
    unit: str = "steps"


@pytest.mark.brief
def test_a_training_tells_steps_loss_and_miou() -> None:
    out, clock = io.StringIO(), [0.0]
    show = PlainLines("train", out, now=lambda: clock[0])
    for seconds, state in (
        (0, Training("train", 0, 100)),
        (20, Training("train", 40, 100, 0.51234)),
        (20, Training("validate", 0, 5, unit="tiles")),
        (30, Training("validate", 5, 5, unit="tiles")),
        (31, Training("train", 41, 100, 0.5, 0.625)),
        (40, Training("train", 60, 100, 0.4, 0.625)),
    ):
        clock[0] = seconds
        show(state)
    assert out.getvalue().splitlines() == [
        "train: train 40 %, 40 of 100 steps, 2 steps/s, loss 0.5123, 0:30 left",
        "train: validate 100 %, 5 of 5 tiles, 0.5 tiles/s",
        "train: train 41 %, 41 of 100 steps, 1.32 steps/s, loss 0.5000, validation mIoU 0.6250, 0:45 left",
        "train: train 60 %, 60 of 100 steps, 1.5 steps/s, loss 0.4000, validation mIoU 0.6250, 0:27 left",
    ]


def test_a_stage_that_begins_anew_counts_anew() -> None:
    out, clock = io.StringIO(), [0.0]
    show = PlainLines("train", out, now=lambda: clock[0])
    for seconds, done in ((0, 0), (10, 5), (100, 0), (110, 5)):
        clock[0] = seconds
        show(Training("validate", done, 5, unit="tiles"))
    first, second = out.getvalue().splitlines()
    assert first == second == "train: validate 100 %, 5 of 5 tiles, 0.5 tiles/s"


def test_quick_repetitions_of_a_stage_are_passed_over() -> None:
    out, clock = io.StringIO(), [0.0]
    show = PlainLines("train", out, now=lambda: clock[0])
    for seconds, done in ((0, 0), (0.5, 5), (1, 0), (1.5, 5), (2, 0), (4, 5)):
        clock[0] = seconds
        show(Training("validate", done, 5, unit="tiles"))
    first, slow = out.getvalue().splitlines()
    assert first.endswith("10 tiles/s")
    assert slow.endswith("2.5 tiles/s")


def test_a_terminal_shows_figures_and_lines_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with talking_display("train") as (show, say):
        say("classes: [2] of 3")
        for done in (0, 50, 49, 100):
            show(Training("train", done, 100, 0.25, 0.75))
            show(Training("validate", 1, 2, unit="tiles"))
        show(Training("train", 100, 100, 0.25, 0.75))
    text = terminal.getvalue()
    assert "classes: [2] of 3" in text
    assert "loss 0.2500, validation mIoU 0.7500" in text
    assert "100%" in text


def test_lines_go_to_stderr_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with talking_display("train") as (_, say):
        say("classes: 2")
    assert capsys.readouterr() == ("", "classes: 2\n")
