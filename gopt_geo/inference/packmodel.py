"""A pack's model as the tiler calls it: pixel values in the pack's units in, class probabilities out."""

from __future__ import annotations

import torch
from torch import Tensor

from gopt_geo.errors import GoptGeoError
from gopt_geo.models.cup import Grouping
from gopt_geo.models.gopt import GoPT
from gopt_geo.models.normalise import Normaliser
from gopt_geo.packs import PackMeta

__all__ = ["PackModel"]


class PackModel:
    """Normalises tiles as the pack says and predicts probabilities.

    Parameters
    ----------
    model
        In evaluation mode.
    meta
        Of the model's pack; its statistics normalise every tile, whatever the tile holds, and its temperature divides
        the logits.
    tile_size
        Of the tiles that will come; checked against the patch size.
    device
        Where the model runs.

    Raises
    ------
    GoptGeoError
        If the patch size doesn't divide the tile size.
    """

    def __init__(self, model: GoPT, meta: PackMeta, tile_size: int, device: str | torch.device = "cpu") -> None:
        patch = model.backbone.patch_size
        if tile_size % patch:
            raise GoptGeoError(
                f"--tile-size {tile_size}",
                f"the backbone {meta.backbone.id} cuts images into patches of {patch} pixels",
                f"use a multiple of {patch}, such as {max(patch, tile_size // patch * patch)}",
            )
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self._normalise = Normaliser(meta.modalities).to(self.device)
        self._temperature = meta.temperature
        self.num_classes = len(meta.classes)
        self.modalities: tuple[str, ...] = tuple(meta.modalities)

    def __call__(
        self, values: dict[str, Tensor], valid: dict[str, Tensor], /, groupings: list[Grouping] | None = None
    ) -> Tensor:
        """Probabilities float32 [B, K, t, t] from values float32 [B, C, t, t] and validity bool [B, t, t].

        The prompters' groupings are appended to ``groupings``, if given.
        """
        images = self._normalise(values)
        logits = self.model(images, {name: valid[name] for name in images}, groupings)
        return torch.softmax(logits.float() / self._temperature, dim=1)

    def working_memory(self, tile_size: int, batch_size: int) -> int:
        """Bytes that one forward pass takes besides the weights, about; an upper estimate."""
        backbone = self.model.backbone
        tokens = (tile_size // backbone.patch_size) ** 2 + backbone.num_prefix_tokens
        # The widest moment of a block: tokens, their normalised copy, the hidden layer of the MLP before and after
        # its activation (4 D each), the taps that wait for the head, and the auxiliary streams that wait for it.
        auxiliary = len(self.modalities) - 1
        activations = batch_size * tokens * backbone.embed_dim * 4 * (2 + 8 + len(self.model.taps) + 2 + auxiliary)
        channels = backbone.in_chans * len(self.modalities)
        images = batch_size * tile_size**2 * 4 * (2 * channels + 3 * self.num_classes)
        return int(activations + images)
