"""Pictures come out whatever the settings of matplotlib and the texts in them, and without a word of its own."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from gopt_geo.errors import DrawingError, OutputError
from gopt_geo.outputs.drawing import drawing, printable
from gopt_geo.outputs.groups import GroupPanel, draw_groups
from gopt_geo.outputs.legend import LegendClass
from gopt_geo.outputs.preview import preview

pytest.importorskip("matplotlib")
ODD = ["a $5 and $x_{$ b", "\u6c34\u4f53", "\x1b[31mred\x1b[0m", "\udcff", "_hidden", "two\nlines", "%s {0} \\frac{"]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_any_text_is_drawn_as_it_is_and_silently(tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str) -> None:
    numbers = np.ones((4, 6), np.int16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_groups(tmp_path / "g.png", None, None, [GroupPanel(text, numbers)], 3, heading=f"{text}: columns")
        preview(tmp_path / "p.png", None, None, np.zeros((4, 6), np.uint8), None, [LegendClass(0, text, "#ffcc00")])
    for name in ("g.png", "p.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert capfd.readouterr() == ("", "")


def test_what_has_no_shape_is_replaced() -> None:
    assert printable("a\x1b[3m\udcff b\n\tc") == "a\ufffd[3m\ufffd b  c"
    assert printable("\u6c34 \xe4 $x$") == "\u6c34 \xe4 $x$"


_SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from gopt_geo.outputs.groups import GroupPanel, draw_groups
draw_groups(Path(sys.argv[1]), None, None, [GroupPanel("layer 1", np.ones((4, 6), np.int16))], 3)
assert "matplotlib.pyplot" not in sys.modules
import os
print(os.environ.get("MPLBACKEND"), end="")
"""


@pytest.mark.brief
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MPLBACKEND", "nonsense"),
        ("MPLBACKEND", "module://matplotlib_inline.backend_inline"),
        ("MPLBACKEND", ""),
        ("MPLBACKEND", "TkAgg"),
        ("MPLCONFIGDIR", "/proc/nowhere"),
        ("MATPLOTLIBRC", "/proc/version"),
    ],
)
def test_settings_of_the_environment_are_no_matter(tmp_path: Path, variable: str, value: str) -> None:
    env = {name: kept for name, kept in os.environ.items() if not name.startswith(("MPL", "MATPLOTLIB"))}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "g.png")],
        env={**env, variable: value, "HOME": "/proc/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (value if variable == "MPLBACKEND" else "None")
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")


def test_settings_of_the_process_are_kept_and_not_used(tmp_path: Path) -> None:
    import matplotlib as mpl

    numbers = np.ones((4, 6), np.int16)
    draw_groups(tmp_path / "a.png", None, None, [GroupPanel("layer 1", numbers)], 3)
    with mpl.rc_context({"text.usetex": True, "figure.facecolor": "red", "font.size": 40}):
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        draw_groups(tmp_path / "b.png", None, None, [GroupPanel("layer 1", numbers)], 3)
        assert mpl.rcParams["text.usetex"] is True
        assert mpl.rcParams["font.size"] == 40
        assert logging.getLogger("matplotlib").level == logging.WARNING
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_whatever_fails_is_one_error_but_a_full_disk_stays_one(tmp_path: Path) -> None:
    for odd in (ValueError("too large"), MemoryError("too large"), PermissionError("too large"), KeyError("too large")):
        found = rf"can't be drawn \({type(odd).__name__}: '?too large'?\); leave X out"
        with pytest.raises(DrawingError, match=found), drawing(tmp_path / "a.png", "X"):
            raise odd
    for kept in (OSError(errno.ENOSPC, "full"), OutputError("a", "b", "c"), KeyboardInterrupt()):
        with pytest.raises(type(kept)) as caught, drawing(tmp_path / "a.png", "X"):
            raise kept
        assert caught.value is kept
