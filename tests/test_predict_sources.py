"""Maps from sources of every kind are those of the plain rasters they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from gopt_geo.errors import GoptGeoError, OutputError
from gopt_geo.prediction import PredictReport

Run = Callable[..., PredictReport]
Pixels = Callable[..., np.ndarray]
Files = dict[str, Path]


@pytest.fixture
def folder(aligned_scene: Files, tmp_path: Path) -> Path:
    """The bands of a pair of rasters, a file each."""
    place = tmp_path / "bands"
    place.mkdir()
    for raster, bands in (("scene", ("B04", "B03", "B02")), ("sar", ("VV",))):
        with rasterio.open(aligned_scene[raster]) as file:
            for index, band in enumerate(bands, start=1):
                options = {**file.profile, "count": 1}
                with rasterio.open(place / f"T32_{band}.tif", "w", **options) as single:
                    single.write(file.read(index), 1)
                    single.scales, single.offsets = file.scales[index - 1 : index], file.offsets[index - 1 : index]
                    single.units = file.units[index - 1 : index]
    return place


def test_a_folder_of_bands(run: Run, aligned_scene: Files, folder: Path, pixels: Pixels, tmp_path: Path) -> None:
    run("rasters.tif", optical=aligned_scene["scene"], sar=aligned_scene["sar"])
    report = run("bands.tif", optical=folder, sar=folder, sar_bands="VV")
    np.testing.assert_array_equal(pixels(tmp_path / "bands.tif"), pixels(tmp_path / "rasters.tif"))
    assert report.shared > 0.5
    listed = ",".join(str(folder / f"T32_{band}.tif") for band in ("B04", "B03", "B02"))
    run("list.tif", optical=listed, sar=folder / "T32_VV.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "list.tif"), pixels(tmp_path / "rasters.tif"))
    with rasterio.open(tmp_path / "list.tif") as file:
        assert file.tags()["GOPT_GEO_INPUT_OPTICAL"] == "T32_B04.tif,T32_B03.tif,T32_B02.tif"


def test_a_result_never_replaces_a_band(run: Run, folder: Path) -> None:
    before = (folder / "T32_B03.tif").read_bytes()
    with pytest.raises(OutputError, match="also an input"):
        run(str(folder / "T32_B03.tif"), optical=folder, sar=folder / "T32_VV.tif", overwrite=True)
    assert (folder / "T32_B03.tif").read_bytes() == before


def test_nothing_is_written_where_a_band_is_missing(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "T32_B03.tif").unlink()
    with pytest.raises(GoptGeoError, match="choose with --optical-bands from B02, B04, VV"):
        run("map.tif", optical=folder, sar=folder / "T32_VV.tif")
    assert not (tmp_path / "map.tif").exists()
