"""The sample scene in the repository is what its README says it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from gopt_geo import api

SAMPLES = Path(__file__).resolve().parents[1] / "sample_tiles"


@pytest.mark.brief
def test_the_stated_command_makes_the_sample_scene(tmp_path: Path) -> None:
    made = api.simulate_files(tmp_path / "again", seed=7, size=(512, 640), sar_crs="EPSG:4326")
    for stem, tolerance in (("labels", 0), ("clouds", 0), ("scene", 1), ("sar", 1 / 128)):
        with rasterio.open(made[stem]) as new, rasterio.open(SAMPLES / f"{stem}.tif") as kept:
            assert new.crs == kept.crs
            assert np.allclose(np.array(new.transform), np.array(kept.transform), rtol=1e-12)
            assert (new.descriptions, new.scales, new.units) == (kept.descriptions, kept.scales, kept.units)
            difference = np.abs(new.read().astype(np.float64) - kept.read())
            # Another numpy or scipy may round a value on a threshold to the other side: a few pixels, no more.
            assert (difference > tolerance).mean() < 1e-3
