"""Frozen backbones: splitting a transformer, staying frozen, and digests."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from gopt_geo.errors import PackError
from gopt_geo.models import DEMO_BACKBONE, Backbone, backbone, load_backbone
from gopt_geo.models.backbone import build_vit, state_digest
from gopt_geo.packs import demo_pack_path, read_pack

ARCHITECTURE = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
DINOV3 = {"use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_type": "dinov3", "rope_temperature": 100.0}
DINOV3 |= {"rope_rotate_half": True, "num_reg_tokens": 4, "qkv_bias": False, "init_values": 0.3, "use_fc_norm": False}
KINDS = {
    "class token": {},
    "no class token": {"class_token": False},
    "registers": {"reg_tokens": 4, "no_embed_class": True},
    "positions of patches alone": {"no_embed_class": True},
    "norm before": {"pre_norm": True},
    "DINOv2": {"img_size": 56, "patch_size": 14, "init_values": 0.3, "reg_tokens": 4, "no_embed_class": True},
    "no positions": {"pos_embed": "none", "class_token": False},
    "13 channels": {"in_chans": 13},
    "DINOv3": {"eva": True, **DINOV3},
    "EVA-02": {"eva": True, "use_rot_pos_emb": True, "swiglu_mlp": True, "scale_mlp": True, "ref_feat_shape": (4, 4)},
    "EVA": {"eva": True, "qkv_fused": False},
}


def build(kind: str) -> VisionTransformer | Eva:
    torch.manual_seed(1)
    extra = dict(KINDS[kind])
    if extra.pop("eva", False):
        vit = Eva(**{**ARCHITECTURE, **extra}, num_classes=0, dynamic_img_size=True)
    else:
        vit = build_vit({**ARCHITECTURE, **extra})
    with torch.no_grad():
        for parameter in vit.parameters():  # a class token or bias that starts at zero would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vit.eval()


def run_through(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    positions = backbone.positions(*images.shape[2:])
    tokens = backbone.embed(images)
    for layer in range(1, backbone.depth + 1):
        tokens = backbone.block(layer, tokens, positions)
    return tokens


class Features(nn.Module):
    """The backbone with its first patches masked, for compilers."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mask", torch.linspace(-1, 1, backbone.embed_dim))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = (side // self.backbone.patch_size for side in images.shape[2:])
        invalid = (torch.arange(height * width) < 2).expand(len(images), -1)
        tokens = self.backbone.embed(images, invalid, self.mask)
        return self.backbone.block(1, tokens, self.backbone.positions(*images.shape[2:]))


@pytest.mark.brief
@pytest.mark.parametrize("patches", [(4, 4), (3, 5), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_embedding_and_blocks_in_a_row_are_the_transformer_itself(kind, patches):
    vit = build(kind)
    split = Backbone(vit, "test")
    images = torch.randn(2, split.in_chans, *(n * split.patch_size for n in patches))
    tokens = run_through(split, images)
    assert torch.equal(vit.norm(tokens), vit.forward_features(images))
    assert tokens.shape == (2, split.num_prefix_tokens + patches[0] * patches[1], 32)
    assert (split.positions(8, 8) is not None) == (kind in ("DINOv3", "EVA-02"))


@torch.no_grad()
def test_the_mask_token_replaces_the_embedding_but_keeps_the_place():
    split = Backbone(build("no class token"), "test")
    invalid = torch.zeros(1, 16, dtype=torch.bool)
    invalid[0, 3] = True
    images, mask = torch.randn(1, 3, 32, 32), torch.randn(32)
    plain, masked = split.embed(images), split.embed(images, invalid, mask)
    assert torch.equal(plain[~invalid], masked[~invalid])
    torch.testing.assert_close(masked[0, 3], mask + split.vit.pos_embed[0, 3])


@torch.no_grad()
def test_the_mask_token_of_a_rotary_backbone_stands_behind_the_registers():
    split = Backbone(build("DINOv3"), "test")
    invalid = torch.zeros(1, 15, dtype=torch.bool)
    invalid[0, 7] = True
    images, mask = torch.randn(1, 3, 24, 40), torch.randn(32)
    plain, masked = split.embed(images), split.embed(images, invalid, mask)
    assert torch.equal(masked[0, 5 + 7], mask)
    changed = (plain != masked).any(dim=-1)[0]
    assert changed.nonzero().flatten().tolist() == [5 + 7]


@pytest.mark.parametrize("kind", ["DINOv2", "DINOv3"])
@torch.no_grad()
def test_it_compiles_without_graph_breaks_and_exports(kind):
    model = Features(Backbone(build(kind), "test")).eval()
    images = torch.randn(2, 3, 3 * model.backbone.patch_size, 5 * model.backbone.patch_size)
    expected = model(images)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), expected)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), expected)


@pytest.mark.parametrize(
    ("vit", "reason"),
    [
        (lambda: nn.Identity(), "Identity"),
        (lambda: VisionTransformer(**ARCHITECTURE, num_classes=0), "one image size"),
        (lambda: build_vit({**ARCHITECTURE, "patch_size": (8, 4)}), "square"),
        (lambda: build_vit({**ARCHITECTURE, "dynamic_img_pad": True}), "pad"),
        (
            lambda: Eva(**ARCHITECTURE, use_rot_pos_emb=True, rope_type="mixed", dynamic_img_size=True),
            "from layer to layer",
        ),
    ],
)
def test_a_model_that_cannot_be_split_exactly_is_refused(vit, reason):
    with pytest.raises(ValueError, match=reason):
        Backbone(vit(), "test")


def test_it_stays_frozen_and_in_evaluation_mode():
    split = Backbone(build("class token").train(), "test")
    assert not any(p.requires_grad for p in split.parameters())
    assert split.requires_grad_(True) is split
    assert not any(p.requires_grad for p in split.parameters())
    assert not any(module.training for module in split.train().modules())
    assert not any(module.training for module in nn.Sequential(split).train()[0].modules())


def test_a_copy_of_its_transformer_can_learn_and_leaves_it_as_it_was():
    split = Backbone(build("DINOv3"), "test")
    digest = split.digest()
    vit = copy.deepcopy(split.vit).requires_grad_(True).train()
    optimizer = torch.optim.SGD(vit.parameters(), lr=1.0)
    vit.forward_features(torch.randn(1, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert split.digest() == digest != state_digest(vit.state_dict())
    assert not split.vit.training


@pytest.mark.brief
def test_the_digest_sees_names_types_shapes_and_bytes_but_not_the_order():
    base = {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.float16)}
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].view(2, 3), "b": base["b"]},
        {"a": base["a"], "b": base["b"].view(torch.int16)},
        {
            "a": base["a"].clone().index_fill_(0, torch.tensor([5]), np.nextafter(np.float32(5), np.float32(6))),
            "b": base["b"],
        },
        {"a": base["a"]},
    ]
    digests = {state_digest(s) for s in (base, *others)}
    assert len(digests) == 6
    assert state_digest(dict(reversed(base.items()))) == state_digest(base)
    assert state_digest({"a": base["a"].expand(2, 6).T[:, 0], "b": base["b"]}) == state_digest(base)


@pytest.fixture
def count(monkeypatch):
    """Count how often a digest is reckoned."""
    calls = []

    def reckon(state):
        calls.append(1)
        return state_digest(state)

    monkeypatch.setattr(backbone, "state_digest", reckon)
    return calls


def test_the_digest_is_reckoned_once_while_nothing_changes(count):
    split = Backbone(build("class token"), "test")
    assert split.digest() == split.digest() == state_digest(split.vit.state_dict())
    with torch.no_grad():
        split.embed(torch.randn(1, 3, 32, 32))
    split.train()
    split.digest()
    assert len(count) == 1


def fill(vit):
    with torch.no_grad():
        vit.cls_token.add_(1.0)


def load(vit):
    vit.load_state_dict({name: tensor + 1.0 for name, tensor in vit.state_dict().items()})


def assign(vit):
    vit.load_state_dict({name: tensor + 1.0 for name, tensor in vit.state_dict().items()}, assign=True)


def replace_parameter(vit):
    vit.cls_token = nn.Parameter(vit.cls_token.detach() + 1.0)


def replace_data(vit):
    for _ in range(2):  # the second time, the allocator may give back the first one's address
        for parameter in vit.parameters():
            parameter.data = parameter.data * 1.5


def drop_a_block(vit):
    del vit.blocks[-1]


def there_and_back(vit):
    vit.half()
    vit.float()


@pytest.mark.parametrize("change", [fill, load, assign, replace_parameter, replace_data, drop_a_block, there_and_back])
def test_the_digest_is_never_stale(change):
    split = Backbone(build("class token"), "test")
    before = split.digest()
    change(split.vit)
    assert split.digest() == state_digest(split.vit.state_dict()) != before


def test_tensors_that_do_not_count_their_changes_are_hashed_every_time(count):
    with torch.inference_mode():
        split = Backbone(build("class token"), "test")
        before = split.digest()
        split.vit.cls_token.add_(1.0)
        assert split.digest() == state_digest(split.vit.state_dict()) != before
    assert len(count) == 2


def test_copies_and_pickles_have_digests_of_their_own():
    split = Backbone(build("DINOv3"), "test")
    digest = split.digest()
    for twin in (copy.deepcopy(split), pickle.loads(pickle.dumps(split))):
        assert twin.digest() == digest
        fill(twin.vit)
        assert twin.digest() != digest
    assert split.digest() == digest


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_digest_is_the_same_on_another_device():
    split = Backbone(build("DINOv3"), "test")
    digest = split.digest()
    assert split.cuda().digest() == digest


@pytest.mark.brief
def test_the_demo_backbone_is_the_one_that_its_packs_were_trained_on():
    split = load_backbone(DEMO_BACKBONE)
    assert split.digest() == read_pack(demo_pack_path()).meta.backbone.sha256
    assert split.in_chans == 3
    assert split.expects.bands == ("red", "green", "blue")


def test_unknown_ids_are_told_in_one_line():
    with pytest.raises(PackError, match=r"^nobody:knows: no such backbone; use .*timm:NAME or torchgeo:WEIGHTS$"):
        load_backbone("nobody:knows")
