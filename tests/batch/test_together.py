"""Maps of many regions laid together: pixels, legends, polygons with shared borders, and what is refused."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from gopt_geo.batch.mapset import MapSet
from gopt_geo.batch.together import mosaic_maps
from gopt_geo.errors import GoptGeoError, GridError, OutputError, SourceError
from gopt_geo.grid import GeoBox, Window, corner_distance, grid_of
from gopt_geo.outputs import vectors
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.legend import LegendClass, read_legend
from gopt_geo.outputs.vectors import vectorize

Classes = NDArray[np.uint8]
LEGEND = (LegendClass(1, "water", "#0000ff"), LegendClass(3, "forest", "#00aa00"), LegendClass(4, "fields", "#ffee00"))
TAGS = {"GOPT_GEO_PACK": "a pack", "GOPT_GEO_PACK_SHA256": "ab" * 32}


def grid(row: int, col: int, shape: tuple[int, ...], crs: str | None = "EPSG:32632", size: float = 10.0) -> GeoBox:
    affine = Affine(size, 0, 600000 + size * col, 0, -size, 5400000 - size * row)
    return GeoBox((shape[0], shape[1]), affine, crs)


def write(
    path: Path,
    classes: Classes,
    place: GeoBox,
    legend: Sequence[LegendClass] = LEGEND,
    tags: dict[str, str] | None = None,
) -> Path:
    with LandCoverWriter(path, place, legend, TAGS if tags is None else tags) as writer:
        writer.write(Window(0, 0, *classes.shape), classes)
        writer.finish()
    return path


def ground(height: int, width: int, seed: int = 0, scale: float = 2.0) -> Classes:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), scale)
    return np.array([1, 3, 4], np.uint8)[np.digitize(noise, np.quantile(noise, [0.4, 0.7]))]


def pixels(path: Path) -> Classes:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def message(call: Callable[[], object], kind: type[GoptGeoError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.fixture
def maps(tmp_path: Path) -> tuple[list[Path], Classes]:
    """Three overlapping maps that contradict each other, one with a hole; and what they are together."""
    folder = tmp_path / "maps"
    folder.mkdir()
    places = [(0, 0, 60, 70), (40, 50, 60, 70), (10, 110, 40, 50)]
    together = np.full((100, 160), 255, np.uint8)
    paths = []
    for i, (row, col, height, width) in enumerate(places):
        classes = ground(height, width, i)
        if i == 0:
            classes[45:58, 52:60] = 255
        paths.append(write(folder / f"r{i}.tif", classes, grid(row, col, (height, width))))
        part = together[row : row + height, col : col + width]
        np.copyto(part, classes, where=part == 255)
    return paths, together


@pytest.mark.brief
@pytest.mark.parametrize("name", ["mosaic.tif", "mosaic.vrt"])
def test_the_first_with_data_counts(maps: tuple[list[Path], Classes], tmp_path: Path, name: str) -> None:
    paths, together = maps
    report = mosaic_maps(paths, tmp_path / name)
    assert (report.maps, report.shape, report.outputs) == (3, (100, 160), (tmp_path / name,))
    assert (pixels(tmp_path / name) == together).all()
    with rasterio.open(tmp_path / name) as file:
        assert file.nodata == 255
        assert corner_distance(grid_of(file), grid(0, 0, (100, 160))) < 1e-6
        assert file.tags()["GOPT_GEO_PACK"] == "a pack"
        assert file.tags()["GOPT_GEO_MOSAIC"].startswith("3 maps")
        assert file.colormap(1)[3] == (0, 0xAA, 0, 255)
    assert read_legend(tmp_path / name) == list(LEGEND)
    turned = mosaic_maps(paths[::-1], tmp_path / f"turned_{name}").outputs[0]
    assert (pixels(turned) != together).any(), "the order decides"


def test_a_cog_is_one(maps: tuple[list[Path], Classes], tmp_path: Path) -> None:
    far = write(tmp_path / "far.tif", ground(30, 40), grid(1500, 2300, (30, 40)))
    mosaic_maps([*maps[0], far], tmp_path / "mosaic.tif")
    with rasterio.open(tmp_path / "mosaic.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.shape == (1530, 2340)
        assert file.overviews(1)
        assert (file.read(1, window=((1500, 1530), (2300, 2340))) == pixels(far)).all()


def test_a_virtual_mosaic_moves_with_its_maps(maps: tuple[list[Path], Classes], tmp_path: Path) -> None:
    paths, together = maps
    mosaic_maps(paths, tmp_path / "mosaic.vrt")
    assert str(tmp_path) not in (tmp_path / "mosaic.vrt").read_text()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(tmp_path / "maps", moved / "maps")
    shutil.move(tmp_path / "mosaic.vrt", moved / "mosaic.vrt")
    assert (pixels(moved / "mosaic.vrt") == together).all()


def test_names_that_xml_would_take_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a&b <ä>.tif", ground(20, 20), grid(0, 0, (20, 20)))
    mosaic_maps([path], tmp_path / "m.vrt")
    assert (pixels(tmp_path / "m.vrt") == ground(20, 20)).all()


@pytest.mark.brief
def test_polygons_are_those_of_one_raster(maps: tuple[list[Path], Classes], tmp_path: Path) -> None:
    paths, _ = maps
    report = mosaic_maps(paths, [tmp_path / "mosaic.tif", tmp_path / "mosaic.gpkg"])
    count = vectorize(tmp_path / "mosaic.tif", tmp_path / "whole.gpkg")
    assert report.polygons == (count,)
    found, wanted = (geopandas.read_file(tmp_path / name) for name in ("mosaic.gpkg", "whole.gpkg"))
    for frame in (found, wanted):
        frame["key"] = [shapely.to_wkb(shape) for shape in shapely.normalize(frame.geometry.values)]
    found, wanted = (frame.sort_values("key").reset_index() for frame in (found, wanted))
    assert (found.key == wanted.key).all()
    assert (found.class_id == wanted.class_id).all()
    assert (found.class_name == wanted.class_name).all()
    np.testing.assert_allclose(found.area_m2, wanted.area_m2, rtol=1e-8)
    assert found.crs == wanted.crs


def test_borders_are_shared_across_regions_and_areas_add_up(tmp_path: Path) -> None:
    classes = ground(90, 120, 5, 3.0)
    paths = []
    for row in range(0, 90, 30):
        for col in range(0, 120, 40):
            part = np.ascontiguousarray(classes[row : row + 30, col : col + 40])
            paths.append(write(tmp_path / f"{row}_{col}.tif", part, grid(row, col, part.shape)))
    mosaic_maps(paths, tmp_path / "all.gpkg")
    frame = geopandas.read_file(tmp_path / "all.gpkg")
    shapes = frame.geometry.values
    assert shapely.coverage_is_valid(shapes)
    assert shapely.coverage_is_valid(shapely.coverage_simplify(shapes, 20))
    united = shapely.coverage_union_all(shapes)
    assert united.equals(shapely.box(600000, 5400000 - 900, 601200, 5400000))
    for entry in LEGEND:
        own = frame[frame.class_id == entry.value]
        assert (own.class_name == entry.name).all()
        assert own.area.sum() == pytest.approx((classes == entry.value).sum() * 100, rel=1e-12)
        one_by_one = 0.0
        for path in paths:
            vectorize(path, tmp_path / "one.gpkg")
            single = geopandas.read_file(tmp_path / "one.gpkg")
            one_by_one += single[single.class_id == entry.value].area_m2.sum()
        assert own.area_m2.sum() == pytest.approx(one_by_one, rel=1e-8)
    labels = sum(ndimage.label(classes == entry.value)[1] for entry in LEGEND)
    assert len(frame) == labels, "regions cut no polygon"


def test_many_polygons_come_in_portions(
    maps: tuple[list[Path], Classes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mosaic_maps(maps[0], tmp_path / "whole.gpkg").polygons
    appended: list[bool] = []
    usual = vectors.write_features

    def write_features(*args: Any, append: bool, **kwargs: Any) -> None:
        appended.append(append)
        usual(*args, append=append, **kwargs)

    monkeypatch.setattr(vectors, "write_features", write_features)
    monkeypatch.setattr(vectors, "_AT_A_TIME", 1)
    monkeypatch.setattr("gopt_geo.outputs.blockpolygons.BLOCK", 16)
    assert mosaic_maps(maps[0], tmp_path / "portions.gpkg").polygons == whole
    assert len(geopandas.read_file(tmp_path / "portions.gpkg")) == whole[0]
    assert appended[0] is False
    assert len(appended) > 10
    assert all(appended[1:])


def test_maps_without_data(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((20, 30), 255, np.uint8), grid(0, 0, (20, 30)))
    report = mosaic_maps([path], [tmp_path / "m.gpkg", tmp_path / "m.tif", tmp_path / "m.vrt"])
    assert report.polygons == (0,)
    assert len(geopandas.read_file(tmp_path / "m.gpkg")) == 0
    assert (pixels(tmp_path / "m.tif") == 255).all()


@pytest.mark.brief
def test_other_classes_are_refused(maps: tuple[list[Path], Classes], tmp_path: Path) -> None:
    other = (LEGEND[0], LegendClass(3, "vineyards", "#00aa00"), LEGEND[2])
    tags = {"GOPT_GEO_PACK_SHA256": "cd" * 32}
    strange = write(tmp_path / "other.tif", ground(20, 20), grid(0, 0, (20, 20)), other, tags)
    for name in ("m.vrt", "m.tif", "m.gpkg"):
        message(
            lambda name=name: mosaic_maps([*maps[0], strange], tmp_path / name),
            SourceError,
            "other.tif: its classes aren't those of",
            "r0.tif: 3 is 'vineyards', 'forest' there",
        )
        assert not list(tmp_path.glob(f"*{name}*"))
    fewer = write(tmp_path / "fewer.tif", np.full((9, 9), 1, np.uint8), grid(0, 0, (9, 9)), LEGEND[:2], {})
    message(lambda: mosaic_maps([maps[0][0], fewer], tmp_path / "m.vrt"), SourceError, "4 is no class, 'fields' there")


def test_other_packs_of_the_same_classes_are_not(maps: tuple[list[Path], Classes], tmp_path: Path) -> None:
    tags = {"GOPT_GEO_PACK": "a pack", "GOPT_GEO_PACK_SHA256": "cd" * 32}
    other = write(tmp_path / "other.tif", ground(20, 20), grid(0, 0, (20, 20)), LEGEND, tags)
    mosaic_maps([*maps[0], other], tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        assert "GOPT_GEO_PACK_SHA256" not in file.tags()
        assert file.tags()["GOPT_GEO_PACK"] == "a pack"


@pytest.mark.parametrize(
    "place",
    [
        grid(0, 0, (20, 20), size=20),
        GeoBox((20, 20), Affine(10, 0, 600003, 0, -10, 5400000), "EPSG:32632"),
        grid(0, 0, (20, 20), "EPSG:32633"),
    ],
)
def test_other_lattices_are_refused(maps: tuple[list[Path], Classes], tmp_path: Path, place: GeoBox) -> None:
    other = write(tmp_path / "other.tif", ground(20, 20), place)
    message(lambda: mosaic_maps([*maps[0], other], tmp_path / "m.vrt"), GridError, "other.tif", "r0.tif", "--grid")


def test_what_cannot_be_laid_together(maps: tuple[list[Path], Classes], tmp_path: Path) -> None:
    paths, _ = maps
    message(lambda: mosaic_maps([], tmp_path / "m.vrt"), SourceError, "no maps")
    message(lambda: mosaic_maps(paths, []), OutputError, "no output")
    message(lambda: mosaic_maps(paths, tmp_path / "m.png"), OutputError, "unknown ending '.png'", ".vrt")
    message(lambda: mosaic_maps(paths, paths[0], overwrite=True), OutputError, "is also an input")
    message(lambda: mosaic_maps([*paths, tmp_path / "no.tif"], tmp_path / "m.vrt"), SourceError, "no.tif")
    bare = write(tmp_path / "bare.tif", ground(20, 20), grid(0, 0, (20, 20), None))
    message(lambda: mosaic_maps([bare], tmp_path / "m.vrt"), GridError, "bare.tif", "no CRS")
    with rasterio.open(tmp_path / "f.tif", "w", driver="GTiff", width=9, height=9, count=1, dtype="float32") as file:
        file.write(np.ones((1, 9, 9), np.float32))
    message(lambda: mosaic_maps([tmp_path / "f.tif"], tmp_path / "m.vrt"), SourceError, "isn't a land-cover map")
    vrt = mosaic_maps(paths, tmp_path / "m.vrt").outputs[0]
    message(lambda: mosaic_maps([vrt], tmp_path / "n.vrt"), SourceError, "can't be opened")
    message(lambda: mosaic_maps(paths, vrt), OutputError, "exists", "--overwrite")
    mosaic_maps(paths[:1], vrt, overwrite=True)
    assert pixels(vrt).shape == (60, 70)


def test_a_damaged_map_leaves_nothing(maps: tuple[list[Path], Classes], tmp_path: Path) -> None:
    paths, _ = maps
    with rasterio.open(paths[1]) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    data = bytearray(paths[1].read_bytes())
    data[start : start + 40] = b"\xff" * 40
    paths[1].write_bytes(data)
    for name in ("m.tif", "m.gpkg"):
        message(lambda name=name: mosaic_maps(paths, tmp_path / name), SourceError, "r1.tif", "can't be read")
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


def test_memory_does_not_grow_with_the_number_of_maps(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.tif", ground(64, 64, i % 3), grid(64 * i, 0, (64, 64))) for i in range(48)]

    def peak(number: int) -> int:
        tracemalloc.start()
        with MapSet(paths[:number]) as mapset:
            for row in range(0, 64 * number, 64):
                assert mapset.read(Window(row, 0, 64, 64)) is not None
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2)
    assert peak(48) < peak(24) + 24 * 2000
