"""The segmentation head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gopt_geo.models.head import LinearHead, MLPHead, build_head, tap_layers


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


@pytest.mark.parametrize(("grid", "size"), [((2, 3), (16, 24)), ((1, 1), (7, 7)), ((3, 2), (20, 31)), ((2, 2), (2, 2))])
@pytest.mark.parametrize("upscale", [1, 3])
@torch.no_grad()
def test_heads_are_the_equations_at_any_size(grid, size, upscale):
    torch.manual_seed(0)
    tokens = grid[0] * grid[1]
    taps = [3 * torch.randn(2, tokens, 16) + 1 for _ in range(3)]
    norms = [F.layer_norm(tap, (16,), eps=1e-6) for tap in taps]
    mlp, linear = MLPHead(16, 3, 8, 5, upscale), LinearHead(16, 5, upscale)
    hidden = F.gelu(torch.cat([layer(norm) for layer, norm in zip(mlp.project, norms, strict=True)], dim=-1))
    for head, said in (
        (mlp, mlp.classify(F.gelu(mlp.fuse(hidden)))),
        (linear, linear.classify(norms[-1])),
    ):
        image = torch.zeros(2, 5, grid[0] * upscale, grid[1] * upscale)
        for row in range(image.shape[2]):
            for column in range(image.shape[3]):
                token = row // upscale * grid[1] + column // upscale
                cell = row % upscale * upscale + column % upscale
                image[:, :, row, column] = said[:, token].view(2, 5, upscale**2)[:, :, cell]
        expected = F.interpolate(image, size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(head(taps, grid, size), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_linear_head_reads_the_last_tap_alone():
    head = build_head("linear", 16, 4, 8, 3, 1)
    taps = [torch.randn(1, 4, 16) for _ in range(4)]
    assert isinstance(head, LinearHead)
    assert sum(p.numel() for p in head.parameters()) == 16 * 3 + 3
    assert torch.equal(head(taps, (2, 2), (4, 4)), head(taps[-1:], (2, 2), (4, 4)))


def test_the_mlp_head_refuses_taps_that_it_was_not_built_for():
    head = build_head("mlp", 16, 4, 8, 3, 1)
    assert isinstance(head, MLPHead)
    with pytest.raises(ValueError, match="shorter"):
        head([torch.randn(1, 4, 16)], (2, 2), (4, 4))
