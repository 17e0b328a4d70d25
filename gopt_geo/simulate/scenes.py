"""A simulated scene in memory and as files: optical, SAR, labels and cloud mask on their grids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import ColorInterp

from gopt_geo.errors import GridError
from gopt_geo.grid import pixel_size_m
from gopt_geo.simulate.landscape import Landscape, make_landscape
from gopt_geo.simulate.materials import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES
from gopt_geo.simulate.optical import OPTICAL_BANDS, add_clouds, render_optical
from gopt_geo.simulate.sar import SAR_BANDS, backscatter, speckle

__all__ = ["SceneSpec", "SimulatedScene", "simulate_scene", "write_scene"]

_MARGIN = 48  # pixels of ground around the optical grid, so that a SAR grid askew to it has data to its corners
_DN = 10000  # digital numbers per unit of reflectance, as Sentinel-2 delivers them


@dataclass(frozen=True)
class SceneSpec:
    """What to simulate.

    Attributes
    ----------
    seed
        Everything random derives from it.
    height, width
        Of the optical grid in pixels.
    crs
        Of the optical grid, any that pyproj reads.
    resolution
        Pixel size in units of the CRS.
    origin
        Upper left corner (x, y) in the CRS.
    sar_bands
        1 (VV) or 2 (VV, VH).
    looks
        Equivalent number of looks of the SAR.
    cloud
        Share of the optical image under cloud or shadow, 0 to 1.
    sar_crs, sar_resolution
        Of the SAR grid where it differs from the optical one; resolution in units of ``sar_crs``.
    """

    seed: int
    height: int = 512
    width: int = 512
    crs: str = "EPSG:32632"
    resolution: float = 10.0
    origin: tuple[float, float] = (600000.0, 5400000.0)
    sar_bands: int = 1
    looks: float = 4.0
    cloud: float = 0.0
    sar_crs: str | None = None
    sar_resolution: float | None = None

    @property
    def grid(self) -> GeoBox:
        """The optical grid."""
        affine = Affine(self.resolution, 0, self.origin[0], 0, -self.resolution, self.origin[1])
        return GeoBox((self.height, self.width), affine, self.crs)

    @property
    def sar_grid(self) -> GeoBox:
        """The SAR grid: the optical one, unless another CRS or resolution was asked for."""
        if self.sar_crs is None and self.sar_resolution is None:
            return self.grid
        crs = self.sar_crs or self.crs
        box = self.grid.extent.to_crs(crs).boundingbox
        resolution = self.sar_resolution
        if resolution is None:
            projected = self.grid.to_crs(crs)
            resolution = float(abs(projected.resolution.x))
        rows, cols = (math.ceil(span / resolution) for span in (box.span_y, box.span_x))
        affine = Affine(resolution, 0, box.left, 0, -resolution, box.top)
        return GeoBox((max(rows, 1), max(cols, 1)), affine, crs)


@dataclass(frozen=True)
class SimulatedScene:
    """Arrays of one simulated scene.

    Attributes
    ----------
    optical
        float32 [4, H, W], reflectance (red, green, blue, near infrared).
    sar
        float32 [bands, h, w] on the SAR grid, power; NaN outside the simulated ground.
    labels
        uint8 [H, W], class index.
    clouds
        uint8 [H, W]: 0 clear, 1 cloud, 2 shadow.
    """

    optical: NDArray[np.float32]
    sar: NDArray[np.float32]
    labels: NDArray[np.uint8]
    clouds: NDArray[np.uint8]


def simulate_scene(spec: SceneSpec) -> SimulatedScene:
    """Simulate a scene in memory; the same specification gives the same arrays.

    Raises
    ------
    GridError
        If the grid's pixel size in metres can't be found (a CRS without an area of use at this place).
    """
    size = pixel_size_m(spec.grid)
    if not (math.isfinite(size) and 0.5 <= size <= 200.0):
        raise GridError(
            f"--resolution {spec.resolution:g}",
            f"pixels of {size:.3g} m on the ground in {spec.crs}"
            if math.isfinite(size)
            else f"the scene leaves the earth in {spec.crs}",
            "give a resolution in units of the CRS that makes pixels of 0.5 to 200 m",
        )
    shape = (spec.height + 2 * _MARGIN, spec.width + 2 * _MARGIN)
    land = make_landscape(shape, size, spec.seed)
    inner = (slice(_MARGIN, _MARGIN + spec.height), slice(_MARGIN, _MARGIN + spec.width))
    optical = render_optical(land, spec.seed)[:, inner[0], inner[1]]
    optical, clouds = add_clouds(optical, size, spec.cloud, spec.seed)
    power = backscatter(land, spec.seed, spec.sar_bands)
    sar = power[:, inner[0], inner[1]] if spec.sar_grid == spec.grid else _look_up(power, spec, land)
    return SimulatedScene(optical, speckle(sar, spec.looks, spec.seed), land.label[inner].copy(), clouds)


def _look_up(power: NDArray[np.float32], spec: SceneSpec, land: Landscape) -> NDArray[np.float32]:
    """Mean backscatter in the SAR grid's pixels; NaN where any of a pixel lies off the simulated ground.

    A pixel about as large as the ground's takes the value at its centre; a larger one the mean over as many points
    a side as it spans.
    """
    coarser = pixel_size_m(spec.sar_grid) / land.pixel_size
    points = int(np.clip(np.rint(coarser), 1, 16))
    offsets = (np.arange(points) + 0.5) / points
    transformer = Transformer.from_crs(spec.sar_crs or spec.crs, spec.crs, always_xy=True)
    height, width = land.label.shape
    total = np.zeros((len(power), *spec.sar_grid.shape), dtype=np.float32)
    for down in offsets:
        for right in offsets:
            rows, cols = np.meshgrid(
                *(np.arange(n) + part for n, part in zip(spec.sar_grid.shape, (down, right), strict=True)),
                indexing="ij",
            )
            x, y = spec.sar_grid.affine * (cols, rows)
            col, row = ~spec.grid.affine * transformer.transform(x, y)
            row, col = np.floor(row + _MARGIN), np.floor(col + _MARGIN)
            inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
            total[:, inside] += power[:, row[inside].astype(np.intp), col[inside].astype(np.intp)]
            total[:, ~inside] = np.nan
    return np.asarray(total / points**2, dtype=np.float32)


def write_scene(spec: SceneSpec, paths: Mapping[str, Path]) -> None:
    """Simulate a scene and write its four rasters.

    Reflectance is stored as uint16 digital numbers with scale 0.0001, backscatter as float32 in dB with its unit
    in the band tags, labels as uint8 in WHU-OPT-SAR's encoding (0 no label) with a colour table.

    Parameters
    ----------
    spec
        What to simulate.
    paths
        Where ``scene``, ``sar``, ``labels`` and ``clouds`` go; files there are overwritten: the caller asks first.
    """
    scene = simulate_scene(spec)
    numbers = np.clip(np.rint(scene.optical * _DN), 1, 65534).astype(np.uint16)
    tags = {
        "GOPT_GEO_SIMULATED": f"seed {spec.seed}, {spec.looks:g} looks, cloud share {spec.cloud:g}",
        "TIFFTAG_IMAGEDESCRIPTION": "Simulated by gopt-geo; shows no real place",
    }
    _write(paths["scene"], numbers, spec.grid, OPTICAL_BANDS, tags, nodata=0, scale=1 / _DN)
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = 10.0 * np.log10(scene.sar)
    # 1/256 dB is far below the speckle, and lets the file compress.
    decibel = np.asarray(np.round(decibel * 256) / 256, dtype=np.float32)
    names = SAR_BANDS[: spec.sar_bands]
    _write(paths["sar"], decibel, spec.sar_grid, names, tags, nodata=math.nan, unit="dB")
    values = np.array(CLASS_VALUES, dtype=np.uint8)[scene.labels]
    legend = dict(zip(CLASS_VALUES, CLASS_COLORS, strict=True))
    classes = ", ".join(f"{v} {n}" for v, n in zip(CLASS_VALUES, CLASS_NAMES, strict=True))
    _write(paths["labels"], values[None], spec.grid, ("label",), tags | {"CLASSES": classes}, nodata=0, colors=legend)
    cloud_tags = tags | {"VALUES": "0 clear, 1 cloud, 2 shadow"}
    _write(paths["clouds"], scene.clouds[None], spec.grid, ("cloud",), cloud_tags, nodata=None)


def _write(
    path: Path,
    data: NDArray[np.generic],
    grid: GeoBox,
    names: tuple[str, ...],
    tags: dict[str, str],
    *,
    nodata: float | None,
    scale: float | None = None,
    unit: str | None = None,
    colors: dict[int, str] | None = None,
) -> None:
    """Write one tiled, compressed GeoTIFF."""
    profile = {
        "driver": "GTiff",
        "count": data.shape[0],
        "height": data.shape[1],
        "width": data.shape[2],
        "dtype": data.dtype,
        "crs": str(grid.crs),
        "transform": grid.affine,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 1 if data.dtype == np.uint8 else 3 if data.dtype == np.float32 else 2,
    }
    with rasterio.open(path, "w", **profile) as target:
        target.write(data)
        target.descriptions = names
        target.update_tags(**tags)
        if scale is not None:
            target.scales = (scale,) * data.shape[0]
        if unit is not None:
            target.units = (unit,) * data.shape[0]
        if colors is not None:
            table = {v: (*(int(c[i : i + 2], 16) for i in (1, 3, 5)), 255) for v, c in colors.items()}
            target.write_colormap(1, table)
        elif len(names) >= 3:
            others = (ColorInterp.undefined,) * (len(names) - 3)
            target.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, *others)
