"""From a configuration's scene to its images on one grid: sources, bands, units, shift and grid."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from gopt_geo.aoi import Aoi, read_aoi
from gopt_geo.datasets.sceneimages import CACHE_BYTES, SceneImages, bytes_of
from gopt_geo.errors import DatasetError
from gopt_geo.scene import Scene, SourceSpec, open_scene
from gopt_geo.scene.bandfiles import input_name, read_item
from gopt_geo.scene.bandnames import find_band
from gopt_geo.scene.clouds import CloudMask
from gopt_geo.scene.shift.placing import place_sources
from gopt_geo.sources import split_bands
from gopt_geo.training.channels import Units
from gopt_geo.training.config import SceneConfig, TrainConfig

__all__ = ["OpenedScene", "chosen_modalities", "open_images"]

_COLOURS = ("red", "green", "blue")
_SPARE_DISK = 2  # times the bytes of the finished blocks that a disk must have free to keep them


@dataclass(frozen=True)
class OpenedScene:
    """A scene's images.

    Attributes
    ----------
    images
        On the scene grid.
    bands
        Names of each modality's bands.
    units
        Unit of each modality's values.
    aoi
        Area of interest.
    notices
        What was taken for granted, one line each.
    sources
        What the sources are called, for provenance.
    """

    images: SceneImages
    bands: dict[str, tuple[str, ...]]
    units: dict[str, Units]
    aoi: Aoi | None
    notices: list[str]
    sources: tuple[str, ...]


def chosen_modalities(config: TrainConfig, there: Sequence[str], subject: str) -> tuple[str, ...]:
    """Return the modalities to train on: those asked for, in that order, else all there are.

    Raises
    ------
    DatasetError
        If one asked for isn't there, or is asked for twice.
    """
    wanted = config.model.modalities
    if wanted is None:
        return tuple(there)
    for name in wanted:
        if name not in there or wanted.count(name) > 1:
            found = f"there is no {name}" if name not in there else f"{name} is asked for twice"
            raise DatasetError(subject, found, f"choose model.modalities from {', '.join(there)}")
    return wanted


def open_images(config: TrainConfig, in_chans: int, channel_names: Sequence[str]) -> OpenedScene:
    """Open the sources of a configuration's scene on one grid.

    Parameters
    ----------
    config
        With a scene.
    in_chans, channel_names
        Channels that the backbone expects, and how they are called; without names red, green and blue if three.

    Raises
    ------
    GoptGeoError
        If a source, its bands, unit or place don't serve; if a shift is to be corrected and can't be told.
    """
    said = config.scene
    assert said is not None
    paths = {name: path for name, path in (("optical", said.optical), ("sar", said.sar)) if path is not None}
    names = chosen_modalities(config, tuple(paths), "scene")
    aoi = read_aoi(said.aoi, said.aoi_crs) if said.aoi is not None else None
    specs = {name: _spec(name, paths[name], said, in_chans, channel_names) for name in names}
    notices: list[str] = []
    placement = place_sources(specs, correct=said.coregister, part=aoi.surroundings if aoi is not None else None)
    scene, bands = _open(said, specs, placement.shifts, in_chans, notices)
    try:
        images = SceneImages(scene, cache_dir=_cache_dir(scene, notices))
    except BaseException:
        scene.close()
        raise
    units = {name: cast("Units", specs[name].target_units) for name in names}
    notices = [*placement.notices, *scene.notices, *notices]
    sources = tuple(input_name(specs[name].path) for name in names)  # type: ignore[arg-type]
    return OpenedScene(images, bands, units, aoi, notices, (*sources, Path(said.labels).name))


def _spec(name: str, path: str, said: SceneConfig, in_chans: int, channel_names: Sequence[str]) -> SourceSpec:
    """Put together what is known of a source; what bands are wanted goes by name."""
    source = read_item(path)
    if name == "sar":
        target = "raw" if said.sar_units == "raw" else "db"
        bands = split_bands(said.sar_bands, "--sar-bands")
        return SourceSpec(source, bands, said.sar_units, target, None, sensor=said.sar_sensor)
    mask = None if said.cloud_mask is None else CloudMask(said.cloud_mask, said.cloud_mask_kind)
    target = "raw" if said.optical_units == "raw" else "reflectance"
    bands = split_bands(said.optical_bands, "--optical-bands")
    wanted = tuple(channel_names) or (_COLOURS if in_chans == len(_COLOURS) else ())
    return SourceSpec(source, bands, said.optical_units, target, None, mask, wanted, said.sensor)


def _open(
    said: SceneConfig,
    specs: dict[str, SourceSpec],
    shifts: dict[str, tuple[float, float]],
    in_chans: int,
    notices: list[str],
) -> tuple[Scene, dict[str, tuple[str, ...]]]:
    """Open the scene; once more where the optical source has more bands than the backbone takes, without names."""
    scene = _once(said, specs, shifts)
    optical = specs.get("optical")
    if optical is not None and optical.bands is None and scene.counts["optical"] > in_chans:
        of = scene.counts["optical"]
        scene.close()
        first = replace(optical, bands=tuple(range(1, in_chans + 1)), band_names=())
        specs["optical"] = first
        scene = _once(said, specs, shifts)
        wanted = ", ".join(optical.band_names)
        reason = f"none is called {wanted}" if wanted else "the backbone takes no more"
        notices.append(
            f"optical: the first {in_chans} of {of} bands are used, as {reason}; choose with --optical-bands"
        )
    bands = {name: _names(specs[name], scene.band_names[name]) for name in scene.modalities}
    return scene, {name: bands[name] for name in specs}


def _once(said: SceneConfig, specs: dict[str, SourceSpec], shifts: dict[str, tuple[float, float]]) -> Scene:
    others = {name: spec for name, spec in specs.items() if name != "optical"}
    grid = said.grid if "optical" in specs or said.grid != "optical" else "sar"
    return open_scene(specs.get("optical"), others, grid=grid, resolution=said.resolution, shifts=shifts, cache_bytes=0)


def _names(spec: SourceSpec, stored: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a pack calls a modality's bands: as they were asked for by name, else as the file does, else numbers.

    Names asked for, and common ones ("red"), are found again in rasters that call the band otherwise.
    """
    asked = spec.bands if spec.bands is not None else spec.band_names
    if len(asked) == len(stored) and all(isinstance(band, str) for band in asked):
        names = [str(band) for band in asked]
        named = all(stored)
        if spec.bands is not None or (named and all(find_band(n, stored) == [i] for i, n in enumerate(names))):
            return tuple(names)
        if spec.sensor is not None and not any(stored):
            return tuple(names)
    return tuple(name or f"band {i}" for i, name in enumerate(stored, 1))


def _cache_dir(scene: Scene, notices: list[str]) -> str | None:
    """Return a folder for finished blocks where they are too many for memory: they are warped once then."""
    needed = bytes_of(scene)
    if needed <= CACHE_BYTES:
        return None
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < _SPARE_DISK * needed:
        notices.append(
            f"warning: finished blocks take up to {needed >> 20} MiB, and {folder} has {free >> 20} MiB free, so that "
            "tiles are warped again and again; set TMPDIR to a folder on a larger disk"
        )
        return None
    notices.append(f"finished blocks, up to {needed >> 20} MiB, are kept in a temporary file in {folder} (TMPDIR)")
    return folder
