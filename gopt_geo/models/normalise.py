"""From pixel values in a pack's units to what a backbone expects: channels mixed and normalised, on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from gopt_geo.packmeta import ModalityInfo

__all__ = ["Normaliser"]


class Normaliser(nn.Module):
    """Mixes the bands of each modality into the backbone's channels and normalises them: (T_m x - mean) / std.

    The statistics are constants: no parameter, and nothing in the state dict. The same in training and prediction, and
    in full precision whatever autocast says.

    Parameters
    ----------
    modalities
        By name; the images come out in this order.
    """

    def __init__(self, modalities: Mapping[str, ModalityInfo]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        for name, info in modalities.items():
            self.register_buffer(f"{name}_channels", torch.tensor(info.channels), persistent=False)
            self.register_buffer(f"{name}_mean", torch.tensor(info.mean).view(1, -1, 1, 1), persistent=False)
            self.register_buffer(f"{name}_std", torch.tensor(info.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return images float32 [B, C, h, w] by modality, of those that are given.

        Parameters
        ----------
        values
            float32 [B, bands, h, w] by modality, in the pack's units.
        """
        images = {}
        for name in self.modalities:
            if name in values:
                pixels = values[name]
                with torch.autocast(pixels.device.type, enabled=False):
                    mixed = torch.einsum("dc,bchw->bdhw", self.get_buffer(f"{name}_channels"), pixels)
                    images[name] = mixed.sub_(self.get_buffer(f"{name}_mean")).div_(self.get_buffer(f"{name}_std"))
        return images
