"""Batches put together where they are read: samples that are fetched at once lie in one piece of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

__all__ = ["Batch", "collate_samples", "read_batch"]

Sample = dict[str, Tensor]

_ALIGNED = 64  # bytes


class Batch(list[Sample]):
    """Samples whose values are parts of the batch's; a list like any other to whoever doesn't know."""

    whole: Sample


def collate_samples(samples: Sequence[Sample]) -> Sample:
    """Stack samples, for a DataLoader's `collate_fn`; those that lie in one batch already are not copied."""
    if isinstance(samples, Batch):
        return samples.whole
    stacked: Sample = default_collate(list(samples))
    return stacked


def read_batch(first: Sample, count: int, read_into: Callable[[int, Sample], object]) -> Batch:
    """Put a batch together.

    Parameters
    ----------
    first
        The first sample, which tells the shapes and types of all.
    count
        Number of samples.
    read_into
        Fills the values of the sample of a number, from 1.
    """
    batch = Batch()
    batch.whole = _allocate({key: ((count, *value.shape), value.dtype) for key, value in first.items()})
    batch += [{key: value[i] for key, value in batch.whole.items()} for i in range(count)]
    for key, value in first.items():
        batch[0][key].copy_(value)
    for i in range(1, count):
        read_into(i, batch[i])
    return batch


def _allocate(layout: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> Sample:
    """Return unset tensors in one storage; in a worker in shared memory, as torch's own collation does.

    A worker sends a storage through a connection that it makes for that; one for all values costs much less than six.
    """
    places, size = {}, 0
    for key, (shape, dtype) in layout.items():
        places[key] = size
        size += -(-torch.Size(shape).numel() * dtype.itemsize // _ALIGNED) * _ALIGNED
    make = torch.UntypedStorage if get_worker_info() is None else torch.UntypedStorage._new_shared
    storage = make(size)
    return {
        key: torch.empty(0, dtype=dtype).set_(storage, places[key] // dtype.itemsize, shape)  # type: ignore[call-overload]
        for key, (shape, dtype) in layout.items()
    }
