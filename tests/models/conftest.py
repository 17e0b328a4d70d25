"""Small backbones without weights, models on them, and inputs."""

from __future__ import annotations

import pytest
import torch

from gopt_geo.models import Backbone, GoPT, GoptConfig
from gopt_geo.models.backbone import build_vit

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "class_token": False}


@pytest.fixture
def make_model():
    """A function (architecture changes, seed, config values) to a model in evaluation mode, its prompts large."""

    def make(architecture=None, *, seed=0, scale=0.5, **config):
        torch.manual_seed(seed)
        backbone = Backbone(build_vit({**TINY, **(architecture or {})}), "test:tiny")
        torch.manual_seed(seed + 1)
        model = GoPT(backbone, GoptConfig(**{"classes": 5, "rank": 8, "hidden": 16, **config}))
        model.ignores = frozenset(("optical", "sar", "nir"))  # one set of inputs serves models of one, two and three
        torch.nn.init.normal_(model.mask_token)
        with torch.no_grad():
            for prompter in model.prompters.values():
                prompter.scale.fill_(scale)  # so that what the prompts do can be seen
        return model.eval()

    return make


@pytest.fixture
def make_inputs():
    """A function (batch, height, width, share of valid pixels, seed) to images and validity, in patches' patterns."""

    def make(batch=2, height=32, width=32, share=0.7, seed=0, names=("optical", "sar"), patch=8):
        generator = torch.Generator().manual_seed(seed)
        images = {n: torch.randn(batch, 3, height, width, generator=generator) for n in names}
        valid = {}
        for name in names:
            whole = torch.rand(batch, 1, -(-height // patch), -(-width // patch), generator=generator) < share
            pixels = torch.rand(batch, height, width, generator=generator) < 0.9
            large = whole.float().repeat_interleave(patch, 2).repeat_interleave(patch, 3)[:, 0, :height, :width]
            valid[name] = (large > 0) & pixels
        return images, valid

    return make
