"""Data sets of images on one grid: samples, torchgeo's samplers and loaders, and what is refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from gopt_geo.datasets.batches import collate_samples
from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.compat import grid_sampler, random_sampler
from gopt_geo.datasets.geo import ImageDataset, OpticalDataset, SarDataset, ScenePairs
from gopt_geo.datasets.labels import RasterLabels
from gopt_geo.datasets.splits import split_labels
from gopt_geo.errors import AoiError, BandError, DatasetError, GridError
from gopt_geo.grid import Window, crop
from gopt_geo.scene import SourceSpec, open_scene

from .conftest import SHAPE, Ground, write

CLASSES = ClassTable((10, 20, 30, 40), ("a", "b", "c", "d"))
WHOLE = Window(0, 0, *SHAPE)
KEYS = {"optical", "validity_optical", "sar", "validity_sar", "mask", "bounds", "transform"}


@pytest.fixture(scope="module")
def pairs(ground: Ground) -> ScenePairs:
    optical = OpticalDataset(ground.optical, units="dn10000", mask=ground.clouds)
    return optical & SarDataset(ground.sar, units="db") & RasterLabels(ground.labels, CLASSES)


@pytest.fixture(scope="module")
def whole(ground: Ground) -> dict[str, np.ndarray]:
    """The whole scene, read by the scene itself."""
    specs = (
        SourceSpec(ground.optical, None, "dn10000", "reflectance", 3, mask=ground.clouds),
        {"sar": SourceSpec(ground.sar, None, "db", "db", 1)},
    )
    with open_scene(*specs) as scene:
        block = scene.read(WHOLE)
    return {**block.values, **{f"validity_{name}": valid for name, valid in block.valid.items()}}


def at(pairs: ScenePairs, window: Window) -> tuple[slice, slice]:
    """The slices of x and y that ask for a window."""
    bounds = crop(pairs.grid, window).boundingbox
    return slice(bounds.left, bounds.right), slice(bounds.bottom, bounds.top)


@pytest.mark.brief
def test_samples_are_cut_from_the_whole_scene_bit_for_bit(pairs: ScenePairs, whole: dict[str, np.ndarray]) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(-60, 590), st.integers(-60, 630), st.integers(1, 90), st.integers(1, 90))
    def check(row: int, col: int, height: int, width: int) -> None:
        window = Window(row, col, height, width)
        inside = window.clip(SHAPE)
        if inside is None:
            return
        sample = pairs[at(pairs, window)]
        to, place = inside.slices_in(window), inside.slices_in(WHOLE)
        for key, values in whole.items():
            expected = np.zeros((*values.shape[:-2], *window.shape), values.dtype)
            expected[..., to[0], to[1]] = values[..., place[0], place[1]]
            assert sample[key].numpy().tobytes() == expected.tobytes()

    check()


@pytest.mark.brief
def test_every_value_is_a_tensor_and_places_the_sample(pairs: ScenePairs) -> None:
    sample = pairs[at(pairs, Window(580, 620, 32, 32))]  # hangs over the south-eastern corner
    assert sample.keys() == KEYS
    assert all(isinstance(value, torch.Tensor) for value in sample.values())
    assert {key: value.dtype for key, value in sample.items() if key != "optical"} == {
        "sar": torch.float32, "mask": torch.int64, "validity_optical": torch.bool, "validity_sar": torch.bool,
        "bounds": torch.float64, "transform": torch.float64,
    }  # fmt: skip
    assert sample["bounds"].tolist() == [706200.0, 4993880.0, 706520.0, 4994200.0]
    assert sample["transform"].tolist() == [10.0, 0.0, 706200.0, 0.0, -10.0, 4994200.0]
    assert sample["validity_optical"][:20, :20].all()
    assert not sample["validity_optical"][20:].any()
    assert not sample["optical"][:, :, 20:].any()
    assert (sample["mask"][:, 20:] == 255).all()
    assert pairs.crs.to_epsg() == 32631
    assert pairs.res == (10, 10)


def test_clouds_are_invalid_in_the_optical_image_alone(pairs: ScenePairs) -> None:
    sample = pairs[at(pairs, Window(90, 190, 60, 120))]
    assert not sample["validity_optical"][10:50, 10:110].any()
    assert sample["validity_optical"].sum() == 60 * 120 - 40 * 100
    assert not sample["optical"][:, 10:50, 10:110].any()
    assert sample["validity_sar"].all()


@pytest.mark.parametrize("start", [None, "fork", "spawn"])
def test_torchgeo_samplers_and_loaders(pairs: ScenePairs, start: str | None) -> None:
    from torchgeo.datasets import stack_samples

    queries = list(random_sampler(pairs, 64, 6, generator=torch.Generator().manual_seed(0)))
    workers = {"num_workers": 2, "multiprocessing_context": start} if start else {}
    loader = DataLoader(pairs, 2, sampler=queries, collate_fn=stack_samples, **workers)
    batches = list(loader)
    assert [len(batch["sar"]) for batch in batches] == [2, 2, 2]
    for i, query in enumerate(queries):
        for key, value in pairs[query].items():
            assert torch.equal(batches[i // 2][key][i % 2], value)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.brief
def test_batches_put_together_where_they_are_read(pairs: ScenePairs, workers: int) -> None:
    area = "SRID=32631;POLYGON ((700100 4999900, 706000 4999900, 706000 4994200, 700100 4999900))"
    for dataset in (pairs, pairs.inside(area), pairs.within(split_labels(pairs, 40, block=90).train)):
        queries = list(random_sampler(dataset, 64, 5, generator=torch.Generator().manual_seed(1)))
        first, last = DataLoader(dataset, 3, sampler=queries, collate_fn=collate_samples, num_workers=workers)
        for i, query in enumerate(queries):
            batch = first if i < 3 else last
            assert batch.keys() == KEYS
            for key, value in dataset[query].items():
                assert torch.equal(batch[key][i % 3], value)
                assert batch[key].is_contiguous()
        assert len({value.untyped_storage().data_ptr() for value in first.values()}) == 1
    assert torch.equal(collate_samples([pairs[queries[0]]])["sar"][0], pairs[queries[0]]["sar"])
    doubled = ScenePairs(pairs, transforms=lambda sample: {"twice": sample["sar"] * 2})
    (batch,) = DataLoader(doubled, 5, sampler=queries, collate_fn=collate_samples, num_workers=workers)
    assert torch.equal(batch["twice"][4], pairs[queries[4]]["sar"] * 2)


@pytest.mark.brief
def test_a_grid_of_tiles_covers_all_of_the_ground(pairs: ScenePairs) -> None:
    seen = np.zeros(SHAPE, int)
    sampler = grid_sampler(pairs, 128)
    for query in sampler:
        sample = pairs[query]
        a, _, c, _, e, f = sample["transform"].tolist()
        window = Window(round((f - 5000000) / e), round((c - 700000) / a), *sample["mask"].shape)
        inside = window.clip(SHAPE)
        assert inside is not None
        seen[inside.slices_in(WHOLE)] += 1
    assert len(sampler) == 25
    assert (seen >= 1).all()


def test_data_sets_are_left_as_they_are_when_combined(ground: Ground) -> None:
    optical, sar = OpticalDataset(ground.optical, units="dn10000"), SarDataset(ground.sar, units="db")
    before = copy.copy(sar.__dict__), sar.crs, sar.res, sar.bounds
    both = optical & sar
    assert (sar.__dict__, sar.crs, sar.res, sar.bounds) == before
    assert sar.crs.to_epsg() == 32632
    assert both.members[0] is optical
    assert both.crs.to_epsg() == 32631
    assert (sar & optical).crs.to_epsg() == 32632
    assert ScenePairs(optical, sar, grid="sar").crs.to_epsg() == 32632
    for change in ({"crs": "EPSG:4326"}, {"res": 20.0}):
        ((name, value),) = change.items()
        with pytest.raises(DatasetError, match="is its grid's"):
            setattr(both, name, value)


def test_transforms_of_the_members_come_first(ground: Ground) -> None:
    def add(amount: float):
        return lambda sample: {key: value + amount if key == "sar" else value for key, value in sample.items()}

    plain = ScenePairs(None, SarDataset(ground.sar))
    sar = SarDataset(ground.sar, transforms=add(1))
    twice = ScenePairs(None, sar, transforms=lambda s: {**s, "sar": s["sar"] * 2})
    window = Window(100, 100, 8, 8)
    assert torch.equal(twice[at(twice, window)]["sar"], (plain[at(plain, window)]["sar"] + 1) * 2)


@pytest.mark.brief
def test_a_raster_smaller_than_a_tile_is_padded(tmp_path: Path, ground: Ground) -> None:
    small = write(tmp_path / "small.tif", np.full((1, 20, 30), 5, np.float32))
    with pytest.raises(DatasetError, match="tile_size=64"):
        random_sampler(ImageDataset(small, "nir", "raw"), 64, 3)
    with pytest.raises(DatasetError, match="tile_size=64"):
        grid_sampler(ImageDataset(small, "nir", "raw"), 64)
    dataset = ImageDataset(small, "nir", "raw", tile_size=64) & SarDataset(ground.sar)
    for sampler in (random_sampler(dataset, 64, 2), grid_sampler(dataset, 64)):
        (sample, *_) = (dataset[query] for query in sampler)
        assert sample["nir"].shape == (1, 64, 64)
        assert sample["validity_nir"].sum() == 20 * 30
        assert (sample["nir"][0][sample["validity_nir"]] == 5).all()
        assert not sample["validity_sar"][20:].any()


def test_sources_of_several_files(tmp_path: Path, ground: Ground) -> None:
    rng = np.random.default_rng(3)
    bands = {name: rng.integers(1, 9000, SHAPE).astype(np.uint16) for name in ("B02", "B03", "B04")}
    for name, band in bands.items():
        write(tmp_path / f"T31_{name}.tif", band)
    dataset = OpticalDataset(tmp_path, bands=["B04", "B02"], units="dn10000")
    sample = dataset[at(dataset, Window(0, 0, 10, 10))]
    np.testing.assert_allclose(sample["optical"][0], bands["B04"][:10, :10] / 1e4, rtol=1e-6)
    np.testing.assert_allclose(sample["optical"][1], bands["B02"][:10, :10] / 1e4, rtol=1e-6)
    assert (
        OpticalDataset(str(tmp_path / "*_B0?.tif"), units="dn10000").read(Window(0, 0, 5, 5))["optical"].shape[0] == 3
    )
    with pytest.raises(BandError, match="B09"):
        OpticalDataset(tmp_path, bands=["B09"], units="dn10000")


@pytest.mark.brief
def test_labels_outside_of_an_area_are_ignored(pairs: ScenePairs, ground: Ground) -> None:
    area = "SRID=32631;POLYGON ((702000 4997000, 704000 4997000, 704000 4995000, 702000 4997000))"
    inside = pairs.inside(area)
    sample, before = inside[at(pairs, Window(250, 150, 300, 300))], pairs[at(pairs, Window(250, 150, 300, 300))]
    kept = sample["mask"] != 255
    assert 0 < kept.sum() < 200 * 200
    assert torch.equal(sample["mask"][kept], before["mask"][kept])
    assert torch.equal(sample["optical"], before["optical"])
    assert not kept[:50].any()  # row 250 + 50 is y = 4997000
    assert inside.footprint == Window(300, 201, 199, 199)  # the pixels whose centre the triangle holds
    assert (pairs[at(pairs, Window(0, 200, 60, 60))]["mask"] != 255).any()  # the other is as it was
    optical = OpticalDataset(ground.optical, units="dn10000")
    same = ScenePairs(optical, ground.sar, RasterLabels(ground.labels, CLASSES), aoi=area)
    assert torch.equal(same[at(pairs, Window(250, 150, 300, 300))]["mask"], sample["mask"])
    with pytest.raises(AoiError, match="doesn't touch"):
        pairs.inside("2,40,3,41")


def test_blocks_kept_in_a_file_are_the_same_in_every_process(ground: Ground, tmp_path: Path, pairs: ScenePairs) -> None:
    options = {"units": "db", "cache_dir": tmp_path}
    sar = SarDataset(ground.sar, grid=pairs.grid, **options)
    (folder,) = tmp_path.iterdir()
    queries = list(random_sampler(sar, 64, 6, generator=torch.Generator().manual_seed(0)))
    loader = DataLoader(sar, None, sampler=queries, num_workers=2, multiprocessing_context="fork")
    elsewhere = pickle.loads(pickle.dumps(sar))
    for query, sample in zip(queries, loader, strict=True):
        assert torch.equal(sample["sar"], pairs[query]["sar"])
        assert torch.equal(elsewhere[query]["sar"], sample["sar"])
    del elsewhere
    assert folder.exists()
    del sar, loader
    assert not list(tmp_path.iterdir())


def test_a_scene_larger_than_the_cache_is_told(ground: Ground, tmp_path: Path) -> None:
    small = OpticalDataset(ground.optical, units="dn10000", cache_bytes=1 << 20)
    assert any("cache_dir" in notice for notice in small.notices)
    kept = OpticalDataset(ground.optical, units="dn10000", cache_bytes=1 << 20, cache_dir=tmp_path)
    assert not any("cache_dir" in notice for notice in kept.notices)
    with pytest.raises(DatasetError, match="cache_dir"):
        OpticalDataset(ground.optical, units="dn10000", cache_dir=tmp_path / "missing")


def test_what_can_not_be_combined(ground: Ground, pairs: ScenePairs, tmp_path: Path) -> None:
    from torchgeo.datasets import RasterDataset

    optical = OpticalDataset(ground.optical, units="dn10000")
    with pytest.raises(DatasetError, match="two of them give optical"):
        optical & pairs
    with pytest.raises(DatasetError, match="isn't a data set of gopt-geo"):
        optical & RasterDataset(str(ground.sar))
    with pytest.raises(DatasetError, match="gdalbuildvrt"):
        optical | optical
    with pytest.raises(DatasetError, match="nothing here has a grid"):
        ScenePairs()
    with pytest.raises(DatasetError, match="no SAR data set"):
        ScenePairs(optical, grid="sar")
    far = write(tmp_path / "far.tif", np.ones((1, 20, 20), np.float32), "EPSG:32633")
    with pytest.raises(GridError, match="doesn't overlap"):
        optical & SarDataset(far)
    with pytest.raises(DatasetError, match="tile_size"):
        OpticalDataset(ground.optical, units="dn10000", tile_size=0)


def test_queries(pairs: ScenePairs) -> None:
    x, y = at(pairs, Window(0, 0, 10, 10))
    with pytest.raises(IndexError, match="outside of the grid"):
        pairs[slice(0.0, 100.0), y]
    with pytest.raises(ValueError, match="pixels of 20"):
        pairs[slice(x.start, x.stop, 20.0), y]
    assert pairs[x].keys() == KEYS  # all of y
    assert pairs[x]["mask"].shape == (600, 10)
    assert pickle.loads(pickle.dumps(pairs))[x, y]["sar"].equal(pairs[x, y]["sar"])


@pytest.mark.brief
def test_a_turned_raster_is_warped_once_onto_an_upright_grid(tmp_path: Path) -> None:
    turned = Affine(8, 6, 500_000, 6, -8, 4_600_000)
    rows, cols = np.mgrid[0:120, 0:160] + 0.5
    x, y = turned.a * cols + turned.b * rows + turned.c, turned.d * cols + turned.e * rows + turned.f
    signal = np.stack([x - 500_000, y - 4_600_000]).astype(np.float32)  # each pixel says where it lies
    dataset = SarDataset(write(tmp_path / "turned.tif", signal, transform=turned), units="raw", target_units="raw")
    assert any("its grid is turned" in notice for notice in dataset.notices)
    assert dataset.res == (10, 10)
    assert dataset.grid is not None
    height, width = dataset.grid.shape
    sample = dataset.read(Window(0, 0, height, width))
    valid = sample["validity_sar"].numpy()
    assert 120 * 160 * 0.95 < valid.sum() < 120 * 160 * 1.05
    row, col = np.mgrid[0:height, 0:width] + 0.5
    a, _, c, _, e, f = dataset.grid.affine[:6]
    wanted = np.stack([a * col + c - 500_000, e * row + f - 4_600_000])
    off = np.abs(sample["sar"].numpy() - wanted).max(axis=0)
    assert np.median(off[valid]) < 0.05  # metres


@pytest.mark.brief
def test_an_array_is_a_source_too(ground: Ground) -> None:
    from odc.geo.xr import wrap_xr

    from gopt_geo.scene import RasterSource

    file = OpticalDataset(ground.optical, units="dn10000")
    with RasterSource(ground.optical) as source:
        values, _ = source.read(Window(0, 0, *SHAPE))
    array = OpticalDataset(wrap_xr(values, file.grid, dims=["band", "y", "x"], axis=1), units="dn10000")
    for one, other in zip(
        file.read(Window(5, 6, 70, 80)).values(), array.read(Window(5, 6, 70, 80)).values(), strict=True
    ):
        assert torch.equal(one, other)


def test_options_that_make_no_sense_are_told(ground: Ground) -> None:
    with pytest.raises(DatasetError, match="grid='bogus': there is no such grid"):
        ScenePairs(OpticalDataset(ground.optical, units="dn10000"), grid="bogus")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="labels can't be resampled so"):
        RasterLabels(ground.labels, resampling="bilinear")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="it is no class list; give a ClassTable"):
        RasterLabels(ground.labels, "classes.yaml")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"0\.5 isn't a whole number"):
        ClassTable((0.5, 1), ("a", "b"))  # type: ignore[arg-type]
    labels = RasterLabels(ground.labels, ClassTable((10, 20, 30, 40), ("a", "b", "c", "d")))
    split = split_labels(labels, 32)
    with pytest.raises(DatasetError, match="it is a part of a split already"):
        labels.within(split.train).within(split.train)
