"""Frozen vision transformers, split into embedding and blocks so that prompts can go in between."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from gopt_geo.errors import PackError
from gopt_geo.models.backbone_files import fit_state, read_state
from gopt_geo.models.backbone_sources import TrainedOn, load_timm, load_torchgeo, why_not
from gopt_geo.paths import StrPath

__all__ = [
    "DEMO_ARCHITECTURE",
    "DEMO_BACKBONE",
    "Backbone",
    "TrainedOn",
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
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Backbone(nn.Module):
    """A vision transformer that never learns: no gradient, always in evaluation mode.

    Calling `requires_grad_` on a model that holds a backbone reaches its parameters past it; so choose what to train
    by name, and train a copy of `vit` where a transformer shall learn.

    Parameters
    ----------
    vit
        A timm vision transformer that `why_not` has nothing against, built with ``dynamic_img_size``.
    identity
        The name that packs know it by.
    expects
        What it was trained on, if known.

    Attributes
    ----------
    embed_dim, depth, patch_size, num_prefix_tokens, in_chans
        Width D, number of layers L, patch edge in pixels, number of CLS and register tokens, and number of channels C
        that images have.

    Raises
    ------
    ValueError
        If this split wouldn't be the transformer itself.
    """

    _digested: tuple[object, str] | None = None

    def __init__(self, vit: VisionTransformer | Eva, identity: str, expects: TrainedOn | None = None) -> None:
        super().__init__()
        refusal = why_not(vit)
        if refusal is not None:
            raise ValueError(f"{identity}: {refusal}")
        self.vit = cast(VisionTransformer, vit)  # to the type checker alone: the parts used here are Eva's too
        self.identity = identity
        self.expects = expects if expects is not None else TrainedOn()
        self.embed_dim = int(vit.embed_dim)
        self.in_chans = int(vit.patch_embed.proj.in_channels)
        self.depth = len(vit.blocks)
        self.patch_size = int(vit.patch_embed.patch_size[0])
        self.num_prefix_tokens = int(vit.num_prefix_tokens)
        vit.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002 (the signature is nn.Module's)
        """Stay in evaluation mode: dropout or stochastic depth would make a frozen model differ from run to run."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Backbone:  # noqa: ARG002 (as above)
        """Stay frozen."""
        return super().requires_grad_(False)

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and pickles: their tensors are others, so the digest isn't theirs yet."""
        return {name: value for name, value in self.__dict__.items() if name != "_digested"}

    def digest(self) -> str:
        """SHA-256 of the weights as loaded; see `state_digest`.

        Reckoned again only after the weights have changed or moved. What is written behind PyTorch's back, through
        ``tensor.data`` or a NumPy view, can't be noticed.
        """
        state = self.vit.state_dict()
        if any(tensor.is_inference() for tensor in state.values()):
            return state_digest(state)  # these don't count their changes
        # The weak references keep an address from being given to another tensor that would then look like this one.
        key = [
            (
                name,
                StorageWeakRef(t.untyped_storage()),
                t.data_ptr(),
                t._version,
                t.dtype,
                t.device,
                t.shape,
                t.stride(),
            )
            for name, t in state.items()
        ]
        if self._digested is None or self._digested[0] != key:
            self._digested = (key, state_digest(state))
        return self._digested[1]

    def embed(
        self,
        images: Tensor,
        invalid: Tensor | None = None,
        mask_token: Tensor | None = None,
        *,
        added: bool = False,
    ) -> Tensor:
        """Turn images into tokens, E(I) + pos (step 0); rotary positions are not in them, see `positions`.

        Parameters
        ----------
        images
            [B, C, H, W], normalised; H and W multiples of the patch size.
        invalid
            bool [B, N]; the embeddings of these patches give way to ``mask_token``.
        mask_token
            [D]; needed where ``invalid`` is given.
        added
            The token is added to these embeddings instead.

        Returns
        -------
        [B, P + N, D], prefix tokens first.
        """
        patches = self.vit.patch_embed(images)  # [B, H/p, W/p, D] with dynamic_img_size
        if invalid is not None and mask_token is not None:
            grid = invalid.view(*patches.shape[:3], 1)
            token = mask_token.to(patches.dtype)
            patches = torch.where(grid, patches + token if added else token, patches)
        placed = self.vit._pos_embed(patches)
        if isinstance(placed, tuple):  # Eva's: with the rotary positions
            placed = placed[0]
        tokens: Tensor = self.vit.norm_pre(placed)
        return tokens

    def positions(self, height: int, width: int) -> Tensor | None:
        """Rotary embedding [N, 2 x head width] for images of this size in pixels.

        None where positions are added in `embed` alone.
        """
        rope = getattr(self.vit, "rope", None)
        if rope is None:
            return None
        positions: Tensor = rope.get_embed(shape=(height // self.patch_size, width // self.patch_size))
        return positions

    def block(self, layer: int, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Run block ``layer``, counted from 1 as in the equations, on tokens [B, P + N, D].

        ``positions`` are those that `positions` gives for the images' size.
        """
        block = self.vit.blocks[layer - 1]
        output: Tensor = block(tokens) if positions is None else block(tokens, rope=positions)
        return output


def build_vit(architecture: Mapping[str, Any]) -> VisionTransformer:
    """Build a plain timm vision transformer without head, for images of any size that the patch size divides."""
    return VisionTransformer(**architecture, num_classes=0, global_pool="", dynamic_img_size=True)


def load_backbone(identity: str, weights: StrPath | None = None) -> Backbone:
    """Load a frozen backbone by its id.

    Parameters
    ----------
    identity
        ``gopt-geo:demo-vit-p8`` (shipped with the package), ``timm:NAME``, or ``torchgeo:WEIGHTS``, such as
        ``torchgeo:ViTSmall16_Weights.SENTINEL2_ALL_DINO``.
    weights
        File with the weights. Else a file named after the id in the folder ``GOPT_GEO_BACKBONES`` (default: in the
        user's cache), else what timm or torchgeo keep in their caches or download.

    Raises
    ------
    PackError
        If the id is unknown or its model isn't a plain vision transformer, if the weights can't be had, or if they
        aren't this backbone's.
    """
    weights = Path(weights) if weights is not None else None
    if identity == DEMO_BACKBONE:
        return _load_demo(weights)
    kind = identity.partition(":")[0]
    if kind not in ("timm", "torchgeo"):
        raise PackError(identity, "no such backbone", f"use {DEMO_BACKBONE}, timm:NAME or torchgeo:WEIGHTS")
    vit, expects = (load_timm if kind == "timm" else load_torchgeo)(identity, weights)
    return Backbone(vit.float(), identity, expects)


def _load_demo(weights: Path | None) -> Backbone:
    path = weights if weights is not None else demo_backbone_path()
    remedy = "install gopt-geo again" if weights is None else f"name the file with the weights of {DEMO_BACKBONE}"
    vit = build_vit(DEMO_ARCHITECTURE)
    fit_state(vit, read_state(path), path, remedy)
    return Backbone(vit, DEMO_BACKBONE, TrainedOn(bands=("red", "green", "blue")))
