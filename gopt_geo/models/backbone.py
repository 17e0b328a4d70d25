"""Frozen vision transformers from timm, split into embedding and blocks so that prompts can go in between."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gopt_geo.errors import PackError

__all__ = [
    "DEMO_ARCHITECTURE",
    "DEMO_BACKBONE",
    "Backbone",
    "build_vit",
    "demo_backbone_path",
    "load_backbone",
    "state_digest",
]

DEMO_BACKBONE = "gopt-geo:demo-vit-p8"
DEMO_ARCHITECTURE: dict[str, Any] = {
    "img_size": 128,
    "patch_size": 8,
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "class_token": False,
}


def demo_backbone_path() -> Path:
    """Path of the demo backbone's weights."""
    return Path(str(files("gopt_geo"))) / "data" / "demo" / "backbone.safetensors"


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted name, dtype, shape and bytes of a state dict, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Backbone(nn.Module):
    """A vision transformer that never learns: no gradient, always in evaluation mode.

    Parameters
    ----------
    vit
        A plain timm vision transformer built with ``dynamic_img_size``.
    identity
        The name that packs know it by.

    Attributes
    ----------
    embed_dim, depth, patch_size, num_prefix_tokens
        Width D, number of layers L, patch edge in pixels, and number of CLS and register tokens.
    """

    def __init__(self, vit: VisionTransformer, identity: str) -> None:
        super().__init__()
        self.vit = vit
        self.identity = identity
        self.embed_dim = int(vit.embed_dim)
        self.depth = len(vit.blocks)
        self.patch_size = int(vit.patch_embed.patch_size[0])
        self.num_prefix_tokens = int(vit.num_prefix_tokens)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002 (the signature is nn.Module's)
        """Stay in evaluation mode: dropout or stochastic depth would make a frozen model differ from run to run."""
        return super().train(False)

    def digest(self) -> str:
        """SHA-256 of the weights as loaded; see `state_digest`."""
        return state_digest(self.vit.state_dict())

    def embed(self, images: Tensor, invalid: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
        """Turn images into tokens, E(I) + pos (GOPT.md, step 0).

        Parameters
        ----------
        images
            [B, 3, H, W], normalised; H and W multiples of the patch size.
        invalid
            bool [B, N]; the embeddings of these patches give way to ``mask_token``.
        mask_token
            [D]; needed where ``invalid`` is given.

        Returns
        -------
        [B, P + N, D], prefix tokens first.
        """
        patches = self.vit.patch_embed(images)  # [B, H/p, W/p, D] with dynamic_img_size
        if invalid is not None and mask_token is not None:
            grid = invalid.view(*patches.shape[:3], 1)
            patches = torch.where(grid, mask_token.to(patches.dtype), patches)
        tokens: Tensor = self.vit.norm_pre(self.vit._pos_embed(patches))
        return tokens

    def block(self, layer: int, tokens: Tensor) -> Tensor:
        """Run block ``layer``, counted from 1 as in the equations."""
        output: Tensor = self.vit.blocks[layer - 1](tokens)
        return output


def build_vit(architecture: Mapping[str, Any]) -> VisionTransformer:
    """Build a plain timm vision transformer without head, for images of any size that the patch size divides."""
    return VisionTransformer(**architecture, num_classes=0, global_pool="", dynamic_img_size=True)


def load_backbone(identity: str) -> Backbone:
    """Load a frozen backbone by its id.

    Parameters
    ----------
    identity
        ``gopt-geo:demo-vit-p8`` (shipped with the package) or ``timm:NAME``, whose pre-trained weights timm
        downloads or finds in its cache.

    Raises
    ------
    PackError
        If the id is unknown, or its weights can't be had.
    """
    if identity == DEMO_BACKBONE:
        path = demo_backbone_path()
        vit = build_vit(DEMO_ARCHITECTURE)
        try:
            state = {name: tensor.float() for name, tensor in load_file(path).items()}
            vit.load_state_dict(state)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise PackError(path, f"the demo backbone can't be read ({error})", "install gopt-geo again") from error
        return Backbone(vit, identity)
    if identity.startswith("timm:"):
        return Backbone(_load_timm(identity.removeprefix("timm:")), identity)
    raise PackError(identity, "no such backbone", f"use {DEMO_BACKBONE} or timm:NAME")


def _load_timm(name: str) -> VisionTransformer:
    """Load pre-trained weights through timm, which keeps a cache and downloads what it lacks."""
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, dynamic_img_size=True)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise PackError(
            f"timm:{name}",
            f"the weights can't be loaded ({type(error).__name__}: {error})",
            "check the name with timm.list_pretrained(), and load it once where there is a network: "
            "timm.create_model(name, pretrained=True) fills the cache named by HF_HOME",
        ) from error
    if not isinstance(model, VisionTransformer):
        raise PackError(f"timm:{name}", f"a {type(model).__name__}", "use a plain vision transformer of timm")
    return model
