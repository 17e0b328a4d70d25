"""What GoPT is compared with, on the same backbone and head: full fine-tuning, ViPT-style and deep visual prompts.

The single-modality models are `GoPT` without auxiliary modalities; see `build_model`. All are called like GoPT, and
all take their sizes from a `GoptConfig`. Written from the papers' descriptions:

* Jia et al., "Visual Prompt Tuning", ECCV 2022 (deep VPT);
* Zhu et al., "Visual Prompt Multi-Modal Tracking", CVPR 2023 (ViPT).
"""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopt_geo.models.backbone import Backbone
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.gopt import GoPT
from gopt_geo.models.segmenter import Images, Segmenter

__all__ = ["METHODS", "DeepVPT", "EarlyFusion", "Method", "ViPT", "build_model"]

Method = Literal["gopt", "rgb_only", "sar_only", "early_fusion", "vipt", "vpt"]
METHODS: tuple[Method, ...] = get_args(Method)


class EarlyFusion(Segmenter):
    """Full fine-tuning: the patch embedding widened to the channels of all modalities, and everything trained.

    The widened embedding starts with the backbone's own weights for the primary modality and zeros for the others,
    so training starts from the RGB model. Invalid pixels are zero (the mean) in their channels; there is no mask
    token.

    Parameters
    ----------
    backbone
        Copied; the given one stays frozen and unchanged.
    config
        Classes, modalities and head.
    """

    def __init__(self, backbone: Backbone, config: GoptConfig) -> None:
        vit = copy.deepcopy(backbone.vit)
        project = vit.patch_embed.proj
        modalities = len(config.modalities)
        wide = nn.Conv2d(
            project.in_channels * modalities,
            project.out_channels,
            kernel_size=project.kernel_size,
            stride=project.stride,
            bias=project.bias is not None,
            device=project.weight.device,
            dtype=project.weight.dtype,
        )
        with torch.no_grad():
            wide.weight.zero_()
            wide.weight[:, : project.in_channels] = project.weight
            if project.bias is not None:
                wide.bias.copy_(project.bias)  # type: ignore[union-attr]
        vit.patch_embed.proj = wide
        for name in ("norm", "fc_norm"):  # the head reads the blocks' outputs; nothing would train these
            if hasattr(vit, name):
                setattr(vit, name, nn.Identity())
        own = Backbone(vit, f"{backbone.identity}, fine-tuned")
        super().__init__(own, config)
        del self.mask_token
        own.vit.requires_grad_(True)  # own is built frozen, as every backbone

    def trainable_state(self) -> dict[str, Tensor]:
        """State of all of it."""
        return dict(self.state_dict())

    def forward(self, images: Images, valid: Images | None = None) -> Tensor:
        """Predict logits [B, classes, H, W]; see `Segmenter.forward`."""
        valid = valid if valid is not None else {}
        size = self._size(images, valid)
        some = next(images[name] for name in self.config.modalities if name in images)
        channels = []
        for name in self.config.modalities:
            image = images.get(name)
            if image is None:
                image = torch.zeros_like(some)
            elif name in valid:
                image = torch.where(valid[name].unsqueeze(1), image, 0.0)
            channels.append(image)
        tokens = self.backbone.embed(torch.cat(channels, dim=1))
        return self._decode(self._run(tokens, self.backbone.positions(*size)), size)


class _ViptPrompter(nn.Module):
    """One layer of ViPT-style prompts: the RGB tokens, foveated, and the prompts so far, summed in r dimensions.

    M = fovea(LN(F) W_1 + b_1) + LN(P) W_2 + b_2, next P = s (M W_3 + b_3), where fovea(x) = x + c softmax over N of x
    times x, c learned.
    """

    def __init__(self, width: int, rank: int, scale: float = 1e-2) -> None:
        super().__init__()
        self.norm_rgb, self.norm_prompt = nn.LayerNorm(width), nn.LayerNorm(width)
        self.rgb, self.prompt = nn.Linear(width, rank), nn.Linear(width, rank)
        self.fovea = nn.Parameter(torch.ones(1))
        self.up = nn.Linear(rank, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, rgb: Tensor, prompt: Tensor, valid: Tensor | None) -> Tensor:
        """Next prompts [B, N, D] from RGB tokens and the prompts before, [B, N, D] each."""
        focus = self.rgb(self.norm_rgb(rgb))
        focus = focus + self.fovea * torch.softmax(focus, dim=1) * focus
        mixed = focus + self.prompt(self.norm_prompt(prompt))
        out: Tensor = F.linear(mixed, self.up.weight * self.scale[:, None], self.up.bias * self.scale)
        return out if valid is None else out * valid.unsqueeze(-1)


class ViPT(Segmenter):
    """ViPT-style low-rank prompts, each layer's made of the RGB tokens and of the prompts before it; no groups.

    The first are the auxiliary modality's embedding. Several modalities share the prompters, and their prompts add up.

    Parameters
    ----------
    backbone
        Frozen.
    config
        ``rank``, ``layers``, modalities, classes and head are used.
    """

    def __init__(self, backbone: Backbone, config: GoptConfig) -> None:
        super().__init__(backbone, config)
        layers = config.prompted_layers(backbone.depth)
        self.prompters = nn.ModuleDict({str(n): _ViptPrompter(backbone.embed_dim, config.rank) for n in layers})

    def forward(self, images: Images, valid: Images | None = None) -> Tensor:
        """Predict logits [B, classes, H, W]; see `Segmenter.forward`."""
        valid = valid if valid is not None else {}
        size, prefix = self._size(images, valid), self.backbone.num_prefix_tokens
        tokens = self._embed_primary(images, valid)
        prompts: dict[str, tuple[Tensor, Tensor | None]] = {}
        with torch.no_grad():
            for name in self.config.auxiliary:
                if name in images:
                    embedded, there = self._embed(images[name], valid.get(name))
                    prompts[name] = (embedded[:, prefix:], there)

        def between(layer: int, tokens: Tensor) -> Tensor:
            if str(layer) in self.prompters:
                rgb = tokens[:, prefix:]  # without this layer's prompts: the modalities' order means nothing
                for name, (prompt, there) in prompts.items():
                    prompt = self.prompters[str(layer)](rgb, prompt, there)
                    prompts[name] = (prompt, there)
                    tokens = tokens + F.pad(prompt, (0, 0, prefix, 0))
            return tokens

        return self._decode(self._run(tokens, self.backbone.positions(*size), between), size)


class DeepVPT(Segmenter):
    """Deep visual prompt tuning of a joint sequence: each layer gets learned tokens beside those of all modalities.

    VPT knows one image; here the frozen blocks attend to the tokens of all modalities at once, [prompts; RGB;
    auxiliary], and the head reads the RGB ones. Each layer has its own ``groups`` prompt tokens; what a layer made of
    its prompt tokens is dropped. A token that is invalid in its modality is the mask token.

    Parameters
    ----------
    backbone
        Frozen.
    config
        ``groups`` is the number of prompt tokens a layer; modalities, classes and head are used.

    Raises
    ------
    ValueError
        If the backbone has rotary positions: a joint sequence has no single grid for them.
    """

    def __init__(self, backbone: Backbone, config: GoptConfig) -> None:
        if getattr(backbone.vit, "rope", None) is not None:
            raise ValueError("deep VPT needs a backbone that adds positions at the embedding, not a rotary one")
        super().__init__(backbone, config)
        # Uniform as in the paper: Xavier's bound for a patch of three channels.
        bound = (6.0 / (3 * backbone.patch_size**2 + backbone.embed_dim)) ** 0.5
        shape = (backbone.depth, config.groups, backbone.embed_dim)
        self.prompt_tokens = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

    def forward(self, images: Images, valid: Images | None = None) -> Tensor:
        """Predict logits [B, classes, H, W]; see `Segmenter.forward`."""
        valid = valid if valid is not None else {}
        size, prefix = self._size(images, valid), self.backbone.num_prefix_tokens
        parts = [self._embed_primary(images, valid)]
        for name in self.config.auxiliary:
            if name in images:
                embedded, _ = self._embed(images[name], valid.get(name), self.mask_token)
                parts.append(embedded[:, prefix:])
        own = parts[0].shape[1]
        tokens = torch.cat(parts, dim=1)
        taps = []
        for layer in range(1, self.backbone.depth + 1):
            prompts = self.prompt_tokens[layer - 1].expand(tokens.shape[0], -1, -1)
            tokens = self.backbone.block(layer, torch.cat([prompts, tokens], dim=1))[:, prompts.shape[1] :]
            if layer in self.taps:
                taps.append(tokens[:, :own])
        return self._decode(taps, size)


def build_model(method: Method, backbone: Backbone, config: GoptConfig) -> Segmenter:
    """Build GoPT or one of the models it is compared with.

    Parameters
    ----------
    method
        ``gopt``; ``rgb_only`` and ``sar_only``: head alone on the frozen backbone, which reads the primary or the
        first auxiliary modality; ``early_fusion``: see `EarlyFusion`; ``vipt``: `ViPT`; ``vpt``: `DeepVPT`.
    backbone
        Frozen, and left as it is.
    config
        Of GoPT; the others take from it what they know.

    Raises
    ------
    ValueError
        If there is no such method, if ``sar_only`` is asked for and there is no auxiliary modality, or ``vpt`` on a
        rotary backbone.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; use {', '.join(METHODS)}")
    if method == "gopt":
        return GoPT(backbone, config)
    if method in ("rgb_only", "sar_only"):
        if method == "sar_only" and not config.auxiliary:
            raise ValueError("sar_only needs an auxiliary modality")
        primary = config.primary if method == "rgb_only" else config.auxiliary[0]
        model = GoPT(backbone, config.model_copy(update={"primary": primary, "auxiliary": ()}))
        model.ignores = frozenset(config.modalities)  # one loader feeds all methods
        return model
    return {"early_fusion": EarlyFusion, "vipt": ViPT, "vpt": DeepVPT}[method](backbone, config)
