"""How pictures are drawn with matplotlib: the same everywhere, whatever its settings, and without a word of its own."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gopt_geo.errors import DrawingError, GoptGeoError, OutputError

__all__ = ["drawing", "new_figure", "printable"]

# Beside matplotlib's own font, which has no ideographs: of those on this machine, the first.
_WIDE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
)


@contextmanager
def drawing(output: Path, leave_out: str) -> Iterator[None]:
    """Draw inside this: without the user's settings of matplotlib, its warnings and log, and without formulas.

    Parameters
    ----------
    output
        The picture, for messages.
    leave_out
        The remedy: which option to leave out.

    Raises
    ------
    OutputError
        If matplotlib isn't installed.
    DrawingError
        If it fails, for whatever reason but a full disk.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            logger.setLevel(logging.ERROR)  # a font cache that can't be kept costs time and nothing else
            matplotlib = _load()
            with matplotlib.rc_context():
                matplotlib.rcdefaults()
                matplotlib.rcParams.update({"text.parse_math": False, "font.family": _fonts()})
                yield
    except ModuleNotFoundError as error:
        raise OutputError(
            output, "matplotlib isn't installed", f"pip install 'gopt-geo[report]', or leave {leave_out} out"
        ) from error
    except GoptGeoError:
        raise
    except Exception as error:  # of a foreign library, in the last step of a long run
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        found = f"the picture can't be drawn ({type(error).__name__}: {error})"
        raise DrawingError(output, found, f"leave {leave_out} out, and please report this") from error
    finally:
        logger.setLevel(level)


def new_figure(width: float, height: float) -> Any:
    """Return a figure of this size in inches that is drawn into memory; no window, no display, no backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    return figure


def printable(text: str) -> str:
    """Replace what has no shape (control characters, halves of characters), and bring line breaks to spaces."""
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def _load() -> Any:
    """Import matplotlib, which trips over a value of MPLBACKEND that it doesn't know."""
    if "matplotlib" not in sys.modules:
        backend = os.environ.pop("MPLBACKEND", None)
        try:
            import matplotlib as mpl
        finally:
            if backend is not None:
                os.environ["MPLBACKEND"] = backend
        if backend:
            with suppress(ValueError):  # for whoever draws elsewhere in this process
                mpl.rcParams["backend"] = backend
    import matplotlib as mpl

    return mpl


def _fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *[name for name in _WIDE if name in known][:1]]
