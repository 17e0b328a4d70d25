"""`gopt_geo.predict`: into files where outputs are named, else into arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

from gopt_geo.errors import GoptGeoError
from gopt_geo.mapping import Progress
from gopt_geo.maprequest import MapOptions, MapRequest
from gopt_geo.outputs.probabilities import ProbabilityType
from gopt_geo.paths import StrPath
from gopt_geo.prediction import PredictReport
from gopt_geo.prediction import predict as predict_files
from gopt_geo.scene.bandfiles import Source, is_array
from gopt_geo.scene.mosaic import SceneMosaic

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["predict"]


@overload
def predict(
    optical: Source | None,
    sar: Source | None = None,
    outputs: None = None,
    *,
    probabilities: bool = False,
    chunks: int | tuple[int, int] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **said: Unpack[MapOptions],
) -> xr.Dataset: ...
@overload
def predict(
    optical: Source | None,
    sar: Source | None,
    outputs: StrPath | Sequence[StrPath],
    *,
    confidence: StrPath | None = None,
    probabilities: StrPath | None = None,
    probabilities_type: ProbabilityType = "float32",
    preview: StrPath | None = None,
    reference: StrPath | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **said: Unpack[MapOptions],
) -> PredictReport: ...
def predict(
    optical: Source | None,
    sar: Source | None = None,
    outputs: StrPath | Sequence[StrPath] | None = None,
    *,
    confidence: StrPath | None = None,
    probabilities: StrPath | bool | None = None,
    probabilities_type: ProbabilityType = "float32",
    preview: StrPath | None = None,
    reference: StrPath | None = None,
    overwrite: bool = False,
    chunks: int | tuple[int, int] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **said: Unpack[MapOptions],
) -> PredictReport | xr.Dataset:
    """Map land cover from an optical and a SAR raster, into files or into arrays.

    Parameters
    ----------
    optical, sar
        Rasters; CRS, pixel size and extent may differ. Each may also be a folder of single-band files, a Sentinel-2
        ``.SAFE`` folder, a pattern, paths with commas in between, a URL, a STAC item, an array of xarray, or several of
        these in a `gopt_geo.SceneMosaic` (docs/sources.md). One of them may be None: the other is mapped alone.
    outputs
        Files to write, one or several (.tif, .gpkg, .geojson, .fgb, .parquet); without, arrays are returned.
    confidence, probabilities, probabilities_type, preview, reference, overwrite
        Of files: see `gopt_geo.prediction.predict`. Of arrays, ``probabilities=True`` asks for those of all classes.
    chunks
        Of arrays: return lazy ones, in blocks of this height and width. Lazy too where a source is, in blocks of 2048.
    progress
        Called now and then; not for lazy arrays.
    said
        Of pack, sources, grid, area, tiles and device: see `gopt_geo.maprequest.MapOptions`.

    Returns
    -------
    PredictReport
        Where files are written.
    xarray.Dataset
        Else: ``landcover`` (uint8, 255 without data), ``confidence`` (percent, likewise) and, where asked for,
        ``probabilities`` (float32 by class, NaN without data), on the map's grid; in the attributes tags and notices.

    Raises
    ------
    GoptGeoError
        Whatever is wrong with the input, the pack, the options or the outputs; nothing stands at the output paths
        then.

    Examples
    --------
    >>> gopt_geo.predict("s2.tif", "s1.tif", "landcover.tif")  # doctest: +SKIP
    >>> gopt_geo.predict(s2, s1, chunks=1024).landcover.odc.write_cog("landcover.tif")  # doctest: +SKIP
    """
    if outputs is not None:
        if chunks is not None:
            raise GoptGeoError("chunks", "they serve arrays, and an output is named", "leave one of them out")
        if isinstance(probabilities, bool):
            if probabilities:
                raise GoptGeoError("probabilities", "an output is named, and no file for them", "name a .tif")
            probabilities = None
        return predict_files(
            optical,
            sar,
            outputs,
            confidence=confidence,
            probabilities=probabilities,
            probabilities_type=probabilities_type,
            preview=preview,
            reference=reference,
            overwrite=overwrite,
            progress=progress,
            **said,
        )
    files = {"confidence": confidence, "preview": preview, "reference": reference, "overwrite": overwrite or None}
    files["probabilities"] = None if isinstance(probabilities, bool) else probabilities
    for name, value in files.items():
        if value is not None:
            raise GoptGeoError(name, "it goes with files, and no output is named", "name one, such as landcover.tif")
    return _arrays(MapRequest.of(optical, sar, said), bool(probabilities), chunks, progress)


def _arrays(
    request: MapRequest,
    probabilities: bool,
    chunks: int | tuple[int, int] | None,
    progress: Callable[[Progress], None] | None,
) -> xr.Dataset:
    if chunks is not None or any(_is_lazy(source) for source in request.inputs.sources.values()):
        from gopt_geo.lazymap import predict_lazily

        return predict_lazily(request, probabilities=probabilities, chunks=chunks)
    from gopt_geo.maparrays import predict_arrays

    return predict_arrays(request, probabilities=probabilities, progress=progress)


def _is_lazy(source: Any) -> bool:
    """Tell whether a source is an array that dask has yet to compute."""
    if isinstance(source, SceneMosaic):
        return any(_is_lazy(part) for part in source)
    return is_array(source) and bool(source.chunks)
