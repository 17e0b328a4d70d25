"""Weights of backbones: files, the folder of files, names of timm and torchgeo, and what is said when they lack."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.eva import checkpoint_filter_fn as convert_eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as convert_vit

from gopt_geo.errors import PackError
from gopt_geo.models import DEMO_BACKBONE, Backbone, load_backbone
from gopt_geo.models.backbone import demo_backbone_path, state_digest
from gopt_geo.models.backbone_files import fit_state, read_state, weights_folder

NAME = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
IDENTITY = f"timm:{NAME}"
TORCHGEO = "torchgeo:ViTSmall16_Weights.SENTINEL2_ALL_DINO"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "dynamic_img_size": True}


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """As on a machine without network and with empty caches, and without waiting for either."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("GOPT_GEO_BACKBONES", str(tmp_path / "backbones"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "backbones").mkdir()


@pytest.fixture(scope="module")
def vit() -> torch.nn.Module:
    """A ViT-Ti with its classifier, as timm would publish it, but untrained. Don't change it."""
    torch.manual_seed(2)
    return timm.create_model(NAME)


@pytest.fixture(scope="module")
def state(vit) -> dict[str, torch.Tensor]:
    return vit.state_dict()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(state, path)
    return path


def digest_without_head(state):
    return state_digest({name: tensor for name, tensor in state.items() if not name.startswith("head.")})


def message_of(identity: str, weights: Path | None = None) -> str:
    with pytest.raises(PackError) as caught:
        load_backbone(identity, weights)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    assert "://" not in message
    assert len(message) < 600
    return message


# -- timm -------------------------------------------------------------------------------------------------------------


def test_a_local_file_is_loaded_without_its_classifier(file, state):
    split = load_backbone(IDENTITY, file)
    assert split.identity == IDENTITY
    assert split.digest() == digest_without_head(state)
    assert (split.embed_dim, split.depth, split.patch_size, split.in_chans, split.num_prefix_tokens) == (
        192,
        12,
        16,
        3,
        1,
    )
    assert not any(p.requires_grad for p in split.parameters())
    assert split.expects.bands == ("red", "green", "blue")
    assert split.expects.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin"])
def test_pytorch_files_are_loaded_and_checkpoints_unwrapped(state, tmp_path, ending):
    path = tmp_path / f"checkpoint{ending}"
    decoder = {"decoder_embed.weight": torch.zeros(2, 2), "mask_token": torch.zeros(1, 1, 192)}
    torch.save({"model": {**state, **decoder}, "epoch": 3}, path)
    assert load_backbone(IDENTITY, path).digest() == digest_without_head(state)


def test_half_precision_is_brought_to_float32(state, tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({name: tensor.half() for name, tensor in state.items()}, path)
    split = load_backbone(IDENTITY, path)
    assert {tensor.dtype for tensor in split.vit.state_dict().values()} == {torch.float32}
    assert split.digest() == digest_without_head({name: tensor.half().float() for name, tensor in state.items()})


def test_files_in_the_folder_are_found_by_the_name_of_the_backbone(file, state, tmp_path, monkeypatch):
    (tmp_path / "backbones" / f"timm--{NAME}.safetensors").symlink_to(file)
    assert load_backbone(IDENTITY).digest() == digest_without_head(state)
    monkeypatch.setenv("GOPT_GEO_BACKBONES", str(tmp_path / "elsewhere"))
    assert "no network" in message_of(IDENTITY)


def test_the_folder_is_in_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("GOPT_GEO_BACKBONES")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "gopt-geo" / "backbones"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights_folder() == Path.home() / ".cache" / "gopt-geo" / "backbones"


def test_without_network_and_file_the_message_says_what_to_fetch_and_where_to_put_it(tmp_path):
    started = time.monotonic()
    message = message_of("timm:vit_base_patch16_224.mae")
    assert time.monotonic() - started < 5
    place = tmp_path / "backbones" / "timm--vit_base_patch16_224.mae.safetensors"
    assert "fetch model.safetensors of the model timm/vit_base_patch16_224.mae" in message
    assert f"put it at {place}" in message
    assert "--backbone-weights" in message


def cached_in_hub(folder: Path, hub: str, file: Path) -> None:
    """Lay a file into the hub's cache as its library does."""
    repository = folder / f"models--{hub.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / "model.safetensors").symlink_to(file)


def test_what_the_library_has_in_its_cache_needs_no_network(file, state, tmp_path):
    cached_in_hub(tmp_path / "hub", f"timm/{NAME}", file)
    assert load_backbone(IDENTITY).digest() == digest_without_head(state)


def test_a_damaged_file_in_the_cache_is_told_in_one_line(tmp_path):
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"no weights")
    cached_in_hub(tmp_path / "hub", f"timm/{NAME}", damaged)
    assert "can't be loaded (SafetensorError)" in message_of(IDENTITY)


def test_with_a_network_timm_downloads(monkeypatch, state):
    asked = []

    def create(name, **options):
        asked.append(options)
        model = usual(name, **{k: v for k, v in options.items() if k not in ("pretrained", "pretrained_cfg_overlay")})
        if options.get("pretrained"):
            model.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
        return model

    usual = timm.create_model
    monkeypatch.setattr("gopt_geo.models.backbone_sources._reachable", lambda url: True)
    monkeypatch.setattr(timm, "create_model", create)
    assert load_backbone(IDENTITY).digest() == digest_without_head(state)
    assert asked[-1] == {
        "pretrained": True,
        "num_classes": 0,
        "dynamic_img_size": True,
        "pretrained_cfg_overlay": None,
    }


def test_names_that_are_nearly_right_bring_the_right_ones_to_mind():
    assert "did you mean vit_base_patch16_224.mae" in message_of("timm:vit_base_patch16_224.maee")
    assert "SENTINEL2_ALL_DINO" in message_of("torchgeo:ViTSmall16_Weights.SENTINEL2_ALL_DIN")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("no_such_model_at_all", "no such model"),
        ("../../etc/passwd", "no such model"),
        ("hf-hub:timm/vit_base_patch16_224.mae", "no such model"),
        ("resnet10t", "any size"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("vit_tiny_r_s16_p8_224.augreg_in21k", "HybridEmbed"),
        ("vit_small_patch16_rope_mixed_224.naver_in1k", "from layer to layer"),
        ("vit_small_patch16_36x1_224", "no weights for it"),
    ],
)
def test_names_of_timm_that_cannot_be_used(name, found):
    assert found in message_of(f"timm:{name}")


# -- files that don't fit ---------------------------------------------------------------------------------------------


def changed(state, **changes):
    result = dict(state)
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        if tensor is None:
            del result[name]
        else:
            result[name] = tensor
    return result


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"blocks__11__mlp__fc2__bias": None, "cls_token": None}, r"2 tensors lack: cls_token, blocks\.11\.mlp\.fc2"),
        ({"blocks__12__norm1__bias": torch.zeros(192)}, r"1 tensors are foreign: blocks\.12\.norm1\.bias"),
        ({"norm__bias": torch.zeros(3)}, r"1 tensors have another shape or type: norm\.bias"),
        ({"norm__bias": torch.zeros(192, dtype=torch.int8)}, r"another shape or type: norm\.bias"),
        ({"pos_embed": torch.zeros(1, 577, 192)}, r"pos_embed is \(1, 577, 192\), not \(1, 197, 192\)"),
        ({"patch_embed__proj__weight": torch.zeros(192, 3, 14, 14)}, r"proj\.weight is \(192, 3, 14, 14\), not"),
        ({"patch_embed__proj__weight": torch.zeros(192, 13, 16, 16)}, r"proj\.weight is \(192, 13, 16, 16\), not"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(state, tmp_path, changes, found):
    path = tmp_path / "odd.safetensors"
    save_file(changed(state, **changes), path)
    message = message_of(IDENTITY, path)
    assert message.startswith(f"{path}: not this backbone's weights (")
    assert re.search(found, message)
    assert message.endswith(f"name the file with the weights of {IDENTITY}")


def test_weights_of_another_model_are_refused(file):
    assert "not this backbone's weights" in message_of("timm:vit_small_patch16_dinov3.lvd1689m", file)
    assert "not this backbone's weights" in message_of(TORCHGEO, file)


class Bomb:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("identity", [IDENTITY, TORCHGEO, DEMO_BACKBONE])
def test_code_in_a_file_is_never_run(tmp_path, identity, ending, old):
    path, mark = tmp_path / f"bomb{ending}", tmp_path / "ran"
    if old:
        path.write_bytes(pickle.dumps({"cls_token": Bomb(mark)}))
    else:
        torch.save({"cls_token": torch.zeros(1, 1, 192), "more": Bomb(mark)}, path)
    message = message_of(identity, path)
    assert message.startswith(f"{path}: can't be read as weights (")
    assert not mark.exists()
    with path.open("rb") as stream:  # and it would have gone off
        torch.load(stream, weights_only=False) if not old else pickle.load(stream)
    assert mark.exists()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("missing.safetensors", None, "there is no such file"),
        ("weights.npz", b"", "its ending isn't one of weights"),
        ("text.safetensors", b"hello", "can't be read as weights"),
        ("text.pth", b"hello", "can't be read as weights"),
        ("empty.pth", b"", "can't be read as weights"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, found):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert found in message_of(IDENTITY, path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2)])
def test_a_pytorch_file_without_tensors_by_name_is_no_weights(tmp_path, content):
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    assert "can't be read as weights" in message_of(IDENTITY, path)


@pytest.mark.parametrize("identity", [IDENTITY, DEMO_BACKBONE])
def test_sparse_tensors_are_no_weights(state, tmp_path, identity):
    path = tmp_path / "sparse.pth"
    usual = state if identity == IDENTITY else read_state(demo_backbone_path())
    name = "blocks.0.mlp.fc1.weight"
    torch.save({**usual, name: usual[name].to_sparse()}, path)
    message = message_of(identity, path)
    assert f"1 tensors are sparse, quantised or without content: {name}" in message


@pytest.mark.parametrize("content", [pickle.dumps({"a": os.system}), b"hello", pickle.dumps([1]), b"PK\x03\x04"])
@pytest.mark.parametrize("ending", [".pth", ".bin"])
def test_a_file_that_is_refused_says_so_in_one_sentence_of_ours(tmp_path, content, ending, recwarn):
    path = tmp_path / f"raw{ending}"
    path.write_bytes(content)
    message = message_of(IDENTITY, path)
    assert message.startswith(f"{path}: can't be read as weights (it is damaged, or holds more than tensors by name); ")
    assert "trust" not in message
    assert not recwarn.list


def test_a_folder_is_no_file_of_weights(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    assert message_of(IDENTITY, tmp_path / "w.safetensors").startswith(f"{tmp_path}/w.safetensors: it is a folder; ")
    assert "it is a folder" in message_of(DEMO_BACKBONE, str(tmp_path))
    os.mkfifo(tmp_path / "pipe.pth")
    assert "a device or a pipe" in message_of(IDENTITY, tmp_path / "pipe.pth")


@pytest.mark.parametrize("identity", [IDENTITY, TORCHGEO])
def test_a_file_in_place_of_the_folder_of_weights_is_told(file, monkeypatch, identity):
    monkeypatch.setenv("GOPT_GEO_BACKBONES", str(file))
    assert message_of(identity).startswith(f"GOPT_GEO_BACKBONES: {file} is a file, not a folder; ")


def test_the_path_of_the_weights_may_be_a_text(file, state):
    assert load_backbone(IDENTITY, str(file)).digest() == digest_without_head(state)


def test_files_as_their_authors_published_them_are_brought_to_timms_names():
    torch.manual_seed(3)
    wanted = VisionTransformer(**SMALL, num_classes=0, reg_tokens=4, no_embed_class=True, init_values=1.0)
    own = wanted.state_dict()
    cls_place = torch.randn(1, 1, 32)
    dinov2 = {k: v for k, v in own.items() if k not in ("reg_token", "cls_token", "pos_embed")}
    dinov2 |= {"register_tokens": own["reg_token"], "cls_token": own["cls_token"] - cls_place}
    dinov2 |= {"pos_embed": torch.cat([cls_place, own["pos_embed"]], dim=1), "mask_token": torch.zeros(1, 32)}
    loaded = VisionTransformer(**SMALL, num_classes=0, reg_tokens=4, no_embed_class=True, init_values=1.0)
    fit_state(loaded, dinov2, "file", "remedy", convert=convert_vit)
    torch.testing.assert_close(dict(loaded.state_dict()), dict(own), rtol=0, atol=1e-6)


def test_a_dinov3_file_as_published_is_loaded_silently(capsys):
    rotary = {"use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_type": "dinov3", "rope_rotate_half": True}
    rotary |= {"num_reg_tokens": 4, "qkv_bias": False, "init_values": 1.0, "num_classes": 0, "use_fc_norm": False}
    torch.manual_seed(4)
    wanted, loaded = Eva(**SMALL, **rotary), Eva(**SMALL, **rotary)
    dinov3 = {k.replace("gamma_", "ls") + ".gamma" * ("gamma" in k): v for k, v in wanted.state_dict().items()}
    dinov3["storage_tokens"] = dinov3.pop("reg_token")
    dinov3 |= {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.zeros(4)}
    dinov3 |= {f"blocks.{i}.attn.qkv.bias": torch.zeros(96) for i in range(2)}
    fit_state(loaded, dinov3, "file", "remedy", convert=convert_eva)
    assert state_digest(loaded.state_dict()) == state_digest(wanted.state_dict())
    assert capsys.readouterr().out == ""


@torch.no_grad()
def test_dinov3_is_loaded_from_a_file(tmp_path):
    identity = "timm:vit_small_patch16_dinov3.lvd1689m"
    vit = timm.create_model(identity.removeprefix("timm:"), num_classes=0).eval()
    path = tmp_path / "dinov3.safetensors"
    save_file(vit.state_dict(), path)
    split = load_backbone(identity, path)
    assert (split.num_prefix_tokens, split.in_chans) == (5, 3)
    images = torch.randn(1, 3, 32, 48)
    tokens, positions = split.embed(images), split.positions(32, 48)
    for layer in range(1, split.depth + 1):
        tokens = split.block(layer, tokens, positions)
    assert torch.equal(split.vit.norm(tokens), split.vit.forward_features(images))


# -- torchgeo ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory) -> Path:
    """Weights as torchgeo publishes them: a state dict without the final norm, for 13 channels. Untrained."""
    torch.manual_seed(5)
    vit = timm.create_model("vit_small_patch16_224", in_chans=13, num_classes=0)
    path = tmp_path_factory.mktemp("torchgeo") / "vit.pth"
    torch.save({name: tensor for name, tensor in vit.state_dict().items() if not name.startswith("norm.")}, path)
    return path


@torch.no_grad()
def test_torchgeos_weights_for_sentinel_2_are_loaded_from_a_file(sentinel):
    split = load_backbone(TORCHGEO, sentinel)
    assert isinstance(split, Backbone)
    assert (split.in_chans, split.embed_dim, split.patch_size) == (13, 384, 16)
    assert split.embed(torch.randn(1, 13, 32, 48)).shape == (1, 1 + 6, 384)
    assert len(split.expects.bands) == 13
    assert split.expects.bands[:4] == ("B1", "B2", "B3", "B4")
    assert split.expects.mean == (0.0,) * 13
    assert split.expects.std == (10000.0,) * 13
    state = read_state(sentinel)
    assert all(torch.equal(tensor, state[name]) for name, tensor in split.vit.state_dict().items() if name in state)


def test_torchgeos_own_cache_needs_no_network(sentinel, tmp_path):
    identity = "torchgeo:ViTSmall16_Weights.SENTINEL2_ALL_MAE"
    message = message_of(identity)
    assert "fetch B13_vits16_mae_ep99_enc.pth of torchgeo's ViTSmall16_Weights.SENTINEL2_ALL_MAE" in message
    assert f"{tmp_path / 'backbones' / 'torchgeo--ViTSmall16_Weights.SENTINEL2_ALL_MAE.pth'}" in message
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "B13_vits16_mae_ep99_enc.pth").symlink_to(sentinel)
    assert load_backbone(identity).digest() == load_backbone(identity, sentinel).digest()


def test_code_in_torchgeos_cache_is_not_run_either(tmp_path):
    cache, mark = tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "ran"
    cache.mkdir(parents=True)
    torch.save({"cls_token": Bomb(mark)}, cache / "B13_vits16_mae_ep99_enc.pth")
    assert "can't be loaded (UnpicklingError)" in message_of("torchgeo:ViTSmall16_Weights.SENTINEL2_ALL_MAE")
    assert not mark.exists()


def test_torchgeos_file_in_the_folder_is_found(sentinel, tmp_path):
    (tmp_path / "backbones" / f"{TORCHGEO.replace(':', '--')}.pth").symlink_to(sentinel)
    assert load_backbone(TORCHGEO).digest() == load_backbone(TORCHGEO, sentinel).digest()


def test_a_torchgeo_file_that_does_not_fit_is_refused(sentinel):
    found = message_of("torchgeo:ViTSmall16_Weights.SENTINEL1_GRD_MAE", sentinel)
    assert "(384, 13, 16, 16), not (384, 2, 16, 16)" in found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ResNet50_Weights.SENTINEL2_ALL_MOCO", "weights of resnet50, no plain vision transformer"),
        ("Swin_V2_B_Weights.SENTINEL2_SI_RGB_SATLAS", "no plain vision transformer"),
        ("nothing", "no such weights"),
    ],
)
def test_weights_of_torchgeo_that_cannot_be_used(name, found):
    assert found in message_of(f"torchgeo:{name}")


@pytest.mark.brief
def test_every_vision_transformer_of_torchgeo_is_known_with_its_bands():
    from torchgeo.models import get_model_weights, list_models

    from gopt_geo.models.backbone_sources import _trained_on

    entries = [w for model in list_models() if model.startswith("vit_") for w in get_model_weights(model)]
    assert len(entries) >= 30
    for entry in entries:
        expects = _trained_on(entry)
        assert len(expects.bands) == entry.meta["in_chans"]
        assert len(expects.mean) == len(expects.std) in (0, entry.meta["in_chans"])
        assert "no network" in message_of(f"torchgeo:{entry}")


# -- the demo backbone, and imports -----------------------------------------------------------------------------------


def test_the_demo_backbone_can_be_given_as_a_file_too(tmp_path, file):
    path = tmp_path / "copy.safetensors"
    path.write_bytes(demo_backbone_path().read_bytes())
    assert load_backbone(DEMO_BACKBONE, path).digest() == load_backbone(DEMO_BACKBONE).digest()
    assert f"name the file with the weights of {DEMO_BACKBONE}" in message_of(DEMO_BACKBONE, file)


def test_torchgeo_is_imported_only_where_it_is_used():
    code = "import sys, gopt_geo.models; sys.exit('torchgeo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
