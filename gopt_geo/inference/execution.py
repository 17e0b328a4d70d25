"""Where and how a model runs: device, precision, compilation, threads. Chosen once, in force for a run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F

from gopt_geo.errors import DeviceMemoryError, GoptGeoError

__all__ = ["Execution", "Precision", "PrecisionName", "choose_device", "choose_precision", "usable_cores"]

Precision = Literal["fp32", "bf16", "fp16"]
"""What matrix products and convolutions are computed in; statistics, softmax and blending are float32 always."""
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

WORTH_BF16 = 2.0
"""How many times as fast as in fp32 a CPU must multiply matrices in bf16 for `auto` to take it."""
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_TENSOR_CORES = (7, 0)  # compute capability from which fp16 pays


@dataclass(frozen=True)
class Execution:
    """Where and how a model runs; nothing in it is "auto" any more.

    Attributes
    ----------
    device
        Where the model runs and tiles are blended.
    precision
        Of the model's matrix products.
    compiled
        Whether the model goes through torch's compiler (on a GPU: into a CUDA graph).
    threads
        Of the forward pass on a CPU; None: as torch has it.
    """

    device: torch.device
    precision: Precision = "fp32"
    compiled: bool = False
    threads: int | None = None

    @classmethod
    def choose(
        cls,
        device: str = "auto",
        precision: PrecisionName = "auto",
        *,
        compiled: bool = False,
        threads: int | None = None,
    ) -> Execution:
        """Resolve what was asked for; see `choose_device` and `choose_precision`.

        Raises
        ------
        GoptGeoError
            If it can't be had here.
        """
        if threads is not None and threads < 1:
            raise GoptGeoError("--threads", f"{threads}", "give at least 1")
        chosen = choose_device(device)
        if threads is None and chosen.type == "cpu":
            threads = _fewer_threads()
        with _threads(threads):  # the processor is probed as the run will use it
            return cls(chosen, choose_precision(precision, chosen), compiled, threads)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know: nothing of fp32 as it is."""
        told = []
        if self.precision != "fp32":
            told.append(f"the model runs in {self.precision} on {self.device}, blending in float32 (--precision)")
        if self.precision == "bf16" and self.device.type == "cpu" and not _has_bf16():
            told.append("warning: this processor has no instructions for bf16, so it is slower than fp32 here")
        return tuple(told)

    @property
    def low_dtype(self) -> torch.dtype | None:
        """Type of a reduced precision; None for fp32."""
        return _DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which torch picks each operation's precision; an empty one for fp32."""
        dtype = self.low_dtype
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Set the number of threads, and keep fp32 on a GPU from being TF32, for as long as the context lasts.

        Both are settings of the process.
        """
        with _threads(self.threads), _full_fp32(self.device):
            yield


def choose_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu`` or ``cuda[:n]``.

    Raises
    ------
    GoptGeoError
        If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wrong = GoptGeoError(f"--device {name}", "there is no such device here", "use auto, cpu or cuda[:n]")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise wrong
        torch.empty(1, device=device)
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(f"device {name}", "no memory left on it", "free it, or use another --device") from error
    except (RuntimeError, AssertionError) as error:
        raise wrong from error
    return device


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Resolve ``auto``, or check that the device has what is asked for.

    On a GPU ``auto`` is bf16, on one without it fp16, and fp32 where there are no tensor cores. On a CPU it is fp32,
    but for processors with matrix units for bf16 (AMX) on which a matrix product is measured to be at least twice as
    fast in it.

    Raises
    ------
    GoptGeoError
        If it is unknown, or the device doesn't have it.
    """
    option = f"--precision {name}"
    if name not in get_args(PrecisionName):
        raise GoptGeoError(option, "there is no such precision", f"choose {', '.join(get_args(PrecisionName))}")
    if device.type == "cpu":
        if name == "fp16":
            raise GoptGeoError(option, "a CPU doesn't compute in fp16", "use bf16 or fp32, or a GPU (--device)")
        if name == "auto":
            return "bf16" if _has_bf16("amx_bf16") and _gain_of_bf16() >= WORTH_BF16 else "fp32"
        return name
    major, minor = torch.cuda.get_device_capability(device)
    has_bf16 = major >= 8  # older ones only imitate it
    if name == "bf16" and not has_bf16:
        found = f"{torch.cuda.get_device_name(device)} doesn't compute in bf16"
        raise GoptGeoError(option, found, "use fp16 or fp32")
    if name != "auto":
        return name
    return "bf16" if has_bf16 else "fp16" if (major, minor) >= _TENSOR_CORES else "fp32"


@lru_cache(maxsize=1)
def _cpu_flags() -> frozenset[str]:
    """Return what the processor says that it can; nothing where the system doesn't tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(named, "").split())


def _has_bf16(*names: str) -> bool:
    """Tell whether the processor has bf16 instructions: these, else any that torch uses."""
    return not _cpu_flags().isdisjoint(names or ("amx_bf16", "avx512_bf16", "bf16"))


@lru_cache(maxsize=1)
def _gain_of_bf16() -> float:
    """Measure how many times as fast as fp32 this processor multiplies a transformer's matrices in bf16; some 50 ms."""
    tokens, weights = torch.ones(1024, 768), torch.ones(3072, 768)
    low = tokens.bfloat16(), weights.bfloat16()
    best = [float("inf"), float("inf")]
    for _ in range(4):  # the first round warms up; a best time is the least disturbed
        for kind, (one, other) in enumerate(((tokens, weights), low)):
            begin = time.perf_counter()
            F.linear(one, other)
            best[kind] = min(best[kind], time.perf_counter() - begin)
    return best[0] / best[1]


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, and a container's share of processor time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, -(-int(most) // int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def _fewer_threads() -> int | None:
    """Return the usable cores where torch, which doesn't know of a container's share, would take more; else None."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    cores = usable_cores()
    return cores if torch.get_num_threads() > cores else None


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def _full_fp32(device: torch.device) -> Iterator[None]:
    """Let nothing on a GPU round fp32 to TF32, which convolutions do by default: it keeps ten bits."""
    if device.type != "cuda":
        yield
        return
    settings: tuple[Any, ...] = (getattr(torch.backends.cudnn, "conv"), torch.backends.cuda.matmul)  # noqa: B009
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, old in zip(settings, before, strict=True):
            setting.fp32_precision = old
