"""Areas on the ellipsoid against independent geodesy."""

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer

from gopt_geo.grid import GeoBox
from gopt_geo.outputs.areas import region_areas

WHOLE = 1
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # affine's product


def area_of(grid: GeoBox) -> float:
    labels = np.full(grid.shape, WHOLE, np.int32)
    return float(region_areas(labels, 1, grid)[0])


@pytest.mark.brief
@pytest.mark.parametrize("latitude", [0.0, 47.0, -71.0])
@pytest.mark.parametrize("pixel", [1e-4, 1e-3])
def test_geographic_pixels_against_geodesics(latitude: float, pixel: float) -> None:
    """Geodesic edges leave the parallel by less than 1e-6 of so small a pixel's area."""
    grid = GeoBox((3, 4), Affine(pixel, 0, 179.9995, 0, -pixel, latitude), "EPSG:4326")
    labels = np.arange(1, 13, dtype=np.int32).reshape(3, 4)
    geod = Geod(ellps="WGS84")
    for label, area in enumerate(region_areas(labels, 12, grid)):
        row, col = divmod(label, 4)
        box = shapely.box(col, row, col + 1, row + 1)
        ring = shapely.segmentize(box, 1).exterior
        lon, lat = zip(*[grid.affine * xy for xy in ring.coords], strict=True)
        assert area == pytest.approx(abs(geod.polygon_area_perimeter(lon, lat)[0]), rel=1e-6)


def test_the_whole_earth() -> None:
    """Closed form for a spheroid: 2 pi a^2 (1 + (1 - e^2) / e artanh e)."""
    grid = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    a, e = 6378137.0, np.sqrt(2 / 298.257223563 - 1 / 298.257223563**2)
    assert area_of(grid) == pytest.approx(2 * np.pi * a**2 * (1 + (1 - e**2) / e * np.arctanh(e)), rel=1e-12)


@pytest.mark.brief
@pytest.mark.parametrize(
    ("crs", "origin"),
    [
        ("EPSG:32633", (166_000, 5_400_000)),  # the zone's western edge
        ("EPSG:32633", (500_000, 10_000)),
        ("EPSG:3857", (1_000_000, 8_000_000)),  # spherical formulas on the ellipsoid
        ("EPSG:3395", (1_000_000, 8_000_000)),
        ("EPSG:3413", (-2000, 2000)),  # around the pole
    ],
)
@pytest.mark.parametrize("affine", [Affine.scale(10, -10), Affine.rotation(31) * Affine.scale(25, -10)])
def test_projected_rasters_against_an_equal_area_projection(
    crs: str, origin: tuple[float, float], affine: Affine
) -> None:
    grid = GeoBox((300, 400), Affine.translation(*origin) * affine, crs)
    center = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*(grid.affine * (200, 150)))
    equal_area = CRS(f"+proj=laea +lon_0={center[0]} +lat_0={center[1]} +datum=WGS84")
    there = Transformer.from_crs(crs, equal_area, always_xy=True)
    ring = shapely.segmentize(shapely.box(0, 0, 400, 300), 2).exterior
    x, y = there.transform(*np.array([grid.affine * xy for xy in ring.coords]).T)
    assert area_of(grid) == pytest.approx(shapely.Polygon(np.stack((x, y), 1)).area, rel=1e-7)


def test_rotated_geographic_pixels() -> None:
    upright = GeoBox((200, 200), Affine(1e-4, 0, 8, 0, -1e-4, 47), "EPSG:4326")
    center = upright.affine * (100, 100)
    turned = GeoBox((200, 200), Affine.rotation(40, center) * upright.affine, "EPSG:4326")
    assert area_of(turned) == pytest.approx(area_of(upright), rel=1e-6)


def test_regions_add_up() -> None:
    grid = GeoBox((700, 90), Affine(10, 0, 3e5, 0, -10, 5e6), "EPSG:32633")
    labels = np.random.default_rng(0).integers(0, 6, grid.shape, dtype=np.int32)
    parts = region_areas(labels, 5, grid)
    assert parts.sum() == pytest.approx(region_areas((labels > 0).astype(np.int32), 1, grid)[0], rel=1e-12)


def test_without_a_crs_there_is_no_area() -> None:
    assert np.isnan(area_of(GeoBox((2, 2), Affine.identity(), None)))


def test_feet_are_not_metres() -> None:
    local = CRS.from_wkt(
        'ENGCRS["site",EDATUM["x"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["foot",0.3048]]'
    )
    assert area_of(GeoBox((2, 2), Affine.scale(10, -10), local)) == pytest.approx(400 * 0.3048**2)
