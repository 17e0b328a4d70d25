"""The verbs of the command line as functions on paths and arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pyproj import CRS
from pyproj.exceptions import CRSError

from gopt_geo.assessment.evaluate import Assessment
from gopt_geo.ceiling import bounded_gdal_cache
from gopt_geo.coregistration import CoregisterReport, coregister
from gopt_geo.description import describe, describe_pair
from gopt_geo.errors import GoptGeoError, GridError, OutputError
from gopt_geo.evaluation import PackAssessment, evaluate, evaluate_pack
from gopt_geo.groups import picture_groups
from gopt_geo.mapping import Progress
from gopt_geo.maprows import MapRows, RowStream, predict_rows
from gopt_geo.outputs.staging import VECTOR_ENDINGS, Staging
from gopt_geo.outputs.vectors import vectorize as write_polygons
from gopt_geo.paths import StrPath, as_paths
from gopt_geo.predicting import predict
from gopt_geo.prediction import PredictReport
from gopt_geo.samples import SampleAssessment, SampleReport, evaluate_sample, sample
from gopt_geo.scene.bandfiles import Source
from gopt_geo.search import FoundScene, find_scene
from gopt_geo.simulate import SceneSpec, write_scene
from gopt_geo.sources import SourceOptions
from gopt_geo.training.datacheck import check_training

if TYPE_CHECKING:
    from gopt_geo.training.config import TrainConfig
    from gopt_geo.training.progress import TrainProgress
    from gopt_geo.training.run import TrainReport

__all__ = [
    "Assessment",
    "CoregisterReport",
    "FoundScene",
    "MapRows",
    "PackAssessment",
    "PredictReport",
    "Progress",
    "RowStream",
    "SampleAssessment",
    "SampleReport",
    "check_training",
    "coregister",
    "evaluate",
    "evaluate_pack",
    "evaluate_sample",
    "find_scene",
    "info",
    "predict",
    "predict_rows",
    "sample",
    "simulate_files",
    "train",
    "vectorize",
]


def info(
    path: Source,
    sar: Source | None = None,
    *,
    groups: StrPath | None = None,
    pack: StrPath | None = None,
    backbone_weights: StrPath | None = None,
    window: tuple[int, int, int, int] | None = None,
    layers: Sequence[int] | None = None,
    overwrite: bool = False,
    **said: Unpack[SourceOptions],
) -> dict[str, Any]:
    """Describe a raster, a pack, or an optical and a SAR raster together, as plain data.

    Parameters
    ----------
    path
        A raster or a pack; with ``sar``, the optical raster.
    sar
        The SAR raster of a scene pair.
    groups
        Of a scene pair, also draw the groups that the pack's model makes of it to this .png, and tell how they are
        used, under the key "groups".
    pack, backbone_weights, window, layers, overwrite, said
        For ``groups`` alone; see `gopt_geo.groups.picture_groups`.

    Returns
    -------
    See `gopt_geo.description.describe`, `describe_pair` and `gopt_geo.groups.picture_groups`.

    Raises
    ------
    GoptGeoError
        If a file can't be read, or an option doesn't serve.
    """
    options: dict[str, Any] = {
        "pack": pack,
        "backbone_weights": backbone_weights,
        "window": window,
        "layers": layers,
        "overwrite": overwrite,
        **said,
    }
    if groups is None:
        for name, value in options.items():
            if value is not None and value is not False:
                option = f"--{name.replace('_', '-')}"
                raise GoptGeoError(option, "it serves --groups alone", "add --groups groups.png, or leave it out")
        return describe(path) if sar is None else describe_pair(path, sar)
    if sar is None:
        found = f"{path} alone has no groups; they are made of two rasters by a pack's model"
        raise GoptGeoError("--groups", found, "give both: gopt-geo info OPTICAL SAR --groups groups.png [--pack PACK]")
    described = describe_pair(path, sar)
    return {**described, "groups": picture_groups(path, sar, groups, **options)}


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[TrainProgress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainReport:
    """Train a prompt pack; see `gopt_geo.training.run.train`."""
    from gopt_geo.training import run  # Lightning takes seconds that the other verbs have no use for

    return run.train(config, resume=resume, overwrite=overwrite, progress=progress, say=say)


def vectorize(
    landcover: StrPath,
    outputs: StrPath | Sequence[StrPath],
    *,
    confidence: StrPath | None = None,
    overwrite: bool = False,
) -> tuple[int, ...]:
    """Turn a land-cover raster into polygon files, block by block; see `gopt_geo.outputs.vectors.vectorize`.

    Parameters
    ----------
    landcover
        Raster with category names or a colour table, as `predict` writes it.
    outputs
        One polygon file or several; the ending decides the format (.gpkg, .geojson, .fgb, .parquet).
    confidence
        Confidence raster of the same run.
    overwrite
        Replace files that exist.

    Returns
    -------
    Number of polygons of each file.

    Raises
    ------
    GoptGeoError
        If a raster can't be read or an output can't be written; nothing stands at the output paths then.
    """
    outputs = as_paths(outputs)
    if not outputs:
        raise OutputError("-o", "no output named", "name at least one, such as -o landcover.gpkg")
    inputs = [landcover, *([confidence] if confidence is not None else [])]
    with Staging(overwrite, inputs=inputs) as staging, bounded_gdal_cache():
        staged = [staging.path(path, VECTOR_ENDINGS) for path in outputs]
        counts = tuple(write_polygons(landcover, path, confidence=confidence) for path in staged)
        staging.publish()
    return counts


def simulate_files(
    output_dir: StrPath,
    *,
    seed: int = 0,
    size: tuple[int, int] = (512, 512),
    crs: str = "EPSG:32632",
    resolution: float = 10.0,
    sar_bands: int = 1,
    looks: float = 4.0,
    cloud: float = 0.0,
    sar_crs: str | None = None,
    sar_resolution: float | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Simulate an optical + SAR scene with labels and a cloud mask, and write its four rasters into a folder.

    Parameters
    ----------
    output_dir
        Folder; made where its parent exists.
    seed, size, crs, resolution, sar_bands, looks, cloud, sar_crs, sar_resolution
        See `gopt_geo.simulate.SceneSpec`; ``size`` is height and width. The scene lies in the middle of the CRS's
        area of use.
    overwrite
        Replace rasters that exist.

    Returns
    -------
    The paths by stem: scene, sar, labels, clouds.

    Raises
    ------
    GoptGeoError
        If an option is out of its range or the rasters can't be written.
    """
    output_dir = Path(output_dir)
    for option, good, rule in (
        ("--looks", looks > 0, "above 0"),
        ("--cloud", 0 <= cloud <= 1, "from 0 to 1"),
        ("--resolution", resolution > 0, "above 0"),
        ("--sar-resolution", sar_resolution is None or sar_resolution > 0, "above 0"),
        ("--sar-bands", sar_bands in (1, 2), "1 or 2"),
        ("--size", min(size) > 0, "above 0"),
        ("--seed", seed >= 0, "0 or above"),
    ):
        if not good:
            raise GoptGeoError(option, "out of range", f"give a number {rule}")
    for option, name in (("--crs", crs), ("--sar-crs", sar_crs)):
        if name is not None:
            _check_crs(option, name)
    spec = SceneSpec(
        seed=seed,
        height=size[0],
        width=size[1],
        crs=crs,
        resolution=resolution,
        origin=_origin(crs),
        sar_bands=sar_bands,
        looks=looks,
        cloud=cloud,
        sar_crs=sar_crs,
        sar_resolution=sar_resolution,
    )
    made = output_dir.parent.is_dir() and not output_dir.exists()
    if made:
        try:
            output_dir.mkdir()
        except OSError as error:
            raise OutputError(
                output_dir, f"it can't be made ({error.strerror})", "check the path and its rights"
            ) from error
    names = ("scene", "sar", "labels", "clouds")
    try:
        with Staging(overwrite) as staging:
            staged = {stem: staging.path(output_dir / f"{stem}.tif") for stem in names}
            write_scene(spec, staged)
            staging.publish()
    except BaseException:  # Ctrl-C too: a folder made for nothing goes again, if it is empty
        if made:
            with suppress(OSError):
                output_dir.rmdir()
        raise
    return {stem: output_dir / f"{stem}.tif" for stem in names}


def _check_crs(option: str, name: str) -> None:
    """Refuse a CRS that pyproj doesn't know."""
    try:
        CRS.from_user_input(name)
    except CRSError as error:
        raise GridError(f"{option} {name}", "no such CRS", "give one that PROJ knows, such as EPSG:32632") from error


def _origin(crs: str) -> tuple[float, float]:
    """Upper left corner for a simulated scene: the middle of the CRS's area of use, rounded to 1000 units or 0.1."""
    from pyproj import Transformer

    parsed = CRS.from_user_input(crs)
    area = parsed.area_of_use
    # Without a stated area the CRS's own origin is the safest place.
    lon, lat = ((area.west + area.east) / 2, (area.south + area.north) / 2) if area is not None else (9.0, 45.0)
    geodetic = parsed.geodetic_crs
    if geodetic is None:
        raise GridError(f"--crs {crs}", "it isn't tied to the earth", "use a geographic or projected CRS")
    x, y = Transformer.from_crs(geodetic, parsed, always_xy=True).transform(lon, lat)
    step = 0.1 if parsed.is_geographic else 1000.0
    return round(x / step) * step, round(y / step) * step
