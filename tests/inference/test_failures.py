"""Errors and Ctrl-C in any stage: the original error comes out, at once, and no thread is left."""

from __future__ import annotations

import ast
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import gopt_geo.inference
from gopt_geo.errors import DeviceMemoryError, GoptGeoError, SourceError
from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions, run_tiles

OPTIONS = {"tile_size": 16, "overlap": 4, "batch_size": 2, "readers": 3}


def _scene(kit, **kwargs):
    return kit.Source({"optical": np.zeros((2, 400, 100))}, **kwargs)


@pytest.mark.brief
def test_a_source_that_fails_in_a_reader(kit):
    reads = []

    def fail(window):
        reads.append(window)
        if window.row >= 120:
            raise SourceError("sar.tif", "truncated at row 120", "copy it again")

    with pytest.raises(SourceError, match=r"sar\.tif: truncated"):
        kit.run(_scene(kit, delay=fail), kit.copy_values(2), **OPTIONS)
    assert len(reads) < 120  # of 306 tiles: nothing is read once the run has failed
    assert kit.no_reader_left()


def test_a_model_that_fails(kit):
    def function(values, valid):
        raise ZeroDivisionError("in the model")

    with pytest.raises(ZeroDivisionError, match="in the model"):
        kit.run(_scene(kit), kit.Model(2, function), **OPTIONS)
    assert kit.no_reader_left()


def test_a_sink_that_fails(kit):
    calls = []

    def sink(rows):
        calls.append(rows.window.row)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_tiles(_scene(kit), kit.copy_values(2), TileOptions(**OPTIONS), sink=sink)
    assert calls == [0]
    assert kit.no_reader_left()


def test_ctrl_c_while_the_readers_are_slow(kit):
    """A true SIGINT while the main thread waits for a tile."""
    reads = []

    def slow(window):
        reads.append(window)
        time.sleep(0.1)

    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        kit.run(_scene(kit, delay=slow), kit.copy_values(2), **OPTIONS)
    assert time.perf_counter() - begin < 2  # the whole would take 10 s
    assert len(reads) < 60
    assert kit.no_reader_left()


def test_ctrl_c_in_the_sink(kit):
    def sink(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tiles(_scene(kit), kit.copy_values(2), TileOptions(**OPTIONS), sink=sink)
    assert kit.no_reader_left()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2.00 GiB"),
        MemoryError("Unable to allocate 7 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_says_which_option_to_lower(kit, error):
    def function(values, valid):
        raise error

    with pytest.raises(DeviceMemoryError) as caught:
        kit.run(_scene(kit), kit.Model(2, function), **{**OPTIONS, "batch_size": 4})
    text = str(caught.value)
    assert "\n" not in text
    said = "device cpu: out of memory with batches of 2 tiles of 16 x 16 pixels; lower --batch-size or --tile-size"
    assert text.startswith(said)
    assert "--max-memory" in text
    assert caught.value.__cause__ is error
    assert kit.no_reader_left()


def test_a_true_failed_allocation_is_recognised(kit):
    def function(values, valid):
        return torch.empty(2**60)

    with pytest.raises(DeviceMemoryError):
        kit.run(_scene(kit), kit.Model(2, function), **OPTIONS)


def test_other_runtime_errors_pass_as_they_are(kit):
    def function(values, valid):
        return values["optical"] @ torch.zeros(3, 3)

    with pytest.raises(RuntimeError, match="cannot be multiplied") as caught:
        kit.run(_scene(kit), kit.Model(2, function), **OPTIONS)
    assert not isinstance(caught.value, GoptGeoError)


def test_probabilities_that_are_not_finite_are_refused(kit):
    def function(values, valid):
        return torch.where(values["optical"] > 0.5, torch.nan, values["optical"])

    values = np.zeros((2, 60, 60))
    values[0, 50, 40] = 1
    with pytest.raises(
        GoptGeoError, match="tile at row 36, column 36: the model's probabilities are not finite; run in"
    ):
        kit.run(kit.Source({"optical": values}), kit.Model(2, function), **OPTIONS)


@pytest.mark.parametrize("wrong", [lambda x: x[:, :1], lambda x: x[:1], lambda x: x[..., :8], lambda x: x.long()])
def test_a_model_with_the_wrong_output_is_a_programmers_error(kit, wrong):
    model = kit.Model(2, lambda values, valid: wrong(values["optical"]))
    with pytest.raises(ValueError, match="the model returned"):
        kit.run(_scene(kit), model, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "--batch-size"),
        ({"readers": 0}, "--readers"),
        ({"tile_size": 8, "overlap": 5}, "--overlap"),
        ({"blend": "cosine"}, "--blend"),
    ],
)
def test_options_out_of_range_are_refused_at_once(options, named):
    with pytest.raises(GoptGeoError, match=f"^{named}: "):
        TileOptions(**options)


def test_the_tiler_imports_nothing_that_reads_files():
    """Apart from what type checkers see, the tiler knows the grid's windows, the errors and itself."""
    folder = Path(gopt_geo.inference.__file__).parent
    allowed = {"gopt_geo.errors", "gopt_geo.grid", "torch", "numpy", "numpy.typing"}
    for name in ("tiles", "blend", "reading", "forward", "memory", "engine"):
        for node in ast.parse((folder / f"{name}.py").read_text()).body:
            if isinstance(node, ast.ImportFrom | ast.Import):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                for module in modules:
                    known = module in allowed or module.startswith("gopt_geo.inference")
                    assert known or module.split(".")[0] in __import__("sys").stdlib_module_names, (name, module)


def test_one_reader_and_one_pixel(kit):
    canvas, report = kit.run(
        kit.Source({"optical": np.full((2, 1, 1), 3.0)}), kit.copy_values(2), Window(-4, -4, 9, 9), readers=1
    )
    assert canvas.probabilities.ravel().tolist() == [3, 3]
    assert (report.tiles, report.batches) == (1, 1)


@pytest.mark.parametrize("batch_size", [2, 3, 4])
@pytest.mark.parametrize("first", [0, 5])
def test_out_of_memory_in_mid_run_halves_the_batch_once(kit, batch_size, first):
    """What doesn't depend on the batch is the same to the bit; and the report says it."""
    rng = np.random.default_rng(1)
    source = kit.Source({"optical": rng.random((2, 200, 60), np.float32)})
    options = {**OPTIONS, "batch_size": batch_size}
    usual, _ = kit.run(source, kit.copy_values(2), **options)
    sizes = []

    def function(values, valid):
        sizes.append(len(values["optical"]))
        if sizes[-1] == batch_size and len(sizes) > first:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return values["optical"]

    canvas, report = kit.run(source, kit.Model(2, function), **options)
    half = -(-batch_size // 2)
    assert sizes[: first + 1] == [batch_size] * (first + 1)
    assert set(sizes[first + 1 :]) == {half}
    assert canvas.probabilities.tobytes() == usual.probabilities.tobytes()
    assert (report.batch_size, report.part_size) == (batch_size, half)
    assert (canvas.count == 1).all()


def test_what_ran_out_of_memory_is_let_go_before_the_halves_run(kit):
    """Tensors that the failed batch made would else still fill the device."""
    import weakref

    made = []

    def function(values, valid):
        if len(values["optical"]) == 2:
            large = values["optical"].clone()
            made.append(weakref.ref(large))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert made[0]() is None
        return values["optical"]

    kit.run(_scene(kit), kit.Model(2, function), **OPTIONS)
    assert len(made) == 1


def test_a_single_tile_that_is_too_much_is_an_error(kit):
    def function(values, valid):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DeviceMemoryError, match="batches of 1 tile of 16 x 16 pixels; lower --tile-size"):
        kit.run(_scene(kit), kit.Model(2, function), **{**OPTIONS, "batch_size": 1})
