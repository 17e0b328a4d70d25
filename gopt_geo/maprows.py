"""Maps as rows, handed over while the rest is being made: for sinks of one's own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from gopt_geo.ceiling import bounded_gdal_cache
from gopt_geo.grid import GeoBox, Window
from gopt_geo.inference import BlendedRows, RunReport
from gopt_geo.mapping import map_classes, map_confidence
from gopt_geo.maprequest import MapOptions, MapRequest
from gopt_geo.openmap import OpenMap, open_map
from gopt_geo.packs import ClassInfo
from gopt_geo.scene.bandfiles import Source

__all__ = ["MapRows", "RowStream", "predict_rows"]

_AHEAD = 2  # parts that may wait for the caller
_WAIT = 0.1  # seconds after which a waiting thread looks whether it is still wanted


@dataclass(frozen=True)
class MapRows:
    """Some rows of a map, or of one of its column strips.

    Attributes
    ----------
    window
        Where they lie on the map's grid.
    landcover
        Class values, uint8 [h, w]; 255 where there is no data.
    confidence
        Percent, uint8 [h, w]; likewise.
    probabilities
        float32 [K, h, w], 0 where there is no data.
    valid
        bool [h, w], where there is data.
    """

    window: Window
    landcover: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    valid: NDArray[np.bool_]


class _Unwanted(Exception):  # noqa: N818  # no error: nobody wants more rows
    """Ends a run whose rows nobody wants any more."""


class RowStream:
    """The rows of a map, to be iterated over once; made by `predict_rows`.

    A context manager: leaving it ends the run, wherever it stands, and closes the sources. So does the end of the rows.

    Attributes
    ----------
    grid : GeoBox
        The map's.
    classes : tuple of ClassInfo
        In the order of the probabilities.
    tags : dict of str
        How the map is made.
    """

    def __init__(self, opened: OpenMap, stack: ExitStack) -> None:
        self.grid: GeoBox = opened.grid
        self.classes: tuple[ClassInfo, ...] = opened.classes
        self.tags = dict(opened.tags)
        self._notices, self._outcome = opened.notices, _Outcome()
        self._stack = stack
        self._rows = _iterate(opened, stack, self._outcome)

    @property
    def report(self) -> RunReport | None:
        """What the run did, once all rows have come."""
        return self._outcome.report

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know by now."""
        return (*self._notices, *self._outcome.notices)

    def __iter__(self) -> Iterator[MapRows]:
        return self._rows

    def __next__(self) -> MapRows:
        return next(self._rows)

    def __enter__(self) -> RowStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run and close the sources; harmless when that has happened."""
        self._rows.close()
        self._stack.close()


@dataclass
class _Outcome:
    """What there is to say when all rows have come."""

    report: RunReport | None = None
    notices: tuple[str, ...] = ()


def _iterate(opened: OpenMap, stack: ExitStack, outcome: _Outcome) -> Generator[MapRows]:
    """Yield the rows; whichever way this ends (also with the last reference to it), the run ends and sources close."""
    run = _Run(opened)
    try:
        run.thread.start()
        while isinstance(part := run.parts.get(), MapRows):
            yield part
        if isinstance(part, BaseException):
            raise part
        outcome.report, outcome.notices = part, tuple(opened.run_notices(part))
    finally:
        run.end()
        stack.close()


class _Run:
    """The tiler in a thread of its own, whose rows are taken one by one."""

    def __init__(self, opened: OpenMap) -> None:
        self.parts: queue.Queue[MapRows | RunReport | BaseException] = queue.Queue(_AHEAD)
        self._opened, self._unwanted = opened, threading.Event()
        self._values = np.array([c.value for c in opened.classes], dtype=np.uint8)
        self.thread = threading.Thread(target=copy_context().run, args=(self._work,), name="gopt-geo-rows", daemon=True)

    def end(self) -> None:
        """Tell the thread that no more is wanted, and wait for it."""
        self._unwanted.set()
        if self.thread.ident is not None:
            self.thread.join()

    def _work(self) -> None:
        try:
            with bounded_gdal_cache():
                self._put(self._opened.run(self._take))
        except _Unwanted:
            pass
        except BaseException as error:  # whatever it is, the one who takes the rows raises it
            self._put_last(error)

    def _take(self, rows: BlendedRows) -> None:
        likely = rows.likely()
        landcover, confidence = map_classes(likely, self._values), map_confidence(likely)
        window = rows.window.within(self._opened.window)
        self._put(MapRows(window, landcover, confidence, rows.probabilities, rows.valid))

    def _put(self, part: MapRows | RunReport | BaseException) -> None:
        while not self._unwanted.is_set():
            try:
                return self.parts.put(part, timeout=_WAIT)
            except queue.Full:
                continue
        raise _Unwanted

    def _put_last(self, error: BaseException) -> None:
        with suppress(_Unwanted):
            self._put(error)


def predict_rows(optical: Source | None, sar: Source | None = None, **said: Unpack[MapOptions]) -> RowStream:
    """Map land cover, and hand over the rows as they are finished.

    Memory stays that of a run, whatever the map's size: at most four parts of up to 128 rows are held at a time. Rows
    come from top to bottom; with ``max_memory``, wide maps come in column strips, one after the other.

    Parameters
    ----------
    optical, sar, said
        See `gopt_geo.predict`.

    Returns
    -------
    RowStream
        To be iterated over, once, in a ``with`` statement.

    Raises
    ------
    GoptGeoError
        Whatever is wrong with sources, pack or options; what fails later is raised while iterating.

    Examples
    --------
    >>> with gopt_geo.predict_rows("s2.tif", "s1.tif") as rows:  # doctest: +SKIP
    ...     for part in rows:
    ...         table.write(part.window, part.probabilities)
    """
    request = MapRequest.of(optical, sar, said)
    with ExitStack() as stack:
        with bounded_gdal_cache():
            opened = stack.enter_context(open_map(request))
        return RowStream(opened, stack.pop_all())
