"""The segmentation head."""

from __future__ import annotations

import pytest
import torch

from gopt_geo.models.head import MLPHead, tap_layers


@pytest.mark.parametrize(
    ("depth", "taps"), [(12, (3, 6, 9, 12)), (24, (6, 12, 18, 24)), (4, (1, 2, 3, 4)), (6, (2, 3, 4, 6)), (1, (1,))]
)
def test_taps_lie_at_the_quarters(depth, taps):
    assert tap_layers(depth) == taps


@pytest.mark.parametrize("upscale", [1, 2, 8])
@torch.no_grad()
def test_the_result_lies_where_its_token_lies(upscale):
    """Turning one token changes the pixels of its patch; beyond it only what the bilinear step spreads."""
    torch.manual_seed(0)
    head = MLPHead(16, 2, 8, 3, upscale).eval()
    taps = [torch.randn(1, 12, 16) for _ in range(2)]
    before = head(taps, (3, 4), (24, 32))
    taps[1][0, 6] = torch.randn(16)  # row 1, column 2
    changed = (head(taps, (3, 4), (24, 32)) != before).any(dim=1)[0]
    reach = 0 if upscale == 8 else 8 // upscale // 2
    inside = torch.zeros_like(changed)
    inside[8 - reach : 16 + reach, 16 - reach : 24 + reach] = True
    assert before.shape == (1, 3, 24, 32)
    assert changed[8:16, 16:24].all()
    assert not changed[~inside].any()


@torch.no_grad()
def test_the_taps_are_normalised():
    head = MLPHead(16, 1, 8, 3)
    tap = torch.randn(1, 4, 16)
    torch.testing.assert_close(head([tap], (2, 2), (4, 4)), head([tap * 50 + 3], (2, 2), (4, 4)), rtol=1e-3, atol=1e-4)
