"""Finished blocks in memory and in a file."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from gopt_geo.datasets.blocks import Blocks, Layer, Reopening
from gopt_geo.errors import DatasetError
from gopt_geo.grid import Window

SHAPE = 700, 900
LAYERS = Layer((2,), np.float32), Layer((), np.uint8, 255)
CALLS: list[Window] = []


def produce(block: Window) -> tuple[np.ndarray, np.ndarray]:
    CALLS.append(block)
    rows, cols = np.mgrid[block.row : block.row_stop, block.col : block.col_stop].astype(np.float32)
    return np.stack([rows, cols]), ((rows + cols) % 200).astype(np.uint8)


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.brief
def test_windows_are_cut_from_blocks_that_are_made_once(tmp_path: Path, in_file: bool) -> None:
    CALLS.clear()
    blocks = Blocks(SHAPE, LAYERS, produce, 64 << 20, tmp_path if in_file else None)
    copy = pickle.loads(pickle.dumps(blocks))
    for window in (
        Window(500, 500, 40, 60),
        Window(690, 880, 20, 30),
        Window(-10, 300, 30, 30),
        Window(500, 500, 9, 9),
    ):
        for reader in (blocks, copy) if in_file else (blocks,):
            values, mask = reader.read(window)
            inside = window.clip(SHAPE)
            assert inside is not None
            part = inside.slices_in(window)
            rows, cols = np.mgrid[inside.row : inside.row_stop, inside.col : inside.col_stop]
            expected = np.zeros((2, *window.shape)), np.full(window.shape, 255)
            expected[0][:, part[0], part[1]] = rows, cols
            expected[1][part] = (rows + cols) % 200
            np.testing.assert_array_equal(values, expected[0])
            np.testing.assert_array_equal(mask, expected[1])
            values[:], mask[:] = 7, 7  # what is handed out isn't what is kept
    assert sorted((block.row, block.col) for block in CALLS) == [(0, 0), (0, 512), (512, 0), (512, 512)]
    assert {block.shape for block in CALLS} == {(512, 512), (512, 388), (188, 512), (188, 388)}


def test_the_file_goes_with_its_maker(tmp_path: Path) -> None:
    blocks = Blocks(SHAPE, LAYERS, produce, 0, tmp_path)
    blocks.read(Window(0, 0, 9, 9))
    copy = pickle.loads(pickle.dumps(blocks))
    del copy
    (folder,) = tmp_path.iterdir()
    file = folder / "blocks"
    assert file.stat().st_size > 4 * 512 * 512 * 9
    assert file.stat().st_blocks * 512 < 2 * 512 * 512 * 9  # the rest is a hole
    del blocks
    assert not list(tmp_path.iterdir())


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = Blocks(SHAPE, LAYERS, produce, 0, tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DatasetError, match=r"No space left.*cache_dir"):
            blocks.read(Window(0, 0, 9, 9))
    assert blocks.read(Window(3, 4, 1, 1))[0].ravel().tolist() == [3, 4]


def test_a_reader_is_opened_anew_in_a_forked_process() -> None:
    held = Reopening([1])
    assert held.get() is held.get()
    first = held.get()
    held._process -= 1  # as it looks after a fork
    assert held.get() == [1]
    assert held.get() is not first
