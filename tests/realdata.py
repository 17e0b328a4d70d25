"""Where the real rasters lie, and what the awkward ones among them must be refused for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("GOPT_GEO_DATA") or Path(__file__).parents[2] / "shared/data")
ROBUSTNESS = DATA / "robustness"
ROBUSTNESS_FILES = sorted(path.name for path in ROBUSTNESS.glob("*.tif"))
# What the files themselves say is wrong with them; all others must be read.
REFUSED = {
    "all-nodata.tif": "no pixel carries data",
    "cog_cmap.tif": "colour table",
    "corrupt.tif": "can't be read",
    "float_nan.tif": "no CRS",
    "inverted_lat.tif": "no pixel carries data",
    "rotated.tif": "no CRS",
}


def needs(folder: Path) -> list[pytest.MarkDecorator]:
    """Marks of tests that read real rasters: skipped with a reason where the folder is missing."""
    reason = f"no real rasters at {folder}; set GOPT_GEO_DATA"
    return [pytest.mark.realdata, pytest.mark.skipif(not folder.is_dir(), reason=reason)]
