"""How many units a stratified sample takes, and how many of them from each stratum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gopt_geo.classnames import find_class, meant_classes
from gopt_geo.errors import SampleError

__all__ = ["MINIMUM", "Allocation", "allocate", "expected_accuracies", "least_units", "required_units"]

Allocation = Literal["proportional", "equal", "olofsson"]
MINIMUM = 50
"""Units of a rare class by default, the lower end of what Olofsson et al. (2014, section 5.1.2) advise."""
_LEAST = 2  # one unit can't tell a variance


def required_units(
    pixels: NDArray[np.int64], weights: NDArray[np.float64], accuracies: NDArray[np.float64], target_se: float
) -> int:
    """Return how many units give the overall accuracy a standard error (Olofsson et al. 2014, eq. 13).

    n = (sum W_i S_i)^2 / (S(O)^2 + sum W_i S_i^2 / N) with S_i = sqrt(U_i (1 - U_i)); rounded up.

    Parameters
    ----------
    pixels, weights
        Of the strata, [H]: N_i, and W_i, shares of the area.
    accuracies
        Expected user's accuracies U_i, [H].
    target_se
        S(O), above 0.

    Raises
    ------
    SampleError
        If the standard error isn't between 0 and 0.5, or accuracies of 1 leave nothing to estimate.
    """
    if not 0 < target_se < 0.5:
        raise SampleError("--target-se", f"{target_se:g} is out of range", "give a standard error such as 0.01")
    spread = np.sqrt(accuracies * (1 - accuracies))
    if not spread.any():
        raise SampleError("--expected-accuracy", "without any error there is nothing to estimate", "expect below 1")
    below = target_se**2 + float(weights @ spread**2) / float(pixels.sum())
    return math.ceil(float(weights @ spread) ** 2 / below - 1e-9)


def expected_accuracies(text: str, classes: Mapping[int, str]) -> NDArray[np.float64]:
    """Read expected user's accuracies, [H] in the order of the classes: 0.85 for all, or water=0.95,2=0.7,0.85.

    Parameters
    ----------
    text
        A number for all classes, ``CLASS=NUMBER`` for one by name (in any case) or value, with commas in between.
    classes
        Names by value.

    Raises
    ------
    SampleError
        If it can't be read, names no class of these, leaves one out, or isn't from 0 to 1.
    """
    option = "--expected-accuracy"
    by_name = {name: value for value, name in classes.items()} | {str(value): value for value in classes}
    called = [f"{name} ({value})" for value, name in classes.items()]
    common: float | None = None
    own: dict[int, float] = {}
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        try:
            accuracy = float(number)
        except ValueError:
            accuracy = math.nan
        if not 0 <= accuracy <= 1:
            raise SampleError(option, f"{part.strip()!r} gives no accuracy from 0 to 1", "write 0.85, or water=0.9,0.8")
        if not equals:
            common = accuracy
        elif (value := find_class(name.strip(), by_name)) is not None:
            own[value] = accuracy
        else:
            found = f"{name.strip()!r} is no class of the map"
            raise SampleError(option, found, meant_classes(name, classes.values(), called))
    missing = [name for value, name in classes.items() if value not in own]
    if common is None and missing:
        raise SampleError(option, f"{', '.join(missing)}: no accuracy is given", "add them, or a number for all others")
    return np.array([own.get(value, common if common is not None else 0.0) for value in classes])


def least_units(pixels: NDArray[np.int64], method: Allocation, minimum: int | None = None) -> NDArray[np.int64]:
    """Return the least units of each stratum, [H]; see `allocate`."""
    if method not in get_args(Allocation):
        raise SampleError("--allocation", f"{method!r} is unknown", f"choose from {', '.join(get_args(Allocation))}")
    least = minimum if minimum is not None else MINIMUM if method == "olofsson" else _LEAST
    if least < _LEAST:
        raise SampleError("--minimum", f"{least} units can't tell a variance", f"give {_LEAST} or more")
    return np.minimum(least, pixels)


def allocate(
    total: int,
    pixels: NDArray[np.int64],
    weights: NDArray[np.float64],
    method: Allocation = "olofsson",
    minimum: int | None = None,
) -> NDArray[np.int64]:
    """Share units out among strata; their sum is the total.

    Parameters
    ----------
    total
        Units.
    pixels, weights
        Of the strata, [H]; no stratum gives more units than it has pixels.
    method
        By the strata's areas ("proportional"), the same to each ("equal"), or `minimum` to each stratum that would get
        less and the rest by area (the compromise of Olofsson et al. 2014, section 5.1.2; "olofsson").
    minimum
        Least units of a stratum; None stands for 50 with "olofsson", else 2.

    Raises
    ------
    SampleError
        If the total doesn't suffice, or is more than there are pixels.
    """
    floors = least_units(pixels, method, minimum)
    if total > pixels.sum():
        raise SampleError("-n", f"{total} units of {pixels.sum()} pixels", "ask for fewer units, or a larger area")
    if total < floors.sum():
        found = f"{total} units don't suffice for {len(pixels)} strata of at least {floors.max()}"
        raise SampleError("-n", found, f"ask for {floors.sum()} or more, or lower --minimum")
    sizes = np.ones(len(pixels)) if method == "equal" else weights
    return _share_out(total, floors, pixels, sizes)


def _share_out(
    total: int, floors: NDArray[np.int64], caps: NDArray[np.int64], sizes: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Share in proportion to sizes between floors and caps: whoever would be beyond a limit gets it, until none is."""
    # The multiplier is monotone in the total, so that halving finds it; then whole units by the largest remainders.
    low, high = 0.0, 2.0 * float((caps / sizes).max())
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(middle * sizes, floors, caps).sum() < total:
            low = middle
        else:
            high = middle
    ideal = np.clip(high * sizes, floors, caps)
    units = np.clip(np.floor(ideal + 1e-9).astype(np.int64), floors, caps)
    order = np.argsort(-(ideal - units), kind="stable")
    while (missing := total - int(units.sum())) > 0:
        units[order[units[order] < caps[order]][:missing]] += 1
    return units
