"""Prompt packs: what is written comes back, and what was changed is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import stat
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load, save

from gopt_geo.errors import PackError
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.models import Backbone, GoPT, GoptConfig
from gopt_geo.models.backbone import build_vit
from gopt_geo.packs import (
    BackboneRef,
    ClassInfo,
    ModalityInfo,
    PackMeta,
    demo_pack_path,
    load_model,
    read_pack,
    write_pack,
)

ARCHITECTURE = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "class_token": False}


SAR = ModalityInfo(bands=("VV",), units="db", channels=((1,), (1,), (1,)), mean=(-11,) * 3, std=(4,) * 3)


def make_backbone(seed=0):
    torch.manual_seed(seed)
    return Backbone(build_vit(ARCHITECTURE), "test:tiny")


def make_meta(model, **changes):
    optical = ModalityInfo(
        bands=("red", "green", "blue"),
        units="reflectance",
        channels=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        mean=(0.1, 0.1, 0.1),
        std=(0.2, 0.2, 0.2),
    )
    classes = tuple(ClassInfo(value=v, name=n, color="#a0B1c2") for v, n in ((0, "öde"), (10, "water"), (254, "x")))
    fields = {
        "title": "test",
        "backbone": BackboneRef(id="test:tiny", sha256=model.backbone.digest()),
        "config": model.config,
        "classes": classes,
        "modalities": {"optical": optical, "sar": SAR},
        "resolution_m": 10.0,
        "tile_size": 16,
        "overlap": 4,
        "provenance": {
            "data": ["scene.tif"],
            "aoi": "POLYGON ((0 0, 1 0, 1 1, 0 0))",
            "seed": 3,
            "versions": {"torch": "2"},
            "scores": {"validation_miou": 0.5},
            "details": {"seeds": [1, 2], "note": "ärger", "none": None},
        },
    }
    return PackMeta(**{**fields, **changes})


@pytest.fixture(scope="module")
def model():
    backbone = make_backbone()
    torch.manual_seed(1)
    return GoPT(backbone, GoptConfig(classes=3, rank=4, hidden=8, groups=4)).eval()


@pytest.fixture(scope="module")
def packed(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "p.safetensors"
    write_pack(path, make_meta(model), model.trainable_state())
    return path


def header_of(content):
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


def rewritten(path, target, edit, *, checksum=True):
    """The pack with its document edited, under a checksum of its own."""
    content = path.read_bytes()
    metadata = header_of(content)["__metadata__"]
    document = json.loads(metadata["gopt_geo_pack"])
    text = edit(document)
    text = text if isinstance(text, str) else json.dumps(document)
    metadata = {"gopt_geo_pack": text}
    if checksum:
        metadata["meta_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    target.write_bytes(save(load(content), metadata=metadata))
    return target


def refusal(path):
    with pytest.raises(PackError) as caught:
        read_pack(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.brief
@torch.no_grad()
def test_saved_loaded_and_predicting_the_same(model, packed):
    pack = read_pack(packed)
    again = load_model(pack, make_backbone())
    images = {n: torch.randn(2, 3, 16, 24) for n in ("optical", "sar")}
    valid = {n: torch.rand(2, 16, 24) < 0.8 for n in images}
    assert torch.equal(again(images, valid), model(images, valid))
    assert not again.training
    expected = make_meta(model).model_copy(update={"tensors_sha256": pack.meta.tensors_sha256})
    assert pack.meta == expected
    assert pack.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert pack.path == packed


def test_a_pack_read_and_written_again_is_the_same_file(packed, tmp_path):
    pack = read_pack(packed)
    write_pack(tmp_path / "again", pack.meta, pack.state)
    assert (tmp_path / "again").read_bytes() == packed.read_bytes()


def test_half_precision_stays_half_in_the_file_and_becomes_single_in_the_model(model, tmp_path):
    state = {n: t.half() for n, t in model.trainable_state().items()}
    write_pack(tmp_path / "p", make_meta(model), state)
    pack = read_pack(tmp_path / "p")
    assert all(t.dtype == torch.float16 for t in pack.state.values())
    assert {p.dtype for p in load_model(pack, model.backbone).parameters()} == {torch.float32}


def test_packs_hold_the_trained_part_and_plain_json(packed):
    content = packed.read_bytes()
    header = header_of(content)
    metadata = header.pop("__metadata__")
    assert set(metadata) == {"gopt_geo_pack", "meta_sha256"}
    document = json.loads(metadata["gopt_geo_pack"])
    assert document["format_version"] == 3
    assert document["temperature"] == 1.0
    assert document["provenance"]["details"]["note"] == "ärger"
    assert document["provenance"]["scores"] == {"validation_miou": 0.5}
    assert document["backbone"]["id"] == "test:tiny"
    assert not [n for n in header if n.startswith("backbone")]


def test_the_file_is_laid_out_as_its_description_says(packed):
    """Read by docs/packs.md alone, without the libraries that wrote it."""
    content = packed.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert start % 8 == 0
    header = json.loads(content[8:start].decode("ascii"))
    metadata = header.pop("__metadata__")
    assert list(metadata) == ["gopt_geo_pack", "meta_sha256"]
    assert hashlib.sha256(metadata["gopt_geo_pack"].encode()).hexdigest() == metadata["meta_sha256"]
    sha, end = hashlib.sha256(), 0
    for name in sorted(header):
        begin, stop = header[name]["data_offsets"]
        shape = tuple(header[name]["shape"])
        assert header[name]["dtype"] == "F32"
        sha.update(f"{name}|torch.float32|{shape}|".encode() + content[start + begin : start + stop])
        end = max(end, stop)
    assert start + end == len(content)
    assert sha.hexdigest() == json.loads(metadata["gopt_geo_pack"])["tensors_sha256"]


def test_the_file_is_readable_by_all_and_nothing_else_is_left(model, tmp_path):
    path = tmp_path / "p.safetensors"
    write_pack(path, make_meta(model), model.trainable_state())
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.brief
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_a_changed_byte_anywhere_is_refused_or_means_the_same(packed, tmp_path_factory, data):
    content = bytearray(packed.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    spans = {"length": (0, 8), "header": (8, 8 + length), "tensors": (8 + length, len(content))}
    start, stop = spans[data.draw(st.sampled_from(sorted(spans)))]
    content[data.draw(st.integers(start, stop - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(content)
    original = read_pack(packed)
    try:
        changed = read_pack(path)
    except PackError:
        return
    assert changed.meta == original.meta
    assert changed.state.keys() == original.state.keys()
    assert all(torch.equal(changed.state[n], t) for n, t in original.state.items())
    assert start == 8, "a change in the tensors or the length went by"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncated_or_prolonged_file_is_refused(packed, tmp_path_factory, data):
    content = packed.read_bytes()
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refusal(path)
    path.write_bytes(content + data.draw(st.binary(min_size=1, max_size=20)))
    refusal(path)


@pytest.mark.brief
def test_a_changed_tensor_is_named_as_the_cause(packed, tmp_path):
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    (tmp_path / "p").write_bytes(content)
    assert "tensors don't match" in refusal(tmp_path / "p")


@pytest.mark.brief
def test_a_changed_description_is_named_as_the_cause(packed, tmp_path):
    content = packed.read_bytes()
    assert content.count(b"water") == 1
    (tmp_path / "p").write_bytes(content.replace(b"water", b"waser"))
    assert "description doesn't match" in refusal(tmp_path / "p")


def test_a_description_without_checksum_is_refused(packed, tmp_path):
    assert "checksum" in refusal(rewritten(packed, tmp_path / "p", lambda d: None, checksum=False))


def test_another_format_version_is_refused(packed, tmp_path):
    for version in (0, 4, -1, "2", None, True, "1", 2.0):
        message = refusal(rewritten(packed, tmp_path / "p", lambda d, v=version: d.update(format_version=v)))
        assert f"version {json.dumps(version)};" in message
        assert "versions 1 to 3" in message


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.update(surplus=1),
        lambda d: d.update(temperature=0),
        lambda d: d.update(temperature="1"),
        lambda d: d.update(temperature=float("inf")),
        lambda d: d.pop("classes"),
        lambda d: d["classes"].pop(),
        lambda d: d["classes"][0].update(value=255),
        lambda d: d["classes"][0].update(value=10),
        lambda d: d["classes"][0].update(color="red"),
        lambda d: d["modalities"]["sar"].update(std=[0, 1, 1]),
        lambda d: d["modalities"]["sar"].update(mean=[float("nan")] * 3),
        lambda d: d["modalities"]["sar"].update(channels=[[1], [1]]),
        lambda d: d["modalities"]["sar"].update(mean=[1, 1], std=[1, 1], channels=[[1], [1]]),
        lambda d: d["modalities"]["sar"].update(std=[1, 1]),
        lambda d: d["config"].update(cup="other"),
        lambda d: d["config"].update(layers=[1, 1]),
        lambda d: d["provenance"].update(surplus=1),
        lambda d: d["modalities"].pop("sar"),
        lambda d: d["config"].update(auxiliary=["sar", "optical"]),
        lambda d: d["config"].update(rank="many"),
        lambda d: d.update(resolution_m=float("inf")),
        lambda d: d["backbone"].update(sha256="0"),
        lambda d: "[1, 2]",
        lambda d: "null",
        lambda d: "{",
        lambda d: "[" * 100_000,
    ],
)
def test_a_description_that_makes_no_sense_is_refused_even_under_a_right_checksum(packed, tmp_path, edit):
    refusal(rewritten(packed, tmp_path / "p", edit))


@pytest.mark.brief
def test_another_backbone_is_refused(packed):
    with pytest.raises(PackError, match="SHA-256"):
        load_model(read_pack(packed), make_backbone(seed=5))


@pytest.mark.parametrize("change", ["rank", "drop", "foreign", "upscale", "builtin name"])
def test_tensors_that_do_not_fit_their_description_are_refused_and_the_backbone_untouched(model, tmp_path, change):
    state, config = dict(model.trainable_state()), model.config
    meta = make_meta(model)
    if change in ("rank", "upscale"):
        meta = make_meta(model, config=config.model_copy(update={change: 3}))
    elif change == "drop":
        del state["mask_token"]
    elif change == "foreign":
        state["backbone.vit.norm.weight"] = torch.zeros(16)
    else:  # a name that torch's containers keep for themselves
        infos = {"optical": meta.modalities["optical"], "keys": meta.modalities["sar"]}
        meta = make_meta(model, config=config.model_copy(update={"auxiliary": ("keys",)}), modalities=infos)
    write_pack(tmp_path / "p", meta, state)
    digest = model.backbone.digest()
    with pytest.raises(PackError, match="don't fit"):
        load_model(read_pack(tmp_path / "p"), model.backbone)
    assert model.backbone.digest() == digest


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d["config"].update(groups=0), "config.groups is 0, it must be at least 2;"),
        (lambda d: d["config"].update(groups=10**9), "config.groups is 1000000000, it must be at most 1024;"),
        (lambda d: d["config"].update(groups="8"), 'config.groups is "8", it must be a whole number;'),
        (lambda d: d["config"].update(rank=10**6), "config.rank is 1000000, it must be at most 1024;"),
        (lambda d: d["config"].update(upscale=10**6), "config.upscale is 1000000, it must be at most 64;"),
        (lambda d: d["config"].update(layers=[0]), "layers are counted from 1"),
        (lambda d: d["config"].update(layers="all"), 'config.layers is "all", it must be a list;'),
        (lambda d: d["config"].update(cup="other"), "config.cup is \"other\", it must be 'grouping', "),
        (lambda d: d["config"].update(auxiliary=["no word"]), "modality 'no word' is not a plain word"),
        (lambda d: d.update(config=3), "config is 3, it must be an object;"),
        (lambda d: d["modalities"]["sar"].update(units="foo"), 'modalities.sar.units is "foo", it must be \'refl'),
        (lambda d: d.update(overlap=9), "overlap is 9, it must be at most half of tile_size, 8;"),
        (lambda d: d.update(overlap=True), "overlap is true, it must be a whole number;"),
        (lambda d: d.update(tile_size=10**9), "tile_size is 1000000000, it must be at most 8192;"),
        (lambda d: d.update(surplus=1), "surplus isn't known to this format version;"),
        (lambda d: d.__delitem__("title"), "title is missing;"),
        (lambda d: d.update(title=["x" * 500]), 'title is ["xxxxx'),
        (lambda d: d["classes"][1].update(color="red"), 'classes.1.color is "red", it must be a colour as #rrggbb;'),
        (lambda d: d["classes"][1].update(name=""), "classes.1.name is empty;"),
        (lambda d: d["backbone"].update(sha256="a"), 'backbone.sha256 is "a", it must be 64 lowercase hexadecimal di'),
    ],
)
def test_a_field_out_of_its_range_is_named_in_plain_words(packed, tmp_path, edit, said):
    message = refusal(rewritten(packed, tmp_path / "p", edit))
    assert said in message
    assert not re.search(r"Value error|Input should|Error\b|validation|object has no", message)
    assert len(message) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d.update(tile_size=100), "tile_size is 100, it must be a multiple of its backbone's patch, 8;"),
        (lambda d: d["config"].update(layers=[2, 6]), "config.layers names 6, it must be 1 to 5:"),
    ],
)
def test_what_contradicts_the_demo_backbone_is_refused_when_read(tmp_path, edit, said):
    def changed(document):
        document["overlap"] = 0
        edit(document)

    assert said in refusal(rewritten(demo_pack_path(), tmp_path / "p", changed))


@pytest.mark.parametrize("change", [{"tile_size": 20}, {"config": {"layers": (1, 2)}}])
def test_what_contradicts_another_backbone_is_refused_when_they_meet(model, tmp_path, change):
    if "config" in change:
        change = {"config": model.config.model_copy(update=change["config"])}
    write_pack(tmp_path / "p", make_meta(model, **change), model.trainable_state())
    with pytest.raises(
        PackError, match=r"tile_size is 20, .* patch, 8;|config.layers names 2, it must be 1 to 1:"
    ) as caught:
        load_model(read_pack(tmp_path / "p"), model.backbone)
    assert str(caught.value).startswith(str(tmp_path / "p"))


def test_a_backbone_that_is_not_known_is_refused_naming_the_pack(model, tmp_path):
    write_pack(tmp_path / "p", make_meta(model), model.trainable_state())
    with pytest.raises(PackError) as caught:
        load_model(read_pack(tmp_path / "p"))
    assert str(caught.value).startswith(f"{tmp_path / 'p'}: its backbone test:tiny: no such backbone; ")


@pytest.mark.brief
def test_devices_pipes_and_large_files_are_refused_unread(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        assert "a device or a pipe" in refusal(path)
    assert "a folder" in refusal(tmp_path)
    large = tmp_path / "large"
    for start, said in ((b"", "doesn't begin as one"), (b"\x02" + bytes(7) + b"{}", "3072 MiB")):
        with large.open("wb") as file:
            file.write(start or b"PK\x03\x04PK\x03\x04")
            file.truncate(3 << 30)
        assert said in refusal(large)
    with large.open("wb") as file:
        file.write(b"\x02" + bytes(7) + b"{}")
        file.truncate(100 << 20)
    assert "not a prompt pack: it has 100 MiB" in refusal(large)


def test_a_path_may_be_a_text(packed):
    assert read_pack(str(packed)).path == packed
    assert "can't be read" in refusal("nowhere\0")


def test_other_files_are_refused(model, tmp_path):
    path = tmp_path / "p"
    path.write_bytes(save(model.trainable_state()))
    assert "not a prompt pack" in refusal(path)
    path.write_bytes(save(model.trainable_state(), metadata={"format": "pt"}))
    assert "not a prompt pack" in refusal(path)
    for content in (b"", b"\x00" * 7, b"\xff" * 100, b"II*\x00" + bytes(200), b'{"format_version": 1}'):
        path.write_bytes(content)
        refusal(path)
    assert "can't be read" in refusal(tmp_path / "missing")
    assert "can't be read" in refusal(tmp_path)


class _Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.brief
def test_a_pickle_is_refused_and_never_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "p.safetensors"
    path.write_bytes(pickle.dumps(_Bomb(marker)))
    refusal(path)
    torch.save({"state": _Bomb(marker)}, path)
    refusal(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(_Bomb(marker))).close()
    assert marker.exists(), "the bomb is a dud, and the test proves nothing"


def test_what_json_cannot_say_is_refused(model):
    for wrong in (
        {"provenance": {"scores": {"loss": float("nan")}}},
        {"provenance": {"details": {"loss": float("nan")}}},
        {"provenance": {"details": {"x": {1, 2}}}},
        {"provenance": {"loss": 1.0}},
        {"resolution_m": float("nan")},
    ):
        with pytest.raises(ValidationError):
            make_meta(model, **wrong)
    assert make_meta(model, provenance={"details": {"x": (1, 2)}}).provenance.details == {"x": [1, 2]}


def test_the_order_of_modalities_is_the_models_whatever_their_names(tmp_path):
    torch.manual_seed(0)
    model = GoPT(make_backbone(), GoptConfig(classes=3, rank=4, auxiliary=("sar", "nir")))
    infos = dict.fromkeys(("nir", "sar", "optical"), SAR)
    write_pack(tmp_path / "p", make_meta(model, modalities=infos), model.trainable_state())
    meta = read_pack(tmp_path / "p").meta
    assert tuple(meta.modalities) == meta.config.modalities == ("optical", "sar", "nir")


def as_version_1(document):
    """Turn a document of today into one of version 1, as gopt-geo 0.1 wrote it."""
    del document["temperature"]
    for key in ("head", "cup", "inject"):
        del document["config"][key]
    document.update(format_version=1, provenance={"data": "scenes", "parts": {"a": 1}, "versions": {"torch": "2"}})


@pytest.mark.brief
def test_a_pack_of_version_1_means_what_it_meant(model, packed, tmp_path):
    pack = read_pack(rewritten(packed, tmp_path / "p", as_version_1))
    assert pack.meta.config == model.config
    assert pack.meta.provenance.data == ("scenes",)
    assert pack.meta.provenance.versions == {"torch": "2"}
    assert pack.meta.provenance.details == {"parts": {"a": 1}}
    assert pack.meta.format_version == 3  # what it is written as from here on
    assert pack.meta.temperature == 1


@pytest.mark.brief
def test_a_pack_of_version_2_leaves_logits_as_they_are(model, packed, tmp_path):
    def edit(document):
        del document["temperature"]
        document["format_version"] = 2

    meta = read_pack(rewritten(packed, tmp_path / "p", edit)).meta
    assert meta == read_pack(packed).meta
    assert (meta.temperature, meta.format_version) == (1.0, 3)


@pytest.mark.brief
@torch.no_grad()
def test_the_temperature_divides_the_logits(model, tmp_path):
    meta = make_meta(model, temperature=2.5)
    write_pack(tmp_path / "p", meta, model.trainable_state())
    assert read_pack(tmp_path / "p").meta.temperature == 2.5
    torch.manual_seed(0)
    values = {"optical": torch.rand(2, 3, 16, 16), "sar": 4 * torch.randn(2, 1, 16, 16) - 11}
    valid = {name: torch.ones(2, 16, 16, dtype=torch.bool) for name in values}
    plain = PackModel(model, make_meta(model), 16)(values, valid)
    warm = PackModel(model, meta, 16)(values, valid)
    assert torch.allclose(warm, torch.softmax(plain.log() / 2.5, dim=1), atol=1e-6)
    assert torch.equal(warm.argmax(dim=1), plain.argmax(dim=1))


def test_a_key_that_no_version_knows_is_refused_in_version_1_too(packed, tmp_path):
    def edit(document):
        as_version_1(document)
        document["config"]["surplus"] = 1

    assert "surplus" in refusal(rewritten(packed, tmp_path / "p", edit))


@pytest.mark.brief
@torch.no_grad()
def test_one_backbone_serves_many_packs_side_by_side(packed, tmp_path):
    backbone = make_backbone()
    torch.manual_seed(7)
    other = GoPT(backbone, GoptConfig(classes=3, rank=2, hidden=8, acp_mode="both", inject="mul", head="linear")).eval()
    write_pack(tmp_path / "other", make_meta(other), other.trainable_state())
    images = {n: torch.randn(1, 3, 16, 16) for n in ("optical", "sar")}
    first = load_model(read_pack(packed), backbone)
    expected = first(images)
    second = load_model(read_pack(tmp_path / "other"), backbone)
    assert second.backbone is first.backbone is backbone
    assert torch.equal(second(images), other(images))
    assert torch.equal(first(images), expected)
    assert not torch.equal(first(images), second(images))


def test_putting_a_pack_on_a_backbone_hashes_it_once_and_draws_nothing_at_random(packed, monkeypatch):
    backbone, pack = make_backbone(), read_pack(packed)
    load_model(pack, backbone)
    monkeypatch.setattr("gopt_geo.models.backbone.state_digest", lambda _: pytest.fail("the backbone is hashed again"))
    before = torch.get_rng_state()
    load_model(pack, backbone)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_shares_no_memory_with_the_pack_it_came_from(packed):
    pack = read_pack(packed)
    model = load_model(pack, make_backbone())
    with torch.no_grad():
        model.mask_token.add_(1)
    assert torch.equal(pack.state["mask_token"], read_pack(packed).state["mask_token"])
    assert all(p.requires_grad for n, p in model.named_parameters() if not n.startswith("backbone."))


def test_another_number_of_channels_than_the_backbone_expects_is_refused(model, tmp_path):
    infos = {
        name: ModalityInfo(bands=("a", "b"), units="raw", channels=((1, 0), (0, 1)), mean=(0, 0), std=(1, 1))
        for name in ("optical", "sar")
    }
    write_pack(tmp_path / "p", make_meta(model, modalities=infos), model.trainable_state())
    with pytest.raises(PackError, match="2 channels"):
        load_model(read_pack(tmp_path / "p"), make_backbone())


@torch.no_grad()
def test_a_pack_on_a_backbone_of_many_bands(tmp_path):
    torch.manual_seed(0)
    backbone = Backbone(build_vit({**ARCHITECTURE, "in_chans": 5}), "test:bands")
    model = GoPT(backbone, GoptConfig(classes=3, rank=2, hidden=8)).eval()
    optical = ModalityInfo(
        bands=tuple("abcde"), units="raw", channels=torch.eye(5).tolist(), mean=(1,) * 5, std=(2,) * 5
    )
    sar = ModalityInfo(bands=("VV",), units="db", channels=((1,),) * 5, mean=(-11,) * 5, std=(4,) * 5)
    meta = make_meta(model, modalities={"optical": optical, "sar": sar})
    write_pack(tmp_path / "p", meta, model.trainable_state())
    runner = PackModel(load_model(read_pack(tmp_path / "p"), backbone), meta, 16)
    values = {"optical": torch.randn(2, 5, 16, 16), "sar": torch.randn(2, 1, 16, 16)}
    valid = {n: torch.ones(2, 16, 16, dtype=torch.bool) for n in values}
    images = {"optical": (values["optical"] - 1) / 2, "sar": (values["sar"].expand(-1, 5, -1, -1) + 11) / 4}
    torch.testing.assert_close(runner(values, valid), torch.softmax(model(images, valid), 1))
