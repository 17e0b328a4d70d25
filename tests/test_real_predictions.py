"""The main job on real rasters: results on the scene grid, valid COGs, legends that GDAL's own tools show."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from gopt_geo.grid import corner_distance, grid_of
from gopt_geo.outputs.legend import read_legend
from gopt_geo.prediction import PredictReport, predict
from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES
from realdata import DATA, needs

pytestmark = needs(DATA)
Run = Callable[..., PredictReport]
VOLKOV = sorted(path.name[:3] for path in (DATA / "volkov").glob("*_opt.tif"))


def check(result: Path, optical: Path) -> np.ndarray:
    """Check grid, layout and legend of a map on the optical raster's grid; return its classes."""
    with rasterio.open(result) as found, rasterio.open(optical) as wanted:
        assert corner_distance(grid_of(wanted), grid_of(found)) < 1e-6
        np.testing.assert_allclose(found.transform[:6], wanted.transform[:6], rtol=1e-12)
        assert found.crs == wanted.crs
        assert (found.shape, found.count, found.dtypes, found.nodata) == (wanted.shape, 1, ("uint8",), 255)
        colors = found.colormap(1)
        classes = found.read(1)
    assert cog_validate(result, strict=True, quiet=True) == (True, [], [])
    for value, color in zip(CLASS_VALUES, CLASS_COLORS, strict=True):
        assert colors[value] == (*bytes.fromhex(color[1:]), 255)
    assert [(e.value, e.name) for e in read_legend(result)] == list(zip(CLASS_VALUES, CLASS_NAMES, strict=True))
    assert {*np.unique(classes)} <= {*CLASS_VALUES, 255}
    return classes


@pytest.mark.parametrize("number", VOLKOV)
def test_volkov(run: Run, tmp_path: Path, number: str) -> None:
    """Sentinel-2 RGB bytes and Sentinel-1 VH bytes, on grids of their own."""
    optical, sar = (DATA / "volkov" / f"{number}_{kind}.tif" for kind in ("opt", "sar"))
    options: dict[str, Any] = {"tile_size": 256, "overlap": 32, "allow_resolution": True}
    report = run(optical=optical, sar=sar, optical_bands=None, optical_units="byte", sar_units="raw", **options)
    assert any("--sar-units raw" in notice for notice in report.notices)
    assert (check(tmp_path / "map.tif", optical) != 255).all()


def test_volkov_with_the_embedded_pack(tmp_path: Path) -> None:
    optical, sar = (DATA / "volkov" / f"{VOLKOV[0]}_{kind}.tif" for kind in ("opt", "sar"))
    units = {"optical_units": "byte", "sar_units": "raw"}
    report = predict(
        optical, sar, [tmp_path / "map.tif"], **units, overlap=0, batch_size=2, allow_resolution=True, device="cpu"
    )
    assert any(n.startswith("warning: pack 'demo': demo, trained on simulated scenes") for n in report.notices)
    assert (check(tmp_path / "map.tif", optical) != 255).all()


def test_spacenet6(tmp_path: Path) -> None:
    """Half-metre bounds apart, SAR with 39 % NaN, and pixels of 4.5 m."""
    optical, sar = DATA / "spacenet6/rgb_unmasked.tif", DATA / "spacenet6/sar_masked.tif"
    options: dict[str, Any] = {"optical_units": "byte", "sar_bands": "1", "sar_units": "db", "device": "cpu"}
    predict(optical, sar, [tmp_path / "map.tif"], **options, allow_resolution=True)
    assert (check(tmp_path / "map.tif", optical) != 255).all(), "the optical raster has data everywhere"
    clouds = tmp_path / "clouds.tif"
    with rasterio.open(optical) as file:
        profile = {**file.profile, "count": 1, "photometric": None}
    with rasterio.open(clouds, "w", **profile) as file:
        file.write(np.ones((1, 200, 200), np.uint8))
    predict(optical, sar, [tmp_path / "sar.tif"], **options, allow_resolution=True, cloud_mask=clouds)
    with rasterio.open(sar) as file:
        missing = np.isnan(file.read(1))
    assert 0.3 < missing.mean() < 0.5
    differing = (check(tmp_path / "sar.tif", optical) == 255) != missing
    assert differing.mean() < 0.02, "the grids are 0.06 m apart: only the mask's border may fall elsewhere"


@pytest.mark.parametrize("month", ["04", "06", "08", "09"])
def test_worldcereal(tmp_path: Path, month: str) -> None:
    """Bands by number: B04, B03, B02 of nine; nodata 65535."""
    optical, sar = (DATA / "worldcereal" / f"{kind}_2021-{month}-01.tif" for kind in ("S2", "S1"))
    outputs = [tmp_path / "map.tif", tmp_path / "map.gpkg"]
    bands = {"optical_bands": "3,2,1", "sar_bands": "1"}
    report = predict(
        optical, sar, outputs, **bands, optical_units="dn10000", sar_units="db", device="cpu", tile_size=64
    )
    assert (check(tmp_path / "map.tif", optical) != 255).all()
    assert report.polygons[0] > 0


def test_bigearthnet(tmp_path: Path) -> None:
    """Sentinel-2 bands as single files under a VRT, Sentinel-1 VV beside it."""
    folder = DATA / "bigearthnet/33UUP_87_48"
    bands = [next(folder.glob(f"*_B{number}.tif")) for number in ("04", "03", "02")]
    (sar,) = folder.glob("*_VV.tif")
    optical = tmp_path / "rgb.vrt"
    optical.write_text(stacked(bands), encoding="utf-8")
    predict(optical, sar, [tmp_path / "map.tif"], optical_units="dn10000", sar_units="db", device="cpu", tile_size=64)
    assert (check(tmp_path / "map.tif", optical) != 255).all()


def stacked(files: list[Path]) -> str:
    """A VRT of the first bands of some files of one grid."""
    with rasterio.open(files[0]) as first:
        size = f'rasterXSize="{first.width}" rasterYSize="{first.height}"'
        srs, transform = first.crs.to_wkt(), ", ".join(repr(v) for v in first.transform.to_gdal())
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><SimpleSource><SourceFilename>{f}</SourceFilename>'
        f"<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for i, f in enumerate(files, 1)
    )
    srs = srs.replace('"', "&quot;")
    return f"<VRTDataset {size}><SRS>{srs}</SRS><GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>"


def test_complex_sar_turned_by_a_quarter(run: Run, pixels: Any, tmp_path: Path) -> None:
    folder = DATA / "spacenet6"
    options = {"optical_bands": None, "optical_units": "byte", "allow_resolution": True}
    report = run(optical=folder / "rgb_unmasked.tif", sar=folder / "sar_hh.tif", **options)
    assert report.shared > 0
    assert not [line for line in report.notices if "taken as dB" in line]  # of complex values the amplitude counts
    assert (pixels(tmp_path / "map.tif") != 255).all()


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="GDAL's command-line tools aren't installed")
def test_gdals_own_tools_show_the_legend(run: Run, tmp_path: Path) -> None:
    optical, sar = DATA / "spacenet6/rgb_unmasked.tif", DATA / "spacenet6/sar_masked.tif"
    options: dict[str, Any] = {"optical_bands": None, "optical_units": "byte", "sar_bands": "1", "sar_units": "db"}
    run(optical=optical, sar=sar, **options, allow_resolution=True)
    done = subprocess.run(
        ["gdalinfo", "-json", str(tmp_path / "map.tif")], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    (band,) = found["bands"]
    assert (band["type"], band["noDataValue"], band["colorInterpretation"]) == ("Byte", 255, "Palette")
    text = subprocess.run(
        ["gdalinfo", str(tmp_path / "map.tif")], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "LAYOUT=COG" in text
    for value, name, color in zip(CLASS_VALUES, CLASS_NAMES, CLASS_COLORS, strict=True):
        assert f"<F>{name}</F>" in text, "the raster attribute table"
        assert f"{value:3d}: {name}\n" in text, "the category names"
        assert f"{value:3d}: {','.join(str(v) for v in bytes.fromhex(color[1:]))},255\n" in text, "the colour table"
