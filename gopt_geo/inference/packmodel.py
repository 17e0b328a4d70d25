"""A pack's model as the tiler calls it: pixel values in the pack's units in, class probabilities out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gopt_geo.errors import GoptGeoError
from gopt_geo.inference.execution import Execution
from gopt_geo.inference.memory import ran_out_of_memory
from gopt_geo.models.cup import Grouping
from gopt_geo.models.gopt import GoPT
from gopt_geo.models.normalise import Normaliser
from gopt_geo.packs import PackMeta

__all__ = ["PackModel"]

_WARM_UP_RUNS = {"cpu": 1, "cuda": 3}  # a CUDA graph warms up, records and replays


class PackModel:
    """Normalises tiles as the pack says and predicts probabilities.

    Parameters
    ----------
    model
        In evaluation mode. In fp32 it moves to the device itself; in a reduced precision a copy does, whose frozen
        matrices are in it already and which shares the rest, so that a backbone in use elsewhere stays as it is.
    meta
        Of the model's pack; its statistics normalise every tile, whatever the tile holds, and its temperature divides
        the logits.
    tile_size
        Of the tiles that will come; checked against the patch size.
    execution
        Device, precision, compilation; a device alone means fp32 as it is.

    Attributes
    ----------
    network
        The model as it runs, compiled or not: logits [B, K, t, t] from normalised images and masks.
    warm_up_seconds
        That `warm_up` took so far.

    Raises
    ------
    GoptGeoError
        If the patch size doesn't divide the tile size.
    """

    def __init__(
        self, model: GoPT, meta: PackMeta, tile_size: int, execution: Execution | str | torch.device = "cpu"
    ) -> None:
        patch = model.backbone.patch_size
        if tile_size % patch:
            raise GoptGeoError(
                f"--tile-size {tile_size}",
                f"the backbone {meta.backbone.id} cuts images into patches of {patch} pixels",
                f"use a multiple of {patch}, such as {max(patch, tile_size // patch * patch)}",
            )
        if not isinstance(execution, Execution):
            execution = Execution(torch.device(execution))
        self.execution = execution
        self.device = execution.device
        dtype = execution.low_dtype
        self.model = model.to(self.device) if dtype is None else _lowered(model, self.device, dtype)
        self.network: Callable[..., Tensor] = self.model
        if execution.compiled:
            mode = "reduce-overhead" if self.device.type == "cuda" else None
            self.network = torch.compile(self.model, fullgraph=True, dynamic=False, mode=mode)
        self._bands = {name: len(info.bands) for name, info in meta.modalities.items()}
        self._normalise = Normaliser(meta.modalities).to(self.device)
        self._temperature = meta.temperature
        self.tile_size = tile_size
        self.warm_up_seconds = 0.0
        self._warm: set[tuple[tuple[str, ...], int, int]] = set()
        self.num_classes = len(meta.classes)
        self.modalities: tuple[str, ...] = tuple(meta.modalities)

    def __call__(
        self, values: dict[str, Tensor], valid: dict[str, Tensor], /, groupings: list[Grouping] | None = None
    ) -> Tensor:
        """Probabilities float32 [B, K, t, t] from values float32 [B, C, t, t] and validity bool [B, t, t].

        The prompters' groupings are appended to ``groupings``, if given; the model then runs uncompiled.
        """
        images = self._normalise(values)
        masks = {name: valid[name] for name in images}
        with self.execution.autocast():
            logits = self.network(images, masks) if groupings is None else self.model(images, masks, groupings)
        # Outside of what is compiled: the result is no memory of a CUDA graph, which the next tiles overwrite.
        logits = logits.float()
        if self._temperature != 1:
            logits = logits.div_(self._temperature)  # nobody else holds them
        return torch.softmax(logits, dim=1)

    def warm_up(self, modalities: Sequence[str], batch_size: int, edges: Sequence[int] | None = None) -> None:
        """Compile, record and load what the first batches would else have to; `warm_up_seconds` adds up what it took.

        An uncompiled model on a CPU has nothing to warm up, and isn't run; nor is one that is warm.

        Parameters
        ----------
        modalities
            Those that the scene has.
        batch_size
            Tiles of a batch.
        edges
            Of the tiles in pixels; else the tile size alone.

        Raises
        ------
        GoptGeoError
            If the model can't be compiled here.
        """
        if self.device.type == "cpu" and not self.execution.compiled:
            return
        begin = time.perf_counter()
        for edge in edges if edges is not None else (self.tile_size,):
            shape = (tuple(modalities), batch_size, edge)
            if shape not in self._warm:
                self._try_out(modalities, batch_size, edge)
                self._warm.add(shape)
        self.warm_up_seconds += time.perf_counter() - begin

    def _try_out(self, modalities: Sequence[str], batch_size: int, edge: int) -> None:
        try:
            for _ in range(_WARM_UP_RUNS[self.device.type]):
                self.run_empty(modalities, batch_size, edge)
        except Exception as error:  # the compiler's own are many, of modules that change
            if not self.execution.compiled or ran_out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0][:120]
            remedy = "leave it out; on a CPU it needs a C++ compiler (g++)"
            raise GoptGeoError("--compile", f"torch's compiler failed ({reason})", remedy) from error

    @property
    def band_count(self) -> int:
        """Bands of all modalities."""
        return sum(self._bands.values())

    def run_empty(self, modalities: Sequence[str], batch_size: int, edge: int, *, eager: bool = False) -> None:
        """Run one batch of zeros, valid everywhere, to its end; uncompiled if ``eager``."""
        shape = (edge, edge)
        used = [name for name in self.modalities if name in modalities]
        with torch.inference_mode():
            values = {n: torch.zeros((batch_size, self._bands[n], *shape), device=self.device) for n in used}
            valid = {n: torch.ones((batch_size, *shape), dtype=torch.bool, device=self.device) for n in used}
            self(values, valid, [] if eager else None)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

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


def _lowered(model: GoPT, device: torch.device, dtype: torch.dtype) -> GoPT:
    """Copy a model to a device with the matrices of its backbone in `dtype`; all else stays and is shared.

    Autocast would round the same matrices anew in every pass. What the prompters and the head hold is small, and is
    folded in float32 before it is rounded.
    """
    low = {
        id(parameter)
        for module in model.backbone.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
        for parameter in module.parameters(recurse=False)
    }
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        there = parameter.detach().to(device, dtype if id(parameter) in low else None)
        memo[id(parameter)] = nn.Parameter(there, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to(device)
    return copy.deepcopy(model, memo)
