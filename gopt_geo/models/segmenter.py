"""What GoPT and its relatives have in common: a backbone, a mask token, and a head over four taps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gopt_geo.models.backbone import Backbone
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.head import build_head, tap_layers
from gopt_geo.models.tokens import token_validity

__all__ = ["Segmenter"]

Images = Mapping[str, Tensor]


class Segmenter(nn.Module):
    """A frozen backbone with a head: the base of all models, which say in `forward` what happens between its blocks.

    Parameters
    ----------
    backbone
        Frozen; not part of `trainable_state`.
    config
        Shape and switches.

    Attributes
    ----------
    ignores
        Names of images that may be given though the model doesn't read them.
    """

    ignores: frozenset[str] = frozenset()

    def __init__(self, backbone: Backbone, config: GoptConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.taps = tap_layers(backbone.depth) if config.head == "mlp" else (backbone.depth,)
        self.head = build_head(
            config.head, backbone.embed_dim, len(self.taps), config.hidden, config.classes, config.upscale
        )
        self.mask_token = nn.Parameter(torch.zeros(backbone.embed_dim))

    def trainable_state(self) -> dict[str, Tensor]:
        """State of everything but the backbone: what a pack holds."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_trainable_state(self, state: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Load what `trainable_state` gave.

        Parameters
        ----------
        state
            Name to tensor.
        assign
            Take the tensors themselves instead of copying their values; for a model built on the meta device.

        Raises
        ------
        RuntimeError
            If names or shapes don't fit; the model is then as it was.
        """
        own = self.trainable_state()
        if set(own) != set(state):  # the backbone's own tensors are refused too: other models may share it
            odd = ", ".join(sorted(set(own) ^ set(state))[:3])
            raise RuntimeError(
                f"{len(set(own) - set(state))} tensors lack, {len(set(state) - set(own))} are foreign: {odd}"
            )
        for name, tensor in state.items():
            if tensor.shape != own[name].shape:
                raise RuntimeError(f"{name} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
        self.load_state_dict(dict(state), strict=False, assign=assign)

    def forward(self, images: Images, valid: Images | None = None) -> Tensor:
        """Predict logits.

        Parameters
        ----------
        images
            Modality to normalised image [B, C, H, W], C the channels that the backbone expects; H and W multiples of
            the patch size (the caller pads). An auxiliary modality that isn't there is left out; the primary one too
            is left out, not faked: its tokens become mask tokens.
        valid
            Modality to bool [B, H, W]; values at invalid pixels never change the result. A modality without a mask
            is valid everywhere.

        Returns
        -------
        Logits [B, classes, H, W].

        Raises
        ------
        ValueError
            If an image or a mask has a name that is neither among the model's modalities nor in `ignores`, a mask isn't
            bool, no image is given, their shapes differ, or the patch size doesn't divide them.
        """
        raise NotImplementedError

    def _size(self, images: Images, valid: Images) -> tuple[int, int]:
        """Height and width of the images in pixels, after a check of what `forward` is given; ValueError as there."""
        for name in (*images, *valid):
            if name not in self.config.modalities and name not in self.ignores:
                raise ValueError(f"the model knows {', '.join(self.config.modalities)}, not {name!r}")
        for name, mask in valid.items():
            if mask.dtype != torch.bool:
                raise ValueError(f"the mask of {name!r} is {mask.dtype}, it must be bool: True where there is data")
        known = [images[name] for name in self.config.modalities if name in images]
        if not known:
            raise ValueError(f"none of {', '.join(self.config.modalities)} among the images")
        some, patch = known[0], self.backbone.patch_size
        if any(other.shape != some.shape for other in known):
            raise ValueError(f"the images' shapes differ: {', '.join(str(tuple(image.shape)) for image in known)}")
        height, width = int(some.shape[2]), int(some.shape[3])
        if height % patch or width % patch:
            raise ValueError(f"{height} x {width} pixels are no multiple of the patch, {patch}; pad the images")
        return height, width

    def _embed_primary(self, images: Images, valid: Images) -> Tensor:
        """Tokens of the RGB stream, [B, P + N, D] (step 0); invalid ones are the mask token."""
        image, pixels = images.get(self.config.primary), valid.get(self.config.primary)
        if image is None:
            some = next(images[name] for name in self.config.auxiliary if name in images)
            image, pixels = torch.zeros_like(some), torch.zeros_like(some[:, 0], dtype=torch.bool)
        if pixels is None or self.config.missing == "mask":
            return self._embed(image, pixels, self.mask_token)[0]
        there = token_validity(pixels, self.backbone.patch_size)
        image = torch.where(pixels.unsqueeze(1), image, 0.0)
        image = torch.where(self._pixels_of(there, image), image, self._stand_in(image, images, valid))
        return self.backbone.embed(image, ~there, self.mask_token, added=True)

    def _pixels_of(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Spread what holds of tokens, [B, N], over the pixels of their patches, [B, 1, H, W]."""
        patch = self.backbone.patch_size
        grid = tokens.view(len(tokens), 1, image.shape[2] // patch, image.shape[3] // patch)
        return grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)

    def _stand_in(self, like: Tensor, images: Images, valid: Images) -> Tensor:
        """Mean of the auxiliary images at each pixel, [B, C, H, W], over those valid there; 0 where none is."""
        total, count = torch.zeros_like(like), torch.zeros_like(like[:, :1])
        for name in self.config.auxiliary:
            if name in images:
                there = valid[name].unsqueeze(1) if name in valid else torch.ones_like(count, dtype=torch.bool)
                total = total + torch.where(there, images[name], 0.0)
                count = count + there
        return total / count.clamp_min(1)

    def _embed(
        self, image: Tensor, valid: Tensor | None, mask_token: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens of a modality, [B, P + N, D], and their validity, bool [B, N] or None for everywhere (step 0).

        With ``mask_token``, that stands for invalid tokens.
        """
        if valid is None:
            return self.backbone.embed(image), None
        there = token_validity(valid, self.backbone.patch_size)
        image = torch.where(valid.unsqueeze(1), image, 0.0)
        return self.backbone.embed(image, ~there if mask_token is not None else None, mask_token), there

    def _run(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        between: Callable[[int, Tensor], Tensor] | None = None,
    ) -> list[Tensor]:
        """Run all blocks (step 1); ``between`` gets each layer's number and output and gives the next one's input.

        Returns
        -------
        The taps, taken before ``between`` changes them, [B, P + N, D] each.
        """
        taps = []
        for layer in range(1, self.backbone.depth + 1):
            tokens = self.backbone.block(layer, tokens, positions)
            if layer in self.taps:
                taps.append(tokens)
            if between is not None:
                tokens = between(layer, tokens)
        return taps

    def _decode(self, taps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits [B, classes, H, W] from the taps, [B, P + N, D] each (step 12)."""
        patch, prefix = self.backbone.patch_size, self.backbone.num_prefix_tokens
        grid = (size[0] // patch, size[1] // patch)
        logits: Tensor = self.head([tap[:, prefix:] for tap in taps], grid, size)
        return logits
