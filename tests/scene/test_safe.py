"""Sentinel-2 `.SAFE` folders: offsets by level and baseline, finest resolution, and what is refused."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from gopt_geo.errors import BandError, GoptGeoError, SourceError
from gopt_geo.grid import Window
from gopt_geo.scene import SourceSpec, open_scene
from gopt_geo.scene.safe import is_safe, read_safe
from safefolder import metadata, numbers_of, write_safe


def open_optical(path: Path, bands: list[str], **changes: object):
    given = {"bands": bands, "units": None, "target_units": "reflectance", "count": len(bands), **changes}
    return open_scene(SourceSpec(path, **given), {})  # type: ignore[arg-type]


def message(path: Path, kind: type[GoptGeoError] = SourceError) -> str:
    with pytest.raises(kind) as caught:
        read_safe(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize(("baseline", "offset"), [("02.14", 0.0), ("04.00", -0.1), ("05.10", -0.1)])
def test_reflectance_by_level_and_baseline(tmp_path, level, baseline, offset) -> None:
    safe = write_safe(tmp_path, level, baseline)
    with open_optical(safe, ["B04", "B03", "B02"]) as scene:
        assert scene.shape == (72, 72)
        block = scene.read(Window(0, 0, 72, 72))
    stored = np.stack([numbers_of(band, 10) for band in ("B04", "B03", "B02")])
    expected = (stored * 1e-4 + offset).astype(np.float32)
    assert not block.valid["optical"][0, 0]
    assert block.valid["optical"].sum() == 72 * 72 - 1
    np.testing.assert_allclose(block.values["optical"][:, 1:], expected[:, 1:], rtol=1e-6, atol=1e-7)


def test_offsets_are_read_band_by_band(tmp_path) -> None:
    safe = write_safe(tmp_path, offsets={i: -100 * i for i in range(13)})
    offsets = {band.name: band.offset for band in read_safe(safe).bands}
    assert offsets == pytest.approx({"B01": 0, "B02": -0.01, "B03": -0.02, "B04": -0.03, "B8A": -0.08})


def test_what_a_product_says(tmp_path) -> None:
    safe = write_safe(tmp_path, classes=np.full((36, 36), 4))
    assert is_safe(safe)
    product = read_safe(safe)
    assert (product.level, product.baseline) == ("L2A", "05.10")
    assert product.acquired == datetime(2024, 6, 1, 10, 56, 21, 24000, UTC)
    assert [band.name for band in product.bands] == ["B01", "B02", "B03", "B04", "B8A"]
    assert product.scene_classes is not None
    assert product.scene_classes.name.endswith("SCL_20m.jp2")
    assert [Path(band.path).parent.name for band in product.bands] == ["R60m", "R10m", "R10m", "R10m", "R20m"]


def test_mixed_resolutions_lie_on_the_finest_grid(tmp_path) -> None:
    safe = write_safe(tmp_path, "L1C")
    with open_optical(safe, ["B8A", "B04", "B01"]) as scene:
        assert scene.shape == (72, 72)
        block = scene.read(Window(20, 20, 30, 30))
    red = numbers_of("B04", 10)[20:50, 20:50] * 1e-4 - 0.1
    np.testing.assert_allclose(block.values["optical"][1], red, rtol=1e-6, atol=1e-7)
    assert block.valid["optical"].all()


def test_colours_name_bands(tmp_path) -> None:
    safe = write_safe(tmp_path)
    with (
        open_optical(safe, ["red", "nir08"]) as by_colour,
        open_optical(safe, ["B4", "b8a"]) as by_number,
    ):
        window = Window(3, 3, 40, 40)
        np.testing.assert_array_equal(
            by_colour.read(window).values["optical"], by_number.read(window).values["optical"]
        )


def test_a_band_that_is_missing(tmp_path) -> None:
    with pytest.raises(BandError, match=r"no band 'B12'.*--optical-bands from B01, B02"):
        open_optical(write_safe(tmp_path), ["B12"])


def test_no_bands_at_all(tmp_path) -> None:
    safe = write_safe(tmp_path)
    shutil.rmtree(safe / "GRANULE")
    text = message(safe)
    assert "has no bands" in text
    assert safe.name in text


def test_no_metadata(tmp_path) -> None:
    safe = write_safe(tmp_path)
    next(safe.glob("MTD*.xml")).unlink()
    assert "no files MTD_MSIL1C.xml" in message(safe)


def test_a_missing_folder(tmp_path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        open_optical(tmp_path / "S2A.SAFE", ["B04"])


def test_due_offsets_that_are_missing(tmp_path) -> None:
    safe = write_safe(tmp_path, offsets={1: -1000})
    text = message(safe)
    assert "baseline 05.10 adds an offset" in text
    assert "B01, B03, B04, B8A" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<a", "isn't valid XML"),
        ("<a/>", "no PROCESSING_BASELINE"),
        (metadata("L2A", "05.10", {1: -1000}, quantum="0"), "QUANTIFICATION_VALUE is 0"),
        (metadata("L2A", "05.10", {77: -1000}), "BOA_ADD_OFFSET can't be read"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "document type"),
    ],
)
def test_damaged_metadata(tmp_path, content, said) -> None:
    safe = write_safe(tmp_path)
    next(safe.glob("MTD*.xml")).write_text(content)
    assert said in message(safe)


def test_a_document_type_in_another_encoding(tmp_path) -> None:
    safe = write_safe(tmp_path)
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
    next(safe.glob("MTD*.xml")).write_bytes(text.encode("utf-16"))
    assert "document type" in message(safe)


def test_several_granules(tmp_path) -> None:
    safe = write_safe(tmp_path)
    granule = next((safe / "GRANULE").iterdir())
    shutil.copytree(granule, granule.with_name("L2A_T31TCK"))
    assert "2 granules" in message(safe)
