"""A large region in bands of rows, each made by a worker of its own, and laid together again by another.

A band runs every tile that touches it, so that its pixels are those of the whole; tiles over the border of two bands
run twice. Its pixels wait in a hidden folder beside the results, named by all that decides them: a band that an earlier
run finished is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gopt_geo.errors import OutputError
from gopt_geo.grid import Window
from gopt_geo.mapping import Asked, MappedRows, Progress
from gopt_geo.openmap import OpenMap

if TYPE_CHECKING:
    from gopt_geo.batch.jobs import Job
    from gopt_geo.inference import RunReport

__all__ = ["Bands", "IsLarge", "PartFolder", "bands_of", "sum_reports"]

_ARRAYS = ("classes", "percent", "probabilities")
_STEP = 512  # rows that are laid together at a time

Bands = tuple[tuple[int, int, int, int], ...]
"""Windows on the scene grid: row, column, height and width of each."""


class IsLarge(Exception):  # noqa: N818  # a way out of predict, not an error
    """The region is larger than one task shall map: what its bands are, and the batch that all of them must run."""

    def __init__(self, bands: Bands, batch_size: int) -> None:
        super().__init__(f"{len(bands)} bands")
        self.bands, self.batch_size = bands, batch_size


def bands_of(window: Window, step: int, pixels: int) -> Bands:
    """Cut a window of the scene grid into bands of rows.

    Parameters
    ----------
    window
        Of the map.
    step
        Rows from one tile to the next: a band begins where a tile does, so that one row of tiles runs twice.
    pixels
        Of a band, about.
    """
    height = max(round(pixels / window.width / step), 1) * step
    cuts = range((window.row // height + 1) * height, window.row_stop, height)
    starts = [window.row, *cuts]
    stops = [*cuts, window.row_stop]
    return tuple((top, window.col, end - top, window.width) for top, end in zip(starts, stops, strict=True))


class PartFolder:
    """Where the bands of a region wait.

    Parameters
    ----------
    job
        Of the region.
    inputs
        State of its inputs.
    """

    def __init__(self, job: Job, inputs: Sequence[Mapping[str, Any]]) -> None:
        first = Path(job.outputs[0])
        told = json.dumps([job.digest, list(inputs), job.version, job.options.get("batch_size")], sort_keys=True)
        key = hashlib.sha256(told.encode()).hexdigest()[:16]
        self._stem = f".{job.id}.parts-"
        self.path = first.parent / f"{self._stem}{key}"
        self._probabilities = "probabilities" in job.beside

    def _band(self, band: Sequence[int]) -> Path:
        return self.path / "-".join(map(str, band))

    def has(self, band: Sequence[int]) -> bool:
        """Tell whether a band is finished."""
        return self._band(band).is_dir()

    def make(
        self, opened: OpenMap, band: tuple[int, int, int, int], run: Callable[..., RunReport]
    ) -> dict[str, float | int]:
        """Make a band, and return what its run did.

        Parameters
        ----------
        opened
            The region's map.
        band
            Row, column, height and width.
        run
            `gopt_geo.mapping.run_model`.

        Raises
        ------
        OutputError
            If the disk is full or the folder can't be written.
        """
        window = Window(*band)
        shapes: dict[str, tuple[int, ...]] = {"classes": window.shape, "percent": window.shape}
        if self._probabilities:
            shapes["probabilities"] = (len(opened.classes), *window.shape)
        place = self._band(band).with_suffix(f".{os.getpid()}.part")
        try:
            place.mkdir(parents=True)
            kinds = {name: np.float32 if name == "probabilities" else np.uint8 for name in shapes}
            arrays = {
                name: np.lib.format.open_memmap(place / f"{name}.npy", "w+", kinds[name], shape)
                for name, shape in shapes.items()
            }
            for name in shapes:  # a hole in a file on a full disk would end this process at the first write into it
                with (place / f"{name}.npy").open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)

            def sink(rows: MappedRows) -> None:
                at = rows.window.slices_in(window)
                assert rows.percent is not None
                arrays["classes"][at], arrays["percent"][at] = rows.classes, rows.percent
                if self._probabilities:
                    assert rows.probabilities is not None
                    arrays["probabilities"][:, *at] = rows.probabilities

            report = run(opened, sink, 0, Asked(True, self._probabilities), None, window=window)
            for array in arrays.values():
                array.flush()
            told = vars(report) | {"pixels": window.height * window.width}
            (place / "report.json").write_text(json.dumps(told))
            place.rename(self._band(band))
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(self.path, f"can't be written ({reason})", "free some space and run again") from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return told

    def reports(self, bands: Bands) -> list[dict[str, Any]]:
        """Return what the runs of the bands did."""
        return [json.loads((self._band(band) / "report.json").read_text()) for band in bands]

    def lay_together(
        self, sink: Callable[[MappedRows], None], bands: Bands, progress: Callable[[Progress], None] | None = None
    ) -> None:
        """Hand the rows of all bands to a sink, from the top down."""
        total = sum(band[2] for band in bands)
        done = 0
        for band in bands:
            window = Window(*band)
            place = self._band(band)
            held = [
                np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in _ARRAYS[: 2 + self._probabilities]
            ]
            for row in range(0, window.height, _STEP):
                stop = min(row + _STEP, window.height)
                classes, percent, *shares = (np.ascontiguousarray(array[..., row:stop, :]) for array in held)
                rows = Window(window.row + row, window.col, stop - row, window.width)
                sink(MappedRows(rows, classes, percent, shares[0] if shares else None))
                done += stop - row
                if progress is not None:
                    progress(Progress("laying together", done, total))

    def remove(self) -> None:
        """Remove the bands of this region, those of earlier runs too."""
        with suppress(OSError):
            for entry in os.scandir(self.path.parent):
                if entry.name.startswith(self._stem):
                    shutil.rmtree(entry.path, ignore_errors=True)


def sum_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what the runs of bands did; tiles over a border count for both."""
    pixels = sum(report["pixels"] for report in reports)
    share = sum(report["complete_share"] * report["pixels"] for report in reports) / pixels
    added = ("tiles", "forwarded", "skipped", "batches", "repeated_tiles", "seconds")
    return {
        **{name: sum(report[name] for report in reports) for name in added},
        "batch_size": reports[0]["batch_size"],
        "part_size": min(report["part_size"] for report in reports),
        "strips": max(report["strips"] for report in reports),
        "complete_share": share,
    }
