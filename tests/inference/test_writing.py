"""The last stage: rows are written while the model runs, in order, a bounded number of them behind; and it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextvars import ContextVar

import numpy as np
import pytest

from gopt_geo.errors import SourceError
from gopt_geo.inference import TileOptions, run_tiles
from gopt_geo.inference.blend import EMIT_BYTES, emit_rows
from gopt_geo.inference.memory import MemoryNeed

OPTIONS = {"tile_size": 16, "overlap": 4, "batch_size": 2, "readers": 2}


def _scene(kit, height=400, **kwargs):
    rng = np.random.default_rng(3)
    return kit.Source({"optical": rng.random((2, height, 40), np.float32)}, **kwargs)


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("gopt-geo-")}


@pytest.mark.parametrize("ahead", [1, 3])
def test_the_same_rows_in_the_same_order_from_one_other_thread(kit, ahead):
    plain, _ = kit.run(_scene(kit), kit.copy_values(2), **OPTIONS)
    canvas, seen = kit.Canvas(2, (400, 40)), set()

    def sink(rows):
        seen.add(threading.get_ident())
        canvas(rows)

    run_tiles(_scene(kit), kit.copy_values(2), TileOptions(**OPTIONS, write_ahead=ahead), sink=sink)
    assert canvas.windows == plain.windows
    assert canvas.probabilities.tobytes() == plain.probabilities.tobytes()
    assert (canvas.count == 1).all()
    assert len(seen) == 1
    assert threading.get_ident() not in seen
    assert not _threads()


def test_by_default_the_sink_is_called_in_the_callers_thread(kit):
    seen = set()
    options = TileOptions(**OPTIONS)
    run_tiles(_scene(kit), kit.copy_values(2), options, sink=lambda rows: seen.add(threading.get_ident()))
    assert seen == {threading.get_ident()}


def test_the_model_runs_while_rows_are_written(kit):
    """The sink waits for a batch that comes only while it waits."""
    entered = done = 0
    overlapped = []

    def wait(for_what, what):
        end = time.perf_counter() + 20
        while not for_what():
            assert time.perf_counter() < end, what
            time.sleep(0.001)

    def function(values, valid):
        # Never ahead of the sink: else it might have run all batches that it may before the sink looks.
        wait(lambda: entered >= done // 3, "the sink isn't called while the model runs")
        return values["optical"]

    model = kit.Model(2, function)

    def sink(rows):
        nonlocal entered
        before = len(model.batches)
        entered += 1
        wait(lambda: rows.window.row_stop >= 350 or len(model.batches) > before, "the model stands still")
        overlapped.append(rows)

    def progress(state):
        nonlocal done
        done = state.done  # three tiles a row of them, which is handed over once they are done

    run_tiles(_scene(kit), model, TileOptions(**OPTIONS, write_ahead=2), sink=sink, progress=progress)
    assert len(overlapped) == 33


def test_no_more_than_so_many_bands_are_held(kit):
    go, held, most = threading.Event(), [], 0
    done = 0

    def sink(rows):
        go.wait(0.05)
        held.append(rows.window.row_stop)

    def progress(state):
        nonlocal most, done
        finished = (state.done - 1) // 3  # tile rows before this one are finished: a band each
        most = max(most, finished - len(held))

    options = TileOptions(**OPTIONS, write_ahead=2)
    run_tiles(_scene(kit, 200), kit.copy_values(2), options, sink=sink, progress=progress)
    assert held[-1] == 200
    assert 2 <= most <= 3  # the one that is handed over waits until there is room


def test_a_sink_that_fails_stops_the_run_and_its_error_comes_out_once(kit):
    calls, reads = [], []

    def sink(rows):
        calls.append(rows.window.row)
        raise OSError(28, "No space left on device")

    source = _scene(kit, delay=reads.append)
    model = kit.Model(2, lambda values, valid: time.sleep(0.002) or values["optical"])
    with pytest.raises(OSError, match="No space left") as caught:
        run_tiles(source, model, TileOptions(**OPTIONS, write_ahead=2), sink=sink)
    assert calls == [0]
    assert caught.value.__context__ is None
    assert len(reads) < 60  # of 136
    assert not _threads()


def test_a_sink_that_fails_on_the_last_rows(kit):
    def sink(rows):
        if rows.window.row_stop == 400:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_tiles(_scene(kit), kit.copy_values(2), TileOptions(**OPTIONS, write_ahead=2), sink=sink)
    assert not _threads()


def test_ctrl_c_in_the_sink(kit):
    def sink(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tiles(_scene(kit), kit.copy_values(2), TileOptions(**OPTIONS, write_ahead=2), sink=sink)
    assert not _threads()


@pytest.mark.parametrize("stage", ["reader", "model"])
def test_an_error_elsewhere_drops_the_rows_that_wait(kit, stage):
    written, failed = [], threading.Event()

    def sink(rows):
        written.append(rows.window.row)
        assert failed.wait(20)

    def fail(window):
        if window.row >= 96:
            failed.set()
            raise SourceError("sar.tif", "truncated at row 96", "copy it again")

    def function(values, valid):
        if stage == "model" and written:
            failed.set()
            raise SourceError("model", "truncated", "none")
        return values["optical"]

    source = _scene(kit, delay=fail if stage == "reader" else None)
    with pytest.raises(SourceError, match="truncated"):
        run_tiles(source, kit.Model(2, function), TileOptions(**OPTIONS, write_ahead=9), sink=sink)
    assert len(written) <= 9
    assert not _threads()


def test_ctrl_c_while_the_writer_is_slow(kit):
    """A true SIGINT while the main thread waits for room."""
    written = []

    def sink(rows):
        written.append(rows)
        time.sleep(0.2)

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        run_tiles(_scene(kit), kit.copy_values(2), TileOptions(**OPTIONS, write_ahead=2), sink=sink)
    timer.join()
    assert time.perf_counter() - begin < 3  # the whole would take 7 s
    assert len(written) < 20
    assert not _threads()


def test_the_sink_sees_the_callers_context(kit):
    variable: ContextVar[str] = ContextVar("variable", default="none")
    token, seen = variable.set("caller's"), set()
    try:
        options = TileOptions(**OPTIONS, write_ahead=1)
        run_tiles(_scene(kit, 40), kit.copy_values(2), options, sink=lambda rows: seen.add(variable.get()))
    finally:
        variable.reset(token)
    assert seen == {"caller's"}


def test_what_waits_is_counted_and_strips_get_narrower(kit):
    def need(ahead):
        sizes = {"tile_size": 64, "batch_size": 2, "ahead": 4, "classes": 3, "channels": [2], "reserved": 0}
        return MemoryNeed.of(**sizes, write_ahead=ahead)

    assert need(2).at(3000) - need(0).at(3000) == 2 * emit_rows(3, 3000) * 3000 * 13
    source = kit.Source({"optical": np.zeros((2, 40, 3000))})
    sizes = {"tile_size": 64, "overlap": 0, "batch_size": 2, "readers": 2, "max_memory": need(0).at(3000)}
    strips = []
    for ahead in (0, 4):
        options = TileOptions(**sizes, write_ahead=ahead)
        model = kit.Model(3, lambda values, valid: values["optical"][:, [0, 1, 0]])
        strips.append(run_tiles(source, model, options, sink=lambda rows: None).strips)
    assert strips[0] == 1
    assert strips[1] > 1


def test_wide_scenes_are_handed_on_fewer_rows_at_a_time():
    assert emit_rows(7, 1000) == 128
    assert emit_rows(7, 60_000) * 60_000 * 29 <= EMIT_BYTES
    assert emit_rows(400, 10**6) == 1


def test_a_negative_number_of_bands_is_refused():
    with pytest.raises(ValueError, match="-1 bands"):
        TileOptions(write_ahead=-1)
