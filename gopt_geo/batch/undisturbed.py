"""Loaded by dask in processes that a batch starts on this machine: Ctrl-C in the terminal is for the batch alone.

The terminal sends it to all of them. The batch then ends its workers itself, and no worker shows a trace.
"""

from __future__ import annotations

import signal
from typing import Any

__all__ = ["dask_setup"]


def dask_setup(_worker: Any) -> None:
    """Let a worker's process, which has started, pass over Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
