"""Backbones by name: what timm and torchgeo know, from a file at hand or through these libraries' own downloads."""

from __future__ import annotations

import difflib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
import timm
import timm.models.eva
import timm.models.vision_transformer
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from gopt_geo.errors import PackError
from gopt_geo.models.backbone_files import at_hand, fetch_remedy, fit_state, read_state

__all__ = ["TrainedOn", "load_timm", "load_torchgeo", "why_not"]

_SUITABLE = "use a plain vision transformer: docs/backbones.md tells which"


@dataclass(frozen=True)
class TrainedOn:
    """What the weights were trained on, where the library says so.

    Attributes
    ----------
    bands
        Names of the input channels, in order; empty where unknown.
    mean, std
        A channel is brought to (x - mean) / std; empty where unknown. timm's are for values from 0 to 1, torchgeo's
        for the product's own numbers (Sentinel-2: reflectance times 10000; Sentinel-1: decibels).
    """

    bands: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def why_not(vit: nn.Module) -> str | None:
    """Say why a model can't be split exactly into embedding and blocks; None if it can."""
    base = VisionTransformer if isinstance(vit, VisionTransformer) else Eva
    if not isinstance(vit, base) or type(vit).forward_features is not base.forward_features:
        return f"a {type(vit).__name__}, no plain vision transformer"
    embedding = vit.patch_embed
    if type(embedding) is not PatchEmbed:
        return f"its images are embedded by a {type(embedding).__name__}, not patch by patch"
    if len(set(embedding.patch_size)) != 1:
        return "its patches aren't square"
    if not vit.dynamic_img_size or embedding.dynamic_img_pad:
        return "built for one image size, or to pad images; dynamic_img_size alone is wanted"
    if getattr(vit, "rope_mixed", False):
        return "its rotary positions differ from layer to layer"
    return None


def _close(name: str, names: Iterable[str]) -> str:
    """Remedy for a name that isn't known."""
    near = difflib.get_close_matches(name, list(names), n=3)
    return f"did you mean {', '.join(near)}? docs/backbones.md tells which there are" if near else _SUITABLE


def _reachable(url: str) -> bool:
    """Ask once whether a download could begin; the libraries themselves retry for most of a minute."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):
            return True
    except urllib.error.HTTPError:
        return True  # somebody answered; what is wrong will be said by the download
    except (OSError, ValueError):
        return False


def _in_torch_cache(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(url).name).is_file()


def load_timm(identity: str, weights: Path | None) -> tuple[Any, TrainedOn]:
    """Load a vision transformer of timm; see `gopt_geo.models.backbone.load_backbone`."""
    name = identity.removeprefix("timm:")
    if not timm.is_model(name) or ("." in name and not timm.is_model_pretrained(name)):
        raise PackError(identity, "timm has no such model", _close(name, timm.list_models(pretrained=True)))
    try:
        with torch.device("meta"):  # so that a model that can't be used isn't downloaded first
            shapes = timm.create_model(name, num_classes=0, dynamic_img_size=True)
        refusal = why_not(shapes)
    except TypeError as error:
        raise PackError(identity, "no plain vision transformer: it can't take images of any size", _SUITABLE) from error
    if refusal is not None:
        raise PackError(identity, refusal, _SUITABLE)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    path = weights if weights is not None else at_hand(identity)
    if path is not None:
        state = read_state(path)
        vit = _unfilled(shapes, name)
        fit_state(vit, state, path, f"name the file with the weights of {identity}", convert=_conversion(vit))
    elif config is not None and config.has_weights:
        vit = _download_timm(name, identity, config)
    else:
        raise PackError(
            identity, "timm knows the model, but no weights for it", _close(name, timm.list_models(pretrained=True))
        )
    if config is None:
        return vit, TrainedOn()
    bands = ("red", "green", "blue") if config.input_size[0] == 3 else ()
    return vit, TrainedOn(bands, tuple(config.mean), tuple(config.std))


def _unfilled(shapes: nn.Module, name: str) -> Any:
    """Return a model whose weights are still to come: drawing initial ones takes longer than reading them."""
    if next(shapes.buffers(), None) is not None:  # those are computed when a model is built, and in no file
        return timm.create_model(name, num_classes=0, dynamic_img_size=True)
    return shapes.to_empty(device="cpu")


def _conversion(vit: nn.Module) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    module = timm.models.eva if isinstance(vit, Eva) else timm.models.vision_transformer
    convert: Callable[[dict[str, Any], Any], dict[str, Any]] = module.checkpoint_filter_fn
    return convert


def _download_timm(name: str, identity: str, config: Any) -> Any:
    """Load pre-trained weights through timm: from the cache that it keeps, else from where it downloads."""
    overlay = None
    if config.hf_hub_id:
        hub, _, revision = config.hf_hub_id.partition("@")
        files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        found = [huggingface_hub.try_to_load_from_cache(hub, file, revision=revision or None) for file in files]
        cached = next((path for path in found if isinstance(path, str)), None)
        # The library asks the network before it looks into its cache, and is slow to give up; so name the file.
        overlay = {"file": cached} if cached else None
        there = cached is not None or _reachable(huggingface_hub.constants.ENDPOINT)
        remedy = fetch_remedy(identity, files[0], f"the model {hub}")
    else:
        there = _in_torch_cache(config.url) or _reachable(config.url)
        remedy = fetch_remedy(identity, PurePosixPath(config.url).name, f"timm's {name}")
    if not there:
        raise PackError(identity, "its weights aren't on this machine, and there is no network", remedy)
    try:
        return timm.create_model(
            name, pretrained=True, num_classes=0, dynamic_img_size=True, pretrained_cfg_overlay=overlay
        )
    except Exception as error:  # whatever goes wrong on the way to a foreign server, the remedy is the same
        raise PackError(identity, f"its weights can't be loaded ({type(error).__name__})", remedy) from error


def load_torchgeo(identity: str, weights: Path | None) -> tuple[Any, TrainedOn]:
    """Load a vision transformer of torchgeo; see `gopt_geo.models.backbone.load_backbone`."""
    from torchgeo.models import get_model, get_model_weights, get_weight, list_models  # takes seconds

    name = identity.removeprefix("torchgeo:")
    try:
        entry = get_weight(name)
    except ValueError as error:
        transformers = [model for model in list_models() if model.startswith("vit_")]
        known = [str(member) for model in transformers for member in get_model_weights(model)]
        raise PackError(identity, "torchgeo has no such weights", _close(name, known)) from error
    about = entry.meta
    model = str(about.get("model", ""))
    if not model.startswith("vit_"):
        raise PackError(identity, f"weights of {model or 'another model'}, no plain vision transformer", _SUITABLE)
    path = weights if weights is not None else at_hand(identity)
    state = read_state(path) if path is not None else _download_torchgeo(entry, identity)
    sizes = {key: about[key] for key in ("in_chans", "img_size") if key in about}
    vit = get_model(model, num_classes=0, dynamic_img_size=True, **sizes)
    refusal = why_not(vit)
    if refusal is not None:
        raise PackError(identity, refusal, _SUITABLE)
    # As torchgeo does it: the final norm may be missing. No step of the models here uses it.
    optional = {key for key in vit.state_dict() if key.startswith("norm.")}
    fit_state(vit, state, path or identity, f"name the file with the weights of {identity}", optional=optional)
    return vit, _trained_on(entry)


def _download_torchgeo(entry: Any, identity: str) -> dict[str, Any]:
    """Load pre-trained weights through torchgeo, which keeps a cache and downloads what it lacks."""
    file = PurePosixPath(entry.url).name
    remedy = fetch_remedy(identity, file, f"torchgeo's {identity.removeprefix('torchgeo:')}")
    if not _in_torch_cache(entry.url) and not _reachable(entry.url):
        raise PackError(identity, "its weights aren't on this machine, and there is no network", remedy)
    try:
        state = entry.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except Exception as error:  # as for timm
        raise PackError(identity, f"its weights can't be loaded ({type(error).__name__})", remedy) from error
    return dict(state)


def _trained_on(entry: Any) -> TrainedOn:
    """Bands and normalisation of torchgeo's weights: the one Normalize among their transforms."""
    channels = int(entry.meta["in_chans"])
    parts: Iterable[Any] = entry.transforms.modules() if isinstance(entry.transforms, nn.Module) else ()
    steps = [part for part in parts if type(part).__name__ == "Normalize" and isinstance(part.mean, (list, tuple))]
    bands = tuple(str(band) for band in entry.meta.get("bands", ()))
    if len(steps) != 1:
        return TrainedOn(bands)
    mean, std = (
        tuple(float(x) for x in (values if len(values) > 1 else list(values) * channels))
        for values in (steps[0].mean, steps[0].std)
    )
    return TrainedOn(bands, mean, std)
