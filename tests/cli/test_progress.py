"""Progress lines of runs whose output isn't a terminal."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest

from gopt_geo_cli.progress import PlainLines, progress_display


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
