"""The last stage: finished rows reach the sink in order, in a thread of its own, a bounded number of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType

from gopt_geo.inference.blend import BlendedRows, LikelyRows

__all__ = ["RowWriter"]


class RowWriter:
    """Calls a sink in one thread while the caller computes what comes next.

    Leaving its context waits until all rows are written; leaving it with an error drops the rows that wait, and ends
    the thread as soon as the sink returns.

    Parameters
    ----------
    sink
        Called with one `BlendedRows` or `LikelyRows` at a time, in the order in which they were handed over.
    ahead
        Rows that may wait or be in the sink's hands at a time; 0 calls the sink in the caller's thread.

    Raises
    ------
    Exception
        What the sink raised, of whatever kind: from the next call, from `check`, or on leaving.
    """

    def __init__(self, sink: Callable[[BlendedRows | LikelyRows], None], ahead: int) -> None:
        self._sink, self._ahead = sink, ahead
        self._held: deque[BlendedRows | LikelyRows] = deque()  # the first is in the sink's hands
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def __call__(self, rows: BlendedRows | LikelyRows) -> None:
        """Hand rows over; wait while as many as may are held."""
        if not self._ahead:
            self._sink(rows)
            return
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or len(self._held) < self._ahead)
            self._raise()
            self._held.append(rows)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what the sink raised, if it did: there is no use in going on."""
        self._raise()

    def __enter__(self) -> RowWriter:
        if self._ahead:
            self._thread = threading.Thread(target=copy_context().run, args=(self._work,), name="gopt-geo-writer")
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        try:
            if error is None:
                with self._changed:
                    self._changed.wait_for(lambda: self._error is not None or not self._held)
        finally:  # also where Ctrl-C ends the wait
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._thread.join()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._closed)
                if self._closed:
                    return
                rows = self._held[0]
            try:
                self._sink(rows)
            except BaseException as error:  # whatever it is, the caller raises it
                with self._changed:
                    self._error = error
                    self._held.clear()
                    self._changed.notify_all()
                return
            del rows
            with self._changed:
                self._held.popleft()
                self._changed.notify_all()
