"""Freed memory goes back to the system, now and then."""

from __future__ import annotations

import ctypes
import platform

import pytest

from gopt_geo.ceiling import resident_memory
from gopt_geo.inference import heap
from gopt_geo.inference.heap import HeapTrimmer


@pytest.fixture(autouse=True)
def asked_anew():
    ask = heap._malloc_trim
    ask.cache_clear()
    yield
    ask.cache_clear()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own")
def test_gaps_between_what_is_held_go_back():
    blocks = [bytearray(b"x" * 60_000) for _ in range(3000)]  # too small for mappings of their own
    held = blocks[::50]
    full = resident_memory()
    del blocks
    HeapTrimmer().now()
    assert full - resident_memory() > 100 << 20
    assert len(held) == 60


def test_it_is_done_now_and_then(monkeypatch):
    times, done = iter([0.0, 1.0, 2.5, 3.0, 4.4, 4.6]), []
    monkeypatch.setattr(heap, "INTERVAL", 2.0)
    monkeypatch.setattr(heap.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(heap, "_malloc_trim", lambda: done.append)
    trim = HeapTrimmer()
    counts = []
    for _ in range(5):
        trim()
        counts.append(len(done))
    assert counts == [0, 1, 1, 1, 2]


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_other_c_libraries_are_left_alone(monkeypatch, error):
    def missing(_):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    HeapTrimmer().now()
