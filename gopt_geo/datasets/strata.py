"""Deals blocks out to the parts of a split: each class by its share, at little cost of the buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gopt_geo.datasets.regions import BlockLayout

__all__ = ["assign"]

_TRIALS = 4000
_COST = 0.5  # of a label lost to the buffer, beside one by which a share is off


def assign(
    cells: NDArray[np.int64], layout: BlockLayout, targets: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int8]:
    """Give each block with labels to a part.

    The start is iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the blocks of the rarest class first,
    each to the part that lacks most of it. From there, single blocks change parts and pairs of blocks change places,
    wherever that improves the shares of all classes and the cost of the buffer taken together.

    Parameters
    ----------
    cells
        Labels of each class in each of the layout's cells, int64 [rows, cols, classes].
    layout
        Blocks and cells.
    targets
        Share of each part.
    rng
        Decides among equals, and which changes are tried.

    Returns
    -------
    int8 [down, across]: the part of each block, -1 where it has no labels. Each part with a share has a block.
    """
    present = np.flatnonzero(cells.sum(axis=(0, 1)))
    weights = cells[..., present] / cells[..., present].sum(axis=(0, 1))  # each class weighs the same
    blocks = np.zeros((*layout.shape, len(present)))
    np.add.at(blocks, np.ix_(layout.block_of_row, layout.block_of_col), weights)
    flat = blocks.reshape(-1, len(present))
    labelled = np.flatnonzero(flat.sum(axis=1) > 0)
    dealt = _stratify(flat, labelled, np.array(targets), rng)
    return _improve(dealt.reshape(layout.shape), labelled, weights, layout, np.array(targets), rng)


def _stratify(
    blocks: NDArray[np.float64], labelled: NDArray[np.int64], targets: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int8]:
    dealt = np.full(len(blocks), -1, np.int8)
    wanting = np.repeat(targets[:, None], blocks.shape[1], axis=1)  # of each class, by part
    used = targets > 0
    todo = rng.permutation(labelled)
    while len(todo):
        spread = (blocks[todo] > 0).sum(axis=0).astype(float)
        spread[spread == 0] = np.inf
        label = int(spread.argmin())
        holds = blocks[todo, label] > 0
        for block in todo[holds].tolist():
            need = np.where(used, wanting[:, label], -np.inf)
            best = np.flatnonzero(need >= need.max() - 1e-12)
            part = int(best[wanting[best].sum(axis=1).argmax()])
            dealt[block] = part
            wanting[part] -= blocks[block]
        todo = todo[~holds]
    for part in np.flatnonzero(used).tolist():  # few blocks, or small shares
        if not (dealt == part).any():
            numbers = np.bincount(dealt[labelled], minlength=len(targets))
            richest = labelled[dealt[labelled] == numbers.argmax()]
            dealt[richest[blocks[richest].sum(axis=1).argmin()]] = part
    return dealt


def _improve(
    dealt: NDArray[np.int8],
    labelled: NDArray[np.int64],
    cells: NDArray[np.float64],
    layout: BlockLayout,
    targets: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int8]:
    used = np.flatnonzero(targets > 0).tolist()
    if len(used) < 2:
        return dealt
    score = _score(dealt, cells, layout, targets)
    for _ in range(min(_TRIALS, 60 * len(labelled))):
        first, second = rng.choice(labelled, 2)
        trial = dealt.copy()
        flat = trial.reshape(-1)
        if rng.random() < 0.5:
            flat[first], flat[second] = flat[second], flat[first]
        else:
            flat[first] = used[rng.integers(len(used))]
        if (trial == dealt).all() or not all((trial == part).any() for part in used):
            continue
        new = _score(trial, cells, layout, targets)
        if new < score:
            dealt, score = trial, new
    return dealt


def _score(
    dealt: NDArray[np.int8], cells: NDArray[np.float64], layout: BlockLayout, targets: NDArray[np.float64]
) -> float:
    """How far the parts' shares, as the buffer leaves them, are off in the mean over classes; and what that costs."""
    own = layout.spread(dealt)
    off, kept_in_all = 0.0, np.zeros(cells.shape[2])
    kept = []
    for part, target in enumerate(targets.tolist()):
        if target > 0:
            kept.append(cells[(own == part) & ~layout.near(dealt > part)].sum(axis=0))
            kept_in_all += kept[-1]
    for share, target in zip(kept, targets[targets > 0].tolist(), strict=True):
        off += float(np.abs(share / np.maximum(kept_in_all, 1e-12) - target).mean())
        off += float((share == 0).mean())  # a class that a part lacks can't be learnt, or can't be scored
    return off + _COST * float(1 - kept_in_all.mean())
