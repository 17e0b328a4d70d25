"""The map from one grid's pixels to another's: one transformation a pair, replaced by affine pieces."""

from __future__ import annotations

import threading
import warnings

import numpy as np
from numpy.typing import NDArray
from odc.geo.crs import CRS
from pyproj import Transformer
from pyproj.exceptions import ProjError
from pyproj.transformer import AreaOfInterest, TransformerGroup

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox, Window, same_crs
from gopt_geo.scene.controlpoints import ControlPoints

__all__ = ["PixelMap"]

_PLANNING = threading.Lock()  # warnings.catch_warnings swaps process-wide state

_STEPS = np.linspace(-1.0, 1.0, 5)
_NODES = np.stack(np.meshgrid(_STEPS, _STEPS), axis=-1).reshape(-1, 2)
_DESIGN = np.column_stack([_NODES, np.ones(len(_NODES))])
_SOLVE = np.linalg.pinv(_DESIGN)


class PixelMap:
    """Maps continuous pixel coordinates (column, row) of `target` to those of `source`.

    Pixels' corners are whole numbers. The coordinate operation is chosen once, for the area of the target.
    GDAL and PROJ choose anew for each batch of points, which can tear an image where several datum shifts
    compete.

    Parameters
    ----------
    target, source
        Grids; both have a CRS, or neither.
    name
        The source's name in messages.
    control
        The source's control points, if those place it: `source` is the affine grid that fits them best, and the map
        goes on to the true pixels.

    Attributes
    ----------
    notice : str or None
        What the user should know about the accuracy of the operation.

    Raises
    ------
    GridError
        If only one grid has a CRS, or PROJ knows no way between the two.
    """

    def __init__(self, target: GeoBox, source: GeoBox, name: str, control: ControlPoints | None = None) -> None:
        self.target, self.source = target, source
        self.notice: str | None = None
        self._control = control
        self._operation: Transformer | None = None
        self._to_world = np.array(target.affine[:6]).reshape(2, 3)
        self._to_pixel = np.array((~source.affine)[:6]).reshape(2, 3)
        if not same_crs(target.crs, source.crs):
            if target.crs is None or source.crs is None:
                raise GridError(name, "only one of the grids has a CRS", "set the other with gdal_edit -a_srs")
            self._operation = self._choose_operation(target.crs, source.crs, name)

    def _choose_operation(self, target: CRS, source: CRS, name: str) -> Transformer:
        with _PLANNING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "best transformation is not available" becomes the notice
            try:
                group = TransformerGroup(target.proj, source.proj, always_xy=True, area_of_interest=self._area(target))
            except ProjError as error:
                raise GridError(name, f"its CRS can't be reached ({error})", "warp it first with gdalwarp") from error
        if not group.transformers:
            raise GridError(name, "PROJ knows no way from its CRS to the scene's", "warp it first with gdalwarp")
        chosen = group.transformers[0]
        if not group.best_available:
            accuracy = f"about {chosen.accuracy:g} m" if chosen.accuracy >= 0 else "unknown"
            self.notice = f"{name}: PROJ lacks the grid for the best datum shift; accuracy {accuracy}"
        return Transformer.from_pipeline(chosen.definition)

    def _area(self, crs: CRS) -> AreaOfInterest | None:
        """Return the target's bounds in degrees, None where PROJ can't tell them."""
        if crs.proj.geodetic_crs is None:
            return None
        height, width = self.target.shape
        corners = np.array([(0, 0), (width, 0), (0, height), (width, height)])
        corners = corners @ self._to_world[:, :2].T + self._to_world[:, 2]
        degrees = Transformer.from_crs(crs.proj, crs.proj.geodetic_crs, always_xy=True)
        bounds = degrees.transform_bounds(*corners.min(axis=0), *corners.max(axis=0))
        return AreaOfInterest(*bounds) if np.isfinite(bounds).all() else None

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points [n, 2] of (column, row); NaN or infinite where the transformation isn't defined."""
        world = points @ self._to_world[:, :2].T + self._to_world[:, 2]
        if self._operation is not None:
            world = np.stack(self._operation.transform(world[:, 0], world[:, 1]), axis=1)
        with np.errstate(invalid="ignore"):
            pixels = np.asarray(world @ self._to_pixel[:, :2].T + self._to_pixel[:, 2])
        return pixels if self._control is None else self._control.correct(pixels)

    def fit(self, window: Window) -> tuple[NDArray[np.float64], float]:
        """Fit an affine map from pixels of `window` (its corner is (0, 0)) to pixels of the source.

        Returns
        -------
        matrix : float64 [2, 3]
            Least squares over 5 x 5 points from edge to edge.
        error : float
            Largest distance from the true map at these points, in pixels of the source; NaN where the map
            isn't defined at some of the points, infinite where it is at none.
        """
        half = np.array([window.width / 2, window.height / 2])
        nodes = self(_NODES * half + half + (window.col, window.row))
        defined = np.isfinite(nodes).all(axis=1)
        if not defined.all():
            return np.full((2, 3), np.nan), np.nan if defined.any() else np.inf
        fitted = _SOLVE @ nodes
        error = float(np.hypot(*(_DESIGN @ fitted - nodes).T).max())
        slope = fitted[:2].T / half
        return np.column_stack([slope, fitted[2] - slope @ half]), error

    def scale(self) -> tuple[float, float]:
        """Return source pixels per target pixel along the source's x and y, at the centre of the overlap."""
        height, width = self.target.shape
        grid = np.stack(np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33)), axis=-1).reshape(-1, 2)
        with np.errstate(invalid="ignore"):
            mapped = self(grid)
            inside = ((mapped >= 0) & (mapped <= self.source.shape[::-1])).all(axis=1)
        col, row = grid[inside].mean(axis=0) if inside.any() else (width / 2, height / 2)
        matrix, error = self.fit(Window(int(row), int(col), 1, 1))
        if not np.isfinite(error):
            return 1.0, 1.0
        return float(np.hypot(*matrix[0, :2])), float(np.hypot(*matrix[1, :2]))
