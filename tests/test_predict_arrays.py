"""`gopt_geo.predict` into arrays: in memory, lazy, and as rows; the same numbers as in files."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import torch
import xarray as xr

import gopt_geo
from gopt_geo import lazymap, openmap, sharedmodels
from gopt_geo.errors import GoptGeoError, PackError
from gopt_geo.grid import corner_distance, grid_of
from gopt_geo.inference.execution import Execution
from gopt_geo.maparrays import MapPixels
from gopt_geo.maprequest import MapRequest
from gopt_geo.prediction import PredictReport
from gopt_geo.scene.arraysource import ArraySource
from gopt_geo.simulate import CLASS_NAMES, CLASS_VALUES

Run = Callable[..., PredictReport]
Files = dict[str, Path]
Ask = Callable[..., Any]


@pytest.fixture
def ask(tiny_pack: Path, scene: Files) -> Ask:
    """Call one of the verbs on `scene` with the tiny pack."""

    def call(verb: Callable[..., Any] = gopt_geo.predict, **changes: Any) -> Any:
        arguments = {"pack": tiny_pack, "optical_bands": "red,green,blue", "device": "cpu"}
        sources = {"optical": scene["scene"], "sar": scene["sar"]}
        return verb(**{**sources, **arguments, **changes})

    return call


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Forget what other tests left open: their backbone isn't ours."""
    lazymap._OPEN.clear()
    sharedmodels._MODELS.clear()


def lazy_sources(scene: Files, chunk: int = 40) -> dict[str, xr.DataArray]:
    """The rasters as lazy arrays with coordinates."""
    found = {}
    for name, stem in (("optical", "scene"), ("sar", "sar")):
        with rasterio.open(scene[stem]) as file:
            values, grid = file.read(), grid_of(file)
            attrs = {"scale_factor": file.scales[0], "add_offset": file.offsets[0], "units": file.units[0] or ""}
            names = list(file.descriptions)
        from odc.geo.xr import xr_coords

        array = xr.DataArray(
            values, {"band": names, **xr_coords(grid)}, ("band", *grid.dimensions), name=name, attrs=attrs
        )
        found[name] = array.chunk(dict.fromkeys(grid.dimensions, chunk))
    return found


def equal(one: xr.Dataset, other: xr.Dataset) -> None:
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, other[name].values)


@pytest.mark.brief
def test_arrays_hold_what_files_hold(ask: Ask, run: Run, tmp_path: Path) -> None:
    run("m.tif", confidence="c.tif", probabilities=tmp_path / "p.tif")
    found = ask(probabilities=True)
    for name, file in (("landcover", "m.tif"), ("confidence", "c.tif"), ("probabilities", "p.tif")):
        with rasterio.open(tmp_path / file) as raster:
            np.testing.assert_array_equal(found[name].values.reshape(-1, *raster.shape), raster.read())
            assert corner_distance(grid_of(raster), found[name].odc.geobox) < 1e-6
            assert found[name].odc.crs.epsg == 32632
            tags = raster.tags()
    assert {key: value for key, value in found.attrs.items() if key.startswith("GOPT_GEO")}.items() <= tags.items()
    assert "warning: pack 'tiny'" in found.attrs["notices"]
    assert found.landcover.attrs["nodata"] == 255
    assert found.landcover.attrs["flag_values"].tolist() == list(CLASS_VALUES)
    assert found["class"].values.tolist() == list(CLASS_NAMES)
    assert set(ask().data_vars) == {"landcover", "confidence"}


def test_nodata_is_nan_in_probabilities(ask: Ask, scene: Files) -> None:
    found = ask(sar=None, cloud_mask=scene["clouds"], probabilities=True)
    nothing = found.landcover.values == 255
    assert 0.1 < nothing.mean() < 0.6
    np.testing.assert_array_equal(
        np.isnan(found.probabilities.values), np.broadcast_to(nothing, (len(CLASS_NAMES), 90, 130))
    )


def test_a_written_array_is_the_map(ask: Ask, tmp_path: Path) -> None:
    found = ask(probabilities=True)
    found.landcover.odc.write_cog(str(tmp_path / "w.tif"))
    with rasterio.open(tmp_path / "w.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), found.landcover.values)
        assert raster.nodata == 255


@pytest.mark.brief
@pytest.mark.parametrize("chunks", [(33, 57), 64, 1000])
def test_lazy_maps_are_the_eager_ones_to_the_bit(ask: Ask, chunks: Any) -> None:
    eager, lazy = ask(probabilities=True), ask(probabilities=True, chunks=chunks)
    assert all(lazy[name].chunks is not None for name in lazy.data_vars)
    height, width = (chunks, chunks) if isinstance(chunks, int) else chunks
    assert lazy.landcover.data.chunksize == (min(height, 90), min(width, 130))
    equal(lazy, eager)
    assert lazy.landcover.odc.geobox == eager.landcover.odc.geobox
    equal(lazy.isel(y=slice(40, 60), x=slice(90, 100)), eager.isel(y=slice(40, 60), x=slice(90, 100)))


def test_lazy_sources_make_lazy_maps_with_the_same_numbers(ask: Ask, scene: Files) -> None:
    arrays = lazy_sources(scene)
    loaded = {name: array.load() for name, array in lazy_sources(scene).items()}
    eager = ask(**loaded, probabilities=True, sar_bands="1")
    assert eager.landcover.chunks is None
    lazy = ask(**arrays, probabilities=True, sar_bands="1")
    assert lazy.landcover.chunks is not None
    equal(lazy, eager)
    some = ask(**arrays, probabilities=True, sar_bands="1", chunks=50)
    equal(some, eager)
    one = ask(optical=loaded["optical"], sar=arrays["sar"], sar_bands="1", chunks=(90, 70))
    np.testing.assert_array_equal(one.landcover.values, eager.landcover.values)


def test_lazy_averaged_areas(ask: Ask, scene: Files) -> None:
    with rasterio.open(scene["scene"]) as file:
        left, top = file.bounds.left, file.bounds.top
    options = {"aoi": f"{left + 370},{top - 800},{left + 1100},{top - 240}", "aoi_crs": "EPSG:32632"}
    options |= {"augment": "flip", "scales": (0.75, 1.0), "cloud_mask": scene["clouds"]}
    eager, lazy = ask(**options), ask(**options, chunks=24)
    assert eager.landcover.shape == (56, 73)
    equal(lazy, eager)
    assert lazy.attrs["GOPT_GEO_AUGMENT"] == "flip, scales 0.75, 1"


def test_only_what_is_computed_is_made_and_read(ask: Ask, scene: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    usual = lazymap.map_pixels

    def counting(opened: Any, window: Any, **options: Any) -> Any:
        made.append(window)
        return usual(opened, window, **options)

    monkeypatch.setattr(lazymap, "map_pixels", counting)
    read: list[Any] = []
    compute = ArraySource._compute
    lazy = ask(**lazy_sources(scene), sar_bands="1", chunks=45)
    monkeypatch.setattr(ArraySource, "_compute", lambda self, inside: (read.append(inside), compute(self, inside))[1])
    assert made == []
    lazy[["landcover", "confidence"]].isel(y=slice(0, 10), x=slice(0, 10)).load()
    assert len(made) == 1, "both variables share their block"
    assert read
    assert sum(1 for window in made if window.row == 0 and window.col == 0) == 1


@pytest.mark.parametrize(("device", "most"), [("cuda", 1), ("cpu", 2)])
def test_maps_of_a_model_that_is_a_cuda_graph_are_made_in_turn(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, device: str, most: int
) -> None:
    maps = [ask(chunks=1000), ask(chunks=1000)]
    dask.compute(*maps, scheduler="synchronous")
    running, seen = 0, []
    both = threading.Barrier(2)

    def watched(opened: Any, window: Any, **_: Any) -> Any:
        nonlocal running
        running += 1
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        seen.append(running)
        running -= 1
        empty = np.zeros(window.shape, np.uint8)
        return MapPixels(empty, empty, None), None

    for held in lazymap._OPEN.values():
        assert held.opened is not None
        model = held.opened.pack_model
        monkeypatch.setattr(model, "execution", Execution(torch.device(device), compiled=True))
    monkeypatch.setattr(lazymap, "map_pixels", watched)
    dask.compute(*maps, scheduler="threads", num_workers=2)
    assert max(seen) == most


def test_the_model_is_loaded_once_in_a_process(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []
    usual = openmap.load_model
    monkeypatch.setattr(openmap, "load_model", lambda *a, **k: (loads.append(1), usual(*a, **k))[1])
    first, second = ask(chunks=50), ask(chunks=40)
    dask.compute(first, second, scheduler="threads", num_workers=4)
    first.landcover.compute(scheduler="synchronous")
    assert len(loads) == 1
    ask(chunks=50, tile_size=64, overlap=16).landcover.compute()
    assert len(loads) == 2


def test_a_process_keeps_few_scenes_open(ask: Ask) -> None:
    maps = [ask(chunks=64) for _ in range(4)]
    values = [found.landcover.values for found in maps]
    assert len(lazymap._OPEN) <= 2
    assert all((value == values[0]).all() for value in values)
    np.testing.assert_array_equal(maps[0].landcover.values, values[0])  # opened anew


def test_lazy_maps_travel_to_other_processes(scene: Files) -> None:
    """The demo pack: a fresh process knows nothing of the tests' backbone."""
    options: dict[str, Any] = {"optical_bands": "red,green,blue", "device": "cpu", "tile_size": 64, "overlap": 16}
    lazy = gopt_geo.predict(**lazy_sources(scene), sar_bands="1", chunks=96, **options)
    loaded = {name: array.load() for name, array in lazy_sources(scene).items()}
    eager = gopt_geo.predict(**loaded, sar_bands="1", **options)
    far = pickle.loads(pickle.dumps(lazy)).landcover
    with dask.config.set({"multiprocessing.context": "spawn"}):
        np.testing.assert_array_equal(far.compute(scheduler="processes", num_workers=1).values, eager.landcover.values)


def test_a_pack_that_changed_is_told(ask: Ask, tiny_pack: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(tiny_pack.read_bytes())
    lazy = ask(pack=own, chunks=64)
    other = gopt_geo.read_pack(tiny_pack)
    from gopt_geo.packs import write_pack

    write_pack(own, other.meta.model_copy(update={"title": "other"}), other.state)
    with pytest.raises(PackError, match=r"own\.safetensors: it isn't the pack that the map was asked of"):
        lazy.landcover.compute(scheduler="synchronous")


def test_a_request_can_be_pickled(scene: Files, tiny_pack: Path) -> None:
    said: Any = {"pack": tiny_pack, "aoi": "10,48,10.1,48.1", "scales": [1, 0.5]}
    request = MapRequest.of(scene["scene"], scene["sar"], said)
    again = pickle.loads(pickle.dumps(request))
    assert (again.pack, again.scales, again.inputs) == (request.pack, (1.0, 0.5), request.inputs)


@pytest.mark.brief
def test_rows_are_the_map_from_top_to_bottom(ask: Ask) -> None:
    whole = ask(probabilities=True)
    with ask(gopt_geo.predict_rows) as rows:
        assert rows.grid == whole.landcover.odc.geobox
        assert [c.name for c in rows.classes] == list(CLASS_NAMES)
        assert rows.report is None
        parts = list(rows)
    assert rows.report is not None
    assert rows.report.tiles == rows.report.forwarded + rows.report.skipped
    stops = [0, *(part.window.row_stop for part in parts)]
    assert stops[:-1] == [part.window.row for part in parts]
    assert stops[-1] == 90
    for name, axis in (("landcover", 0), ("confidence", 0), ("probabilities", 1)):
        joined = np.concatenate([getattr(part, name) for part in parts], axis=axis)
        np.testing.assert_array_equal(joined, whole[name].values)


def row_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("gopt-geo")]


def test_rows_that_nobody_wants_end_the_run(ask: Ask) -> None:
    with ask(gopt_geo.predict_rows) as rows:
        next(iter(rows))
        assert row_threads()
    assert row_threads() == []
    assert list(rows) == []
    with ask(gopt_geo.predict_rows):
        pass
    rows = ask(gopt_geo.predict_rows)
    next(rows)
    del rows
    assert row_threads() == []


def test_what_fails_on_the_way_is_raised_where_rows_are_taken(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from gopt_geo.inference.packmodel import PackModel

    rows = ask(gopt_geo.predict_rows)
    monkeypatch.setattr(PackModel, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), rows:
        list(rows)
    assert row_threads() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chunks": 0}, "chunks: 0 is no size of blocks"),
        ({"chunks": (5,)}, "chunks: (5,) is no size of blocks"),
        ({"chunks": "auto"}, "chunks: 'auto' is no size of blocks"),
        ({"confidence": "c.tif"}, "confidence: it goes with files, and no output is named"),
        ({"probabilities": "p.tif"}, "probabilities: it goes with files"),
        ({"overwrite": True}, "overwrite: it goes with files"),
        ({"outputs": "m.tif", "chunks": 64}, "chunks: they serve arrays"),
        ({"outputs": "m.tif", "probabilities": True}, "probabilities: an output is named"),
        ({"scales": (0,)}, "--scales: 0 is no size"),
        ({"chunks": 64, "tile_size": 30}, "--tile-size 30"),
    ],
)
def test_what_does_not_go_together_is_told_at_once(ask: Ask, options: dict[str, Any], said: str) -> None:
    with pytest.raises(GoptGeoError) as caught:
        ask(**options)
    assert str(caught.value).startswith(said)
