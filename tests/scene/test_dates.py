"""Dates of acquisition: what states them, what doesn't, and how far apart is far."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.description import describe_pair
from gopt_geo.scene import SourceSpec, open_scene
from gopt_geo.scene.dates import LIMIT, Acquired, acquired, date_in_name, date_in_tags, far_apart
from realdata import DATA, needs
from safefolder import write_safe


def day(year: int, month: int, date: int, *time: int) -> datetime:
    return datetime(year, month, date, *time, tzinfo=UTC)


@pytest.mark.brief
@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("S2A_MSIL2A_20240601T105621_N0510_R094_T31TCJ_20240901T170000.SAFE", day(2024, 6, 1, 10, 56, 21)),
        ("S2A_MSIL2A_20170613T101031_87_48_B04.tif", day(2017, 6, 13, 10, 10, 31)),
        ("S2B_MSIL2A_20180204T94161_57_38_B04.tif", day(2018, 2, 4)),  # BigEarthNet drops a zero of the time
        ("T31TCJ_20240601T105621_B04_10m.jp2", day(2024, 6, 1, 10, 56, 21)),
        ("S1A_IW_GRDH_1SDV_20240601T054321_20240601T054346_054120_0694C0_1A2B", day(2024, 6, 1, 5, 43, 21)),
        ("S1B_IW_SLC__1SDV_20200714T152128_20200714T152150_022469_02AA50_9A64.zip", day(2020, 7, 14, 15, 21, 28)),
        ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48_VV.tif", day(2017, 6, 13, 16, 50, 43)),
        ("s1a-iw-grd-vv-20240601t054321-20240601t054346-054120-0694c0-001.tiff", day(2024, 6, 1, 5, 43, 21)),
        ("S1A_IW_20181102T155531_DVP_RTC30_G_gpuned_5685_VV.tif", day(2018, 11, 2, 15, 55, 31)),
        (
            "OPERA_L2_RTC-S1_T063-133417-IW3_20240701T001410Z_20240702T044329Z_S1A_30_v1.0_VV.tif",
            day(2024, 7, 1, 0, 14, 10),
        ),
        ("LC08_L2SP_196023_20200613_20200824_02_T1_SR_B4.TIF", day(2020, 6, 13)),
        ("GF3_KAS_FSI_002034_E114.2_N30.1_20161228_L1A_HHHV_L10002077539.tiff", day(2016, 12, 28)),
        ("x_S2A_MSIL1C_20240601T105621_N0510.tif", day(2024, 6, 1, 10, 56, 21)),
        ("S2_2021-04-01.tif", None),  # of the image, of the composite, or of the file
        ("scene_20240601.tif", None),
        ("S2A_MSIL2A_20241301T105621_N0510.tif", None),
        ("XS2A_MSIL2A_20240601T105621_N0510.tif", None),
        ("LC08_20200613.TIF", None),
        ("", None),
    ],
)
def test_names(name: str, moment: datetime | None) -> None:
    assert date_in_name(name) == moment


@pytest.mark.parametrize(
    ("tags", "moment", "tag"),
    [
        ({"ACQUISITION_DATE": "2024-06-01"}, day(2024, 6, 1), "ACQUISITION_DATE"),
        ({"Acquisition DateTime": "2024-06-01T10:00:00+02:00"}, day(2024, 6, 1, 8), "Acquisition DateTime"),
        ({"TIFFTAG_DATETIME": "2018:07:16 06:06:23"}, day(2018, 7, 16, 6, 6, 23), "TIFFTAG_DATETIME"),
        ({"TIFFTAG_DATETIME": "2026:01:01 00:00:00", "DATE_ACQUIRED": "2020-06-13"}, day(2020, 6, 13), "DATE_ACQUIRED"),
        ({"DATATAKE_1_DATATAKE_SENSING_START": "2024-06-01T10:56:21.024Z"}, day(2024, 6, 1, 10, 56, 21, 24000), None),
        ({"ACQUISITION_DATE": "01/06/2024"}, None, None),  # June or January
        ({"ACQUISITION_DATE": "2024", "TIFFTAG_DATETIME": "0000:00:00 00:00:00"}, None, None),
        ({"DATE": "2024-06-01", "PROCESSING_DATE": "2024-06-01"}, None, None),
        ({}, None, None),
    ],
)
def test_tags(tags: dict[str, str], moment: datetime | None, tag: str | None) -> None:
    found = date_in_tags(tags)
    assert (found and found[0]) == moment
    if tag is not None:
        assert found is not None
        assert found[1] == tag


@given(st.text(max_size=80))
def test_any_text_is_read_without_an_error(text: str) -> None:
    date_in_name(text)
    found = date_in_tags({"ACQUISITION_DATE": text, "TIFFTAG_DATETIME": text})
    assert found is None or found[0].tzinfo is not None


def test_what_goes_first() -> None:
    path, tag = "/d/LC08_L2SP_196023_20200613_20200824_02_T1_SR_B4.TIF", {"ACQUISITION_DATE": "2020-06-14"}
    assert str(acquired([path], [{}])) == "2020-06-13 (by name)"
    assert str(acquired([path], [tag])) == "2020-06-14 (tag ACQUISITION_DATE)"
    assert str(acquired([path], [tag], datetime(2020, 6, 15))) == "2020-06-15 (its metadata)"
    assert str(acquired([path], [tag, {}])) == "2020-06-13 (by name)"  # a tag of some bands alone isn't the source's
    folder = "S2A_MSIL2A_20240601T105621_N0510_R094_T31TCJ_20240901T170000.SAFE"
    assert str(acquired([f"/d/{folder}/red.tif"], [{}])) == "2024-06-01 (by name)"
    assert acquired(["/d/red.tif"], [{}]) is None


def test_several_images_have_a_first_and_a_last_date() -> None:
    names = [f"LC08_L2SP_196023_2020{month:02}13_20200824_02_T1_SR_B4.TIF" for month in (8, 6, 7)]
    found = acquired(names, [{}] * 3)
    assert str(found) == "2020-06-13 to 2020-08-13 (by name)"
    moment = day(2020, 7, 1)
    assert found is not None
    assert found.apart(Acquired(moment, moment, "x")) == timedelta(0)


@given(st.datetimes(datetime(1980, 1, 1), datetime(2080, 1, 1)), st.integers(-5000, 5000), st.integers(0, 50))
def test_far_apart(start: datetime, hours: int, length: int) -> None:
    first = start.replace(tzinfo=UTC)
    second = first + timedelta(hours=hours)
    found = {
        "optical": Acquired(first, first + timedelta(days=length), "a"),
        "sar": Acquired(second, second, "b"),
    }
    gap = -hours / 24 if hours < 0 else max(hours / 24 - length, 0)
    lines = far_apart(found)
    assert len(lines) == (gap > LIMIT.days)
    assert lines == [] or (
        lines[0].startswith("warning: optical was acquired") and f" {int(gap)} days apart" in lines[0]
    )


@pytest.mark.brief
@pytest.mark.parametrize(("sar_date", "warned"), [("20240630", False), ("20240702", True), ("20240501", True)])
def test_a_scene_warns(tmp_path: Path, raster, sar_date: str, warned: bool) -> None:
    safe = write_safe(tmp_path)
    name = f"S1A_IW_{sar_date}T155531_DVP_RTC30_G_gpuned_5685_VV.tif"
    sar = raster(name, np.full((1, 72, 72), 0.1, "float32"))
    with open_scene(
        SourceSpec(safe, ["B04"], None, "reflectance", 1), {"sar": SourceSpec(sar, None, None, "db", 1)}
    ) as scene:
        lines = [notice for notice in scene.notices if "acquired" in notice]
    assert len(lines) == warned
    if warned:
        assert "optical was acquired 2024-06-01 (its metadata), sar 2024-" in lines[0]


def test_info_shows_dates(tmp_path: Path, raster) -> None:
    safe = write_safe(tmp_path)
    sar = raster("sar.tif", np.full((1, 72, 72), 0.1, "float32"))
    told = describe_pair(safe, sar)
    assert told["sensors"] == {"optical": "sentinel-2-l2a", "sar": None}
    assert told["acquired"] == {"optical": "2024-06-01 (its metadata)", "sar": None, "days_apart": None}
    with rasterio.open(sar, "r+") as file:
        file.update_tags(ACQUISITION_DATE="2024-06-13")
    assert describe_pair(safe, sar)["acquired"]["days_apart"] == 11


class TestRealRasters:
    pytestmark = needs(DATA)

    def test_bigearthnet(self) -> None:
        folder = DATA / "bigearthnet/35VPK_69_24"
        told = describe_pair(str(folder / "S2B*_B0[234].tif"), str(folder / "S1A*.tif"))
        assert told["acquired"] == {
            "optical": "2017-09-24 (by name)",
            "sar": "2017-09-25 (by name)",
            "days_apart": 1,
        }
        assert told["acquired"]["days_apart"] == 1
