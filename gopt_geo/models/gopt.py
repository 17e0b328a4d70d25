"""GoPT: a frozen RGB backbone, prompted by auxiliary modalities.

A reconstruction of He, "Prompting Multi-Modal Image Segmentation with Semantic Grouping" (AAAI 2024); step numbers
are those of ``docs/model.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopt_geo.models.backbone import Backbone
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.cup import Grouping
from gopt_geo.models.prompter import GroupingPrompter, expand_prompt
from gopt_geo.models.segmenter import Images, Segmenter
from gopt_geo.models.tokens import normalise_tokens

__all__ = ["GoPT"]


@dataclass
class _Stream:
    """What the prompters see of one auxiliary modality.

    Attributes
    ----------
    reduced
        Z of each prompted layer, [B, N, r].
    classes
        C_m, [B, K, D].
    valid
        bool [B, N]; None: everywhere.
    """

    reduced: dict[int, Tensor]
    classes: Tensor | None
    valid: Tensor | None


class GoPT(Segmenter):
    """A frozen backbone with grouping prompters and a head, which alone are trained.

    Without auxiliary modalities it is the frozen RGB model (or, with another ``primary``, that of SAR alone).

    Parameters
    ----------
    backbone
        Frozen; not part of `trainable_state`.
    config
        Shape and switches.

    Raises
    ------
    ValueError
        If a prompted layer lies outside of 1 to L - 1.
    """

    def __init__(self, backbone: Backbone, config: GoptConfig) -> None:
        super().__init__(backbone, config)
        self.prompters = nn.ModuleDict()
        self.class_tokens = nn.ParameterDict()
        layers = config.prompted_layers(backbone.depth)
        if not config.auxiliary:
            return
        for layer in layers:
            self.prompters[str(layer)] = GroupingPrompter(
                backbone.embed_dim,
                config.rank,
                cup_mode=config.cup,
                hard=config.assignment == "hard",
                acp_mode=config.acp_mode,
                token_value=config.token_value,
            )
        if config.cup == "grouping":
            for name in config.auxiliary:
                self.class_tokens[name] = nn.Parameter(0.02 * torch.randn(config.groups, backbone.embed_dim))

    def forward(self, images: Images, valid: Images | None = None, groupings: list[Grouping] | None = None) -> Tensor:
        """Predict logits [B, classes, H, W]; see `Segmenter.forward`.

        With ``groupings``, each prompter's grouping is appended, layer by layer and modality by modality.
        """
        valid = valid if valid is not None else {}
        size = self._size(images, valid)
        positions = self.backbone.positions(*size)
        streams = {n: self._read(n, images[n], valid.get(n), positions) for n in self.config.auxiliary if n in images}

        def between(layer: int, tokens: Tensor) -> Tensor:
            if str(layer) in self.prompters and streams:
                return self._prompt(layer, tokens, streams, groupings)
            return tokens

        return self._decode(self._run(self._embed_primary(images, valid), positions, between), size)

    def _read(self, name: str, image: Tensor, valid: Tensor | None, positions: Tensor | None) -> _Stream:
        """Embed an auxiliary modality (step 0) and reduce it for all prompted layers (steps 1 and 2).

        It depends on nothing of the RGB stream, so it is read in full before that starts: what its blocks need in
        passing is then free again before the RGB stream begins to store activations.
        """
        classes = self.class_tokens[name].expand(image.shape[0], -1, -1) if name in self.class_tokens else None
        with torch.no_grad():  # nothing in this stream is trained
            tokens, there = self._embed(image, valid)
        embed_only = self.config.aux_stream == "embed_only"
        reduced = self._reduce_embedding(tokens) if embed_only else self._reduce_stream(tokens, positions)
        return _Stream(reduced, classes, there)

    def _reduce_embedding(self, tokens: Tensor) -> dict[int, Tensor]:
        """Z of all prompted layers from the embedding, in one product."""
        layers = {int(layer): self._prompter(int(layer)).reduction() for layer in self.prompters}
        if not layers:
            return {}
        weight, bias = (torch.cat(parts) for parts in zip(*layers.values(), strict=True))
        normalised = normalise_tokens(tokens[:, self.backbone.num_prefix_tokens :])
        return dict(zip(layers, F.linear(normalised, weight, bias).split(self.config.rank, dim=-1), strict=True))

    def _reduce_stream(self, tokens: Tensor, positions: Tensor | None) -> dict[int, Tensor]:
        """Z of each prompted layer from that layer's output, up to the last one that is prompted.

        What the backward pass needs of all layers is kept in one block: a dozen small ones among what the frozen
        blocks allocate and free would leave holes.
        """
        layers = sorted(int(layer) for layer in self.prompters)
        if not layers:
            return {}
        prefix = self.backbone.num_prefix_tokens
        batch, count, width = tokens[:, prefix:].shape
        seen = tokens.new_empty(len(layers), batch * count, width)
        with torch.no_grad():
            for layer in range(1, layers[-1] + 1):
                tokens = self.backbone.block(layer, tokens, positions)
                if layer in layers:
                    seen[layers.index(layer)] = normalise_tokens(tokens[:, prefix:]).flatten(0, 1)
        reductions = [self._prompter(layer).reduction() for layer in layers]
        weight, bias = (torch.stack(parts) for parts in zip(*reductions, strict=True))
        reduced = torch.baddbmm(bias[:, None], seen, weight.mT).unflatten(1, (batch, count))
        return dict(zip(layers, reduced.unbind(), strict=True))

    def _prompt(
        self, layer: int, tokens: Tensor, streams: dict[str, _Stream], groupings: list[Grouping] | None
    ) -> Tensor:
        """Inject the prompts of all modalities (steps 2 to 11); CLS and registers stay as they are."""
        prefix = self.backbone.num_prefix_tokens
        prompter = self._prompter(layer)
        rgb = prompter.reduce(normalise_tokens(tokens[:, prefix:])) if prompter.needs_rgb else None
        total: Tensor | None = None
        for name, stream in streams.items():
            prompt, stream.classes, grouping = prompter(rgb, stream.reduced[layer], stream.classes, stream.valid)
            total = prompt if total is None else total + prompt
            if groupings is not None and grouping is not None:
                groupings.append(replace(grouping, layer=layer, modality=name))
        assert total is not None
        counts = self._counts(streams, total, prefix)
        prompt = expand_prompt(prompter, F.pad(total, (0, 0, prefix, 0)), counts, len(streams))
        return tokens + prompt if self.config.inject == "add" else tokens * (1.0 + prompt)

    @staticmethod
    def _counts(streams: dict[str, _Stream], total: Tensor, prefix: int) -> Tensor | None:
        """In how many modalities a token is valid, [B, P + N, 1], 0 for prefix tokens; None: in all, no prefix."""
        if prefix == 0 and all(stream.valid is None for stream in streams.values()):
            return None
        counts = torch.zeros_like(total[..., :1])
        for stream in streams.values():
            counts = counts + (1.0 if stream.valid is None else stream.valid.unsqueeze(-1).to(counts.dtype))
        return F.pad(counts, (0, 0, prefix, 0))

    def _prompter(self, layer: int) -> GroupingPrompter:
        module = self.prompters[str(layer)]
        assert isinstance(module, GroupingPrompter)
        return module
