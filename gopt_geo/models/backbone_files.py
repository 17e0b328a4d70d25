"""Files of backbones' weights: where they lie, how they are read, and whether they fit.

Nothing here unpickles code: files are safetensors, or PyTorch files of plain tensors.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import timm
import torch
from torch import Tensor

from gopt_geo.errors import PackError
from gopt_geo.paths import StrPath

__all__ = ["ENDINGS", "at_hand", "fetch_remedy", "fit_state", "read_state", "weights_folder"]

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
_BEHIND = re.compile(r"(head|head_dist|lm_head|attn_pool|fc_norm|projectors|decoder\w*|mask_token)(\.|$)")
"""What pre-training or a classifier puts behind the blocks: a file may hold it, and it is left out."""


def weights_folder() -> Path:
    """Folder that is searched for weights: ``GOPT_GEO_BACKBONES``, else ``gopt-geo/backbones`` in the user's cache.

    Raises
    ------
    PackError
        If ``GOPT_GEO_BACKBONES`` names a file.
    """
    named = os.environ.get("GOPT_GEO_BACKBONES")
    if named:
        folder = Path(named).expanduser()
        if folder.exists() and not folder.is_dir():
            remedy = "name the folder that holds the files, or one of them with --backbone-weights"
            raise PackError("GOPT_GEO_BACKBONES", f"{folder} is a file, not a folder", remedy)
        return folder
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "gopt-geo" / "backbones"


def _place(identity: str, ending: str) -> Path:
    """Where the file of a backbone's weights is looked for. Only for ids that are known: they hold no path."""
    return weights_folder() / (identity.replace(":", "--") + ending)


def at_hand(identity: str) -> Path | None:
    """File with a backbone's weights in `weights_folder`, if there is one. Only for ids that are known, as `_place`."""
    return next((path for path in (_place(identity, ending) for ending in ENDINGS) if path.is_file()), None)


def fetch_remedy(identity: str, file: str, origin: str) -> str:
    """Remedy for weights that aren't there: what to fetch, and where to put it."""
    ending = PurePosixPath(file).suffix
    place = _place(identity, ending if ending in ENDINGS else ENDINGS[0])
    return f"fetch {file} of {origin} and put it at {place}, or name it with --backbone-weights"


def read_state(path: StrPath) -> dict[str, Any]:
    """Read a file of weights with timm's reader, which unwraps checkpoints; nothing in it is executed.

    Raises
    ------
    PackError
        If there is no such file, or it holds anything but tensors and plain values.
    """
    path = Path(path)
    if path.is_dir():
        raise PackError(path, "it is a folder", "name the file of the backbone's weights in it")
    if path.suffix not in ENDINGS:
        raise PackError(path, "its ending isn't one of weights", f"name a file that ends in {', '.join(ENDINGS)}")
    if not path.is_file():
        found = "it is a device or a pipe, not a file" if path.exists() else "there is no such file"
        raise PackError(path, found, "check the path of the backbone's weights")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of a file that is refused a moment later
            state = timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
        named = isinstance(state, Mapping) and any(isinstance(value, (Tensor, Mapping)) for value in state.values())
    except Exception as error:  # a foreign file can make the readers raise anything, and say anything
        whole = path.suffix == ".safetensors"
        why = "it isn't a whole safetensors file" if whole else "it is damaged, or holds more than tensors by name"
        raise _unreadable(path, why) from error
    if not named:
        raise _unreadable(path, "there are no tensors by name in it")
    return dict(state)


def _unreadable(path: Path, why: str) -> PackError:
    remedy = "give a safetensors file, or a PyTorch file of plain tensors; no other pickle is opened"
    return PackError(path, f"can't be read as weights ({why})", remedy)


def fit_state(
    vit: Any,
    state: dict[str, Any],
    subject: StrPath,
    remedy: str,
    *,
    convert: Callable[[dict[str, Any], Any], dict[str, Any]] | None = None,
    optional: Collection[str] = (),
) -> None:
    """Load weights into a transformer, all of them and no others.

    Parameters
    ----------
    vit
        A vision transformer; changed in place.
    state
        Name to tensor.
    subject, remedy
        For the message if they don't fit.
    convert
        The library's own conversion of other projects' names.
    optional
        Names that may be missing.

    Raises
    ------
    PackError
        If tensors lack, are foreign (classifiers, decoders and the like aside), or have other shapes.
    """
    own = vit.state_dict()
    try:
        misfits = _resized(vit, state) or _not_plain(state)
        if convert is not None and not misfits:
            with contextlib.redirect_stdout(io.StringIO()):  # timm prints what it skips
                state = convert(state, vit)
    except Exception as error:  # as above: the conversion takes a lot for granted
        raise PackError(subject, "not this backbone's weights (their names or shapes are another's)", remedy) from error
    if not misfits:
        lacking = [name for name in own if name not in state and name not in optional]
        foreign = [name for name in state if name not in own and not _BEHIND.match(name)]
        odd = [name for name in own if name in state and not _alike(state[name], own[name])]
        for names, what in ((lacking, "lack"), (foreign, "are foreign"), (odd, "have another shape or type")):
            if names:
                misfits.append(f"{len(names)} tensors {what}: {', '.join(names[:2])}{', ...' if names[2:] else ''}")
    if misfits:
        raise PackError(subject, f"not this backbone's weights ({'. '.join(misfits)})", remedy)
    vit.load_state_dict({name: tensor for name, tensor in state.items() if name in own}, strict=False)


def _alike(tensor: Any, own: Tensor) -> bool:
    return isinstance(tensor, Tensor) and tensor.shape == own.shape and tensor.is_floating_point()


def _not_plain(state: Mapping[str, Any]) -> list[str]:
    """Name tensors that aren't stored number by number: sparse, quantised or without content."""
    odd = [
        name
        for name, value in state.items()
        if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_quantized or value.is_meta)
    ]
    return [f"{len(odd)} tensors are sparse, quantised or without content: {', '.join(odd[:2])}"] if odd else []


def _resized(vit: Any, state: Mapping[str, Any]) -> list[str]:
    """Name what timm's conversion would resample to the model's size: such weights are another model's."""
    found = []
    kernel, own = state.get("patch_embed.proj.weight"), vit.patch_embed.proj.weight
    if isinstance(kernel, Tensor) and kernel.ndim == 4 and kernel.shape != own.shape:
        found.append(f"patch_embed.proj.weight is {tuple(kernel.shape)}, not {tuple(own.shape)}")
    places, own_places = state.get("pos_embed"), vit.pos_embed
    if isinstance(places, Tensor) and own_places is not None:
        # DINOv2 with registers has a position for the class token, which timm adds to the token itself
        counts = {own_places.shape[1], vit.patch_embed.num_patches + 1}
        if places.shape[-2] not in counts:
            found.append(f"pos_embed is {tuple(places.shape)}, not {tuple(own_places.shape)}")
    return found
