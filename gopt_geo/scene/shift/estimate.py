"""The residual shift between two modalities of a scene, and whether it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene.moving import compose
from gopt_geo.scene.scene import SceneBlock
from gopt_geo.scene.shift.layout import LEAST_EDGE, place_templates, template_edge
from gopt_geo.scene.shift.matching import Match, correlate, peak, similarity
from gopt_geo.scene.shift.structure import MARGIN, structure
from gopt_geo.wording import counted

__all__ = ["ShiftEstimate", "ShiftPoint", "SomeScene", "estimate_shift"]

_SIGMA = {"optical": 0.7, "auxiliary": 1.0}  # pixels; more smooths speckle, and blurs where edges lie
_DATA = 0.3  # share of a template and of its SAR window that must carry data
_LEAST_POINTS = 4  # fewer can't disagree
# Both chosen on a part of real pairs that benchmarks/coregistration.py doesn't report on.
_CHANCE = 1.8  # times the best fit of mirrored SAR: below it the fit may be chance
_APART = 1.5  # pixels; parts of the scene that differ by more in the median don't see one and the same shift
_SURE = 1.2  # the same as _CHANCE, for single points: which of them the spread is taken from


class SomeScene(Protocol):
    """What the estimate needs of a scene."""

    shape: tuple[int, int]

    def read(self, window: Window) -> SceneBlock:
        """Read a window, which may hang over the edges."""
        ...


@dataclass(frozen=True)
class ShiftPoint:
    """The shift at one point.

    Attributes
    ----------
    x, y
        The point in pixels of the scene grid, from the grid's upper left corner.
    dx, dy
        The shift there in pixels, right and down; NaN if the best fit lies at the end of the search.
    confidence
        How much better SAR fits there than mirrored SAR does at its best: 1 is chance.
    """

    x: float
    y: float
    dx: float
    dy: float
    confidence: float


@dataclass(frozen=True)
class ShiftEstimate:
    """The shift of a scene.

    Attributes
    ----------
    reliable
        Whether the estimate can be trusted; `dx`, `dy` and `spread` are NaN otherwise.
    dx, dy
        How far the auxiliary content lies from where it belongs, in pixels of the scene grid, right and down.
    spread
        Median distance in pixels of the trusted points' shifts from it; NaN with fewer than two of them.
    points
        Points with enough data, by rows.
    fit
        How much better SAR fits than mirrored SAR at its best, all points together; 1 is chance.
    apart
        Median distance in pixels between the estimates of parts of the scene and that of the whole.
    reason
        Why it isn't reliable, "" if it is.
    best
        dx, dy of the best fit whether it is reliable or not, for studies of the gate; NaN without any.
    """

    reliable: bool
    dx: float
    dy: float
    spread: float
    points: tuple[ShiftPoint, ...]
    fit: float
    apart: float
    reason: str
    best: tuple[float, float] = (math.nan, math.nan)

    def on(self, place: GeoBox, grid: GeoBox) -> ShiftEstimate:
        """Return the estimate, made on the grid `place`, in pixels of another grid with the same CRS and directions."""
        a, b, c, d, e, f = compose(~grid.affine, place.affine)[:6]
        size = math.sqrt(abs(a * e - b * d))

        def point(p: ShiftPoint) -> ShiftPoint:
            x, y = a * p.x + b * p.y + c, d * p.x + e * p.y + f
            return replace(p, x=x, y=y, dx=a * p.dx + b * p.dy, dy=d * p.dx + e * p.dy)

        return replace(
            self,
            dx=a * self.dx + b * self.dy,
            dy=d * self.dx + e * self.dy,
            spread=size * self.spread,
            points=tuple(point(p) for p in self.points),
            best=(a * self.best[0] + b * self.best[1], d * self.best[0] + e * self.best[1]),
        )

    @property
    def length(self) -> float:
        """Length of the shift in pixels."""
        return math.hypot(self.dx, self.dy)

    @property
    def trusted(self) -> tuple[ShiftPoint, ...]:
        """Points that fit well enough to be looked at alone."""
        return tuple(p for p in self.points if p.confidence >= _SURE and math.isfinite(p.dx))


def estimate_shift(
    scene: SomeScene, auxiliary: str = "sar", *, points: int = 64, search: int = 12, optical: str = "optical"
) -> ShiftEstimate:
    """Estimate how far an auxiliary modality lies from where it belongs.

    Parameters
    ----------
    scene
        Its modalities; windows around the points are read, nothing else.
    auxiliary, optical
        Which modality is compared with which.
    points
        How many at most; small scenes hold fewer.
    search
        Largest shift that is looked for, in pixels along each axis.

    Returns
    -------
    ShiftEstimate

    Notes
    -----
    The products of both structures (`gopt_geo.scene.shift.structure`) are summed over all points, shift by shift; the
    best shift of the sum is the estimate. It is reliable where both hold: the sum fits better than the best that SAR
    mirrored in place reaches (there is nothing true to find in it), and parts of the scene (halves, and the two
    colours of a chessboard of points) find the same shift by themselves.
    """
    edge = template_edge(scene.shape)
    found: list[tuple[int, int, Window, Match]] = []
    if edge >= LEAST_EDGE:
        for row, col, window in place_templates(scene.shape, points, edge):
            match = _match(scene, window, optical, auxiliary, search)
            if match is not None:
                found.append((row, col, window, match))
    places = tuple(_point(window, match) for _, _, window, match in found)
    if len(found) < _LEAST_POINTS:
        few = "no point" if not found else f"{counted(len(found), 'point')} only"
        return _unreliable(places, f"{few} with enough data in both rasters, at least {_LEAST_POINTS} are needed")
    return _decide(places, found)


def _match(scene: SomeScene, window: Window, optical: str, auxiliary: str, search: int) -> Match | None:
    """Compare both modalities around one template, None where there is too little data."""
    around = search + MARGIN
    block = scene.read(
        Window(window.row - around, window.col - around, window.height + 2 * around, window.width + 2 * around)
    )
    inner = slice(around, around + window.height), slice(around, around + window.width)
    if block.valid[optical][inner].mean() < _DATA or block.valid[auxiliary].mean() < _DATA:
        return None
    near = slice(search, search + window.height + 2 * MARGIN), slice(search, search + window.width + 2 * MARGIN)
    template = _structure(block.values[optical][:, *near], block.valid[optical][near], _SIGMA["optical"])
    sar = _structure(block.values[auxiliary], block.valid[auxiliary], _SIGMA["auxiliary"])
    if template[1].mean() < _DATA or not template[0].any() or not sar[0].any():
        return None
    return correlate(template, sar, search)


def _structure(
    values: NDArray[np.float32], valid: NDArray[np.bool_], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return structure without the margin."""
    channels, support = structure(values, valid, sigma)
    cut = slice(MARGIN, -MARGIN)
    return channels[:, cut, cut], support[cut, cut]


def _fit(match: Match) -> tuple[float, float, float]:
    """Return dx, dy, and how much better than chance the fit is."""
    dx, dy, height = peak(similarity(match.true))
    chance = float(similarity(match.mirrors).max())
    return dx, dy, max(height, 0.0) / max(chance, 1e-6)


def _point(window: Window, match: Match) -> ShiftPoint:
    dx, dy, confidence = _fit(match)
    return ShiftPoint(window.col + window.width / 2, window.row + window.height / 2, dx, dy, confidence)


def _parts(found: Sequence[tuple[int, int, Window, Match]]) -> list[list[Match]]:
    """Divide the points in two, in three ways."""
    mid_row = float(np.median([window.row for _, _, window, _ in found]))
    mid_col = float(np.median([window.col for _, _, window, _ in found]))
    sides: list[list[Match]] = [[] for _ in range(6)]
    for row, col, window, match in found:
        sides[(row + col) % 2].append(match)
        sides[2 + (window.row > mid_row)].append(match)
        sides[4 + (window.col > mid_col)].append(match)
    return [side for side in sides if side]


def _decide(places: tuple[ShiftPoint, ...], found: Sequence[tuple[int, int, Window, Match]]) -> ShiftEstimate:
    dx, dy, fit = _fit(Match.total([match for _, _, _, match in found]))
    away = []
    for part in _parts(found):
        x, y, _ = peak(similarity(Match.total(part).true))
        distance = math.hypot(x - dx, y - dy)
        away.append(distance if math.isfinite(distance) else math.inf)
    apart = float(np.median(away))
    best = dx, dy
    reason = _doubt(dx, fit, apart)
    if reason:
        return ShiftEstimate(False, math.nan, math.nan, math.nan, places, fit, apart, reason, best)
    estimate = ShiftEstimate(True, dx, dy, math.nan, places, fit, apart, "", best)
    trusted = estimate.trusted
    if len(trusted) < 2:
        return estimate
    return replace(estimate, spread=float(np.median([math.hypot(p.dx - dx, p.dy - dy) for p in trusted])))


def _doubt(dx: float, fit: float, apart: float) -> str:
    """Say why an estimate can't be trusted, "" if it can."""
    if not math.isfinite(dx):
        return "the best fit lies at the end of the search"
    if fit < _CHANCE:
        return f"SAR fits {fit:.2f} times as well as chance, {_CHANCE} are needed"
    if apart > _APART:
        return f"parts of the scene differ by {apart:.1f} pixels" if math.isfinite(apart) else "no part agrees"
    return ""


def _unreliable(points: tuple[ShiftPoint, ...], reason: str) -> ShiftEstimate:
    nan = math.nan
    return ShiftEstimate(False, nan, nan, nan, points, nan, nan, reason)
