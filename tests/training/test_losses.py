"""Losses: means over labelled pixels, whatever parts a step is forwarded in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.training.losses import SegmentationLoss

KINDS = ("cross_entropy", "cross_entropy+dice", "cross_entropy+lovasz")


def drawn(seed: int, share: float = 0.5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, classes, 6, 5, generator=rng).requires_grad_()
    labels = torch.randint(0, classes, (4, 6, 5), generator=rng)
    labels[torch.rand(4, 6, 5, generator=rng) > share] = 255
    return logits, labels


@pytest.mark.brief
@given(
    seed=st.integers(0, 1000), share=st.floats(0, 1), cuts=st.sampled_from([(1, 3), (2, 2), (1, 1, 2), (1, 1, 1, 1)])
)
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_add_up_to_torchs_mean(seed: int, share: float, cuts: tuple[int, ...], weighted: bool) -> None:
    logits, labels = drawn(seed, share)
    weights = torch.tensor([1.0, 0.3, 2.0, 4.0]) if weighted else None
    loss = SegmentationLoss("cross_entropy", weights)
    total = loss.weight(labels)
    parts = zip(logits.split(cuts), labels.split(cuts), strict=True)
    found = sum(loss(a, b, total) for a, b in parts)
    if bool((labels != 255).any()):
        assert torch.allclose(found, F.cross_entropy(logits, labels, weights, ignore_index=255), atol=1e-6)
    else:
        assert found == 0


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_labelled_is_zero_and_finite(kind: str) -> None:
    logits, labels = drawn(1)
    labels[:] = 255
    loss = SegmentationLoss(kind)
    found = loss(logits, labels, loss.weight(labels))
    found.backward()
    assert found == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_pixels_have_no_gradient(kind: str) -> None:
    logits, labels = drawn(2)
    loss = SegmentationLoss(kind)
    loss(logits, labels, loss.weight(labels)).backward()
    gradient = logits.grad.abs().sum(1)
    assert (gradient[labels == 255] == 0).all()
    assert (gradient[labels != 255] > 0).any()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_areas_vanish_where_all_is_right(kind: str) -> None:
    _, labels = drawn(3)
    perfect = 50.0 * F.one_hot(labels.clamp_max(3), 4).permute(0, 3, 1, 2).float()
    loss = SegmentationLoss(kind)
    assert loss(perfect, labels, loss.weight(labels)) < 1e-5
    assert loss(-perfect, labels, loss.weight(labels)) > 1


def test_dice_is_the_mean_over_labelled_classes() -> None:
    labels = torch.tensor([[[0, 0, 1, 1]]])
    logits = torch.zeros(1, 8, 1, 4)  # 1/8 everywhere: Dice of a class is 2 * 2/8 / (4/8 + 2) = 0.2
    loss = SegmentationLoss("cross_entropy+dice")
    areas = loss(logits, labels, loss.weight(labels)) - F.cross_entropy(logits, labels)
    assert areas.item() == pytest.approx(0.8)
