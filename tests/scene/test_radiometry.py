from __future__ import annotations

import numpy as np
import pytest

from gopt_geo.errors import RadiometryError
from gopt_geo.grid import Window
from gopt_geo.scene import RasterSource, plan_radiometry

WHOLE = Window(0, 0, 1, 4)


def convert(raster, stored, stated, target, option="--sar-units", **tags):
    """Write a raster of one row, plan, and run both steps without a warp between."""
    array = np.asarray(stored).reshape(1, 1, -1)
    tags = {key: (value,) if key != "nodata" else value for key, value in tags.items()}
    with RasterSource(raster("a.tif", array, **tags)) as source:
        plan, notices = plan_radiometry(source, stated, target, option)
        values, valid = plan.after_warp(*plan.before_warp(*source.read(Window(0, 0, 1, array.shape[2]))))
    assert values.dtype == np.float32
    return values[0, 0], valid[0], notices


@pytest.mark.parametrize(
    ("dtype", "units", "stored", "expected"),
    [
        ("uint16", "dn10000", [0, 5000, 10000, 12000], [0, 0.5, 1, 1.2]),
        ("uint8", "byte", [0, 51, 255], [0, 0.2, 1]),
        ("float32", "reflectance", [0.1, 0.9], [0.1, 0.9]),
        ("uint8", "raw", [3, 7], [3, 7]),
        ("float32", None, [0.1, 0.9], [0.1, 0.9]),
    ],
)
@pytest.mark.brief
def test_optical_units(raster, dtype, units, stored, expected) -> None:
    values, valid, notices = convert(raster, np.array(stored, dtype), units, "reflectance", "--optical-units")
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert valid.all()
    assert len(notices) == (units in (None, "raw"))


def test_scale_and_offset_tags_are_a_statement(raster) -> None:
    values, _, notices = convert(
        raster, np.array([1000, 2000], "uint16"), None, "reflectance", scales=1e-4, offsets=-0.1
    )
    np.testing.assert_allclose(values, [0, 0.1], atol=1e-7)
    assert notices == []


@pytest.mark.parametrize("units", ["dn10000", "byte"])
def test_scaling_twice_is_refused(raster, units) -> None:
    with pytest.raises(RadiometryError, match="scale twice"):
        convert(raster, np.array([1000], "uint16"), units, "reflectance", scales=1e-4)


def test_raw_ignores_tags_and_says_so(raster) -> None:
    values, _, notices = convert(raster, np.array([1000], "uint16"), "raw", "reflectance", scales=1e-4)
    assert values[0] == 1000
    assert "aren't applied" in notices[0]


def test_integers_without_a_unit_are_refused(raster) -> None:
    with pytest.raises(RadiometryError) as caught:
        convert(raster, np.array([1], "uint16"), None, "reflectance", "--optical-units")
    text = str(caught.value)
    assert "a.tif: uint16 values without a stated unit" in text
    for word in ("--optical-units", "dn10000", "byte", "raw"):
        assert word in text
    with pytest.raises(RadiometryError, match=r"--sar-units db\|power\|amplitude\|raw"):
        convert(raster, np.array([1], "int16"), None, "db")


@pytest.mark.parametrize(("units", "target"), [("db", "reflectance"), ("dn10000", "db"), ("dB", "db")])
def test_a_unit_of_the_other_family_is_refused(raster, units, target) -> None:
    with pytest.raises(RadiometryError, match="isn't a unit"):
        convert(raster, np.array([1.0], "float32"), units, target)


POWER = np.array([0.001, 0.1, 1, 10], "float32")
DECIBELS = np.array([-30, -10, 0, 10], "float32")


@pytest.mark.parametrize(
    ("stored", "units", "unit_tag"),
    [
        (DECIBELS, "db", ""),
        (DECIBELS, None, "dB"),
        (DECIBELS, None, "decibel"),
        (POWER, "power", ""),
        (POWER, None, "Linear"),
        (POWER, None, "power"),
        (np.sqrt(POWER), "amplitude", ""),
        (np.sqrt(POWER), None, "amplitude"),
    ],
)
@pytest.mark.parametrize(("target", "expected"), [("db", DECIBELS), ("power", POWER)])
@pytest.mark.brief
def test_sar_units(raster, stored, units, unit_tag, target, expected) -> None:
    values, valid, notices = convert(raster, stored, units, target, units=unit_tag)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    assert valid.all()
    assert notices == []


def test_floats_without_a_unit_are_taken_as_decibels_with_a_notice(raster) -> None:
    values, _, notices = convert(raster, DECIBELS, None, "db")
    np.testing.assert_array_equal(values, DECIBELS)
    assert "dB" in notices[0]
    assert "--sar-units" in notices[0]


def test_a_statement_against_the_tag_wins_with_a_notice(raster) -> None:
    values, _, notices = convert(raster, POWER, "power", "db", units="dB")
    np.testing.assert_allclose(values, DECIBELS, atol=1e-5)
    assert "unit tag says dB" in notices[0]


def test_scaled_integers_in_decibels(raster) -> None:
    values, _, _ = convert(raster, np.array([-3000, 100], "int16"), "db", "db", scales=0.01)
    np.testing.assert_allclose(values, [-30, 1], rtol=1e-6)


@pytest.mark.parametrize("units", ["power", "amplitude"])
def test_nothing_measured_is_invalid(raster, units) -> None:
    values, valid, _ = convert(raster, np.array([1, 0, -2, 4], "float32"), units, "db")
    np.testing.assert_array_equal(valid, [True, False, False, True])
    assert np.isfinite(values).all()
    assert not values[~valid].any()


def test_decibels_that_overflow_power_are_invalid(raster) -> None:
    values, valid, _ = convert(raster, np.array([0, 1000], "float32"), "db", "power")
    np.testing.assert_array_equal(valid, [True, False])
    assert values[1] == 0


def test_raw_target_takes_what_the_tags_say(raster) -> None:
    values, _, notices = convert(raster, np.array([4], "uint8"), None, "raw", scales=0.5)
    assert values[0] == 2
    assert notices == []
    assert convert(raster, np.array([4], "uint8"), "raw", "raw", scales=0.5)[0][0] == 4
    with pytest.raises(RadiometryError, match="isn't a unit"):
        convert(raster, np.array([4], "uint8"), "kelvin", "raw")


def test_bands_of_different_units_are_refused(raster) -> None:
    path = raster("a.tif", np.ones((2, 1, 4), "float32"), units=("dB", "degree"))
    with RasterSource(path) as source, pytest.raises(RadiometryError, match="units differ"):
        plan_radiometry(source, None, "db", "--sar-units")
    with RasterSource(path, [1]) as source:
        assert plan_radiometry(source, None, "db", "--sar-units")[1] == []


def test_an_unknown_target_is_the_programmers_mistake(raster) -> None:
    with pytest.raises(ValueError, match="kelvin"):
        convert(raster, np.array([1.0], "float32"), None, "kelvin")
