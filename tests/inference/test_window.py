"""Promise 3: a window, a strip or another number of readers gives the bits of the whole."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference import LikelyRows, TileOptions, run_tiles


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Segmenter:
    """A small vision transformer with random weights and a linear head, in the tiler's terms."""

    modalities = ("optical",)

    def __init__(self, tile, patch, width=32, heads=4, classes=5, depth=1):
        torch.manual_seed(0)
        self.num_classes = classes
        self._vit = VisionTransformer(
            img_size=tile,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            class_token=False,
            global_pool="",
        ).eval()
        for parameter in self._vit.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        self._head = torch.nn.Linear(width, classes)
        self._grid, self._tile = tile // patch, tile

    def __call__(self, values, valid):
        tokens = self._head(self._vit.forward_features(values["optical"]))
        logits = tokens.transpose(1, 2).unflatten(2, (self._grid, self._grid))
        logits = torch.nn.functional.interpolate(logits, size=(self._tile, self._tile), mode="bilinear")
        return logits.softmax(1)


# With 25 tokens and two threads, torch's CPU attention gives a sample other last bits in another slot of the batch.
AWKWARD = {"tile": 20, "patch": 4, "width": 32, "heads": 4}
COMMON = {"tile": 32, "patch": 8, "width": 48, "heads": 3}


@pytest.fixture(
    scope="module", params=[(AWKWARD, 1), (AWKWARD, 2), (COMMON, 1)], ids=["awkward-1", "awkward-2", "common"]
)
def whole(request, kit):
    """A scene with a hole, the model, and the whole result with a batch of 3."""
    shape, count = request.param
    rng = np.random.default_rng(5)
    height, width = (150, 137) if count == 1 else (80, 62)
    valid = np.ones((height, width), bool)
    valid[height // 3 : -height // 4, width // 3 :] = False
    source = kit.Source({"optical": rng.normal(size=(3, height, width)) * valid}, {"optical": valid})
    model = Segmenter(**shape)
    options = {"tile_size": shape["tile"], "overlap": shape["tile"] // 4, "batch_size": 3}
    with threads(count):
        canvas, report = kit.run(source, model, **options)
        assert report.skipped > 0
        np.testing.assert_allclose(canvas.probabilities.sum(0)[canvas.valid], 1, rtol=1e-6)
        yield source, model, options, canvas


@pytest.mark.brief
@settings(max_examples=8, deadline=None)
@given(st.integers(-9, 149), st.integers(-9, 136), st.integers(1, 150), st.integers(1, 140), st.integers(1, 4))
def test_a_window_is_bit_identical_to_the_cut_of_the_whole(kit, whole, row, col, height, width, readers):
    source, model, options, canvas = whole
    window = Window(row, col, height, width)
    inside = window.clip(source.shape)
    if inside is None:
        return
    part, _ = kit.run(source, model, window, readers=readers, **options)
    cut = (slice(inside.row, inside.row_stop), slice(inside.col, inside.col_stop))
    assert part.count.sum() == inside.height * inside.width
    assert (part.count[cut] == 1).all()
    assert (part.valid[cut] == canvas.valid[cut]).all()
    assert part.probabilities[(slice(None), *cut)].tobytes() == canvas.probabilities[(slice(None), *cut)].tobytes()


def test_the_order_in_which_readers_finish_does_not_matter(kit, whole):
    source, model, options, canvas = whole
    rng = np.random.default_rng(0)
    slow = kit.Source(source.values, source.valid, delay=lambda window: time.sleep(rng.random() * 0.003))
    again, _ = kit.run(slow, model, readers=4, **options)
    assert len(slow.threads) > 1
    assert again.probabilities.tobytes() == canvas.probabilities.tobytes()


def test_other_batch_sizes_agree_to_1e_5(kit, whole):
    source, model, options, canvas = whole
    for batch in (1, 4):
        other, _ = kit.run(source, model, **options | {"batch_size": batch})
        np.testing.assert_allclose(other.probabilities, canvas.probabilities, atol=1e-5)


def test_a_window_beyond_the_scene_is_refused(kit):
    source = kit.Source({"optical": np.zeros((1, 10, 10))})
    with pytest.raises(GoptGeoError, match="outside of the scene of 10 x 10 pixels"):
        kit.run(source, kit.one_hot(2), Window(10, 0, 5, 5), tile_size=8, overlap=0)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("width", "heads", "tile", "patch"), [(192, 3, 256, 16), (384, 6, 128, 8)])
def test_transformer_blocks_give_a_tile_the_same_bits_in_a_slot_whatever_its_neighbours(
    count, width, heads, tile, patch
):
    """What the fixed slots rest on: linear layers, norms, attention, GELU and patch embedding never mix samples."""
    vit = VisionTransformer(
        img_size=tile, patch_size=patch, embed_dim=width, depth=1, num_heads=heads, num_classes=0
    ).eval()
    with threads(count), torch.inference_mode():
        torch.manual_seed(2)
        one = torch.randn(3, tile, tile)
        for slot in (0, 2):
            outputs = []
            for scale in (0, 1, 30):
                images = torch.randn(3, 3, tile, tile) * scale
                images[slot] = one
                outputs.append(vit.forward_features(images)[slot].clone())
            assert torch.equal(outputs[0], outputs[1])
            assert torch.equal(outputs[0], outputs[2])


def test_the_slot_of_a_tile_is_the_same_in_every_window(kit):
    """A model that answers with the slot number: windows agree with the whole only if no tile ever moves."""

    def function(values, valid):
        slots = torch.arange(len(values["optical"]), dtype=torch.float32)
        return slots[:, None, None, None].expand(-1, 1, 8, 8)

    model = kit.Model(1, function)
    rng = np.random.default_rng(3)
    valid = {"optical": rng.random((90, 77)) < 0.02}
    source = kit.Source({"optical": np.zeros((1, 90, 77))}, valid)
    options = {"tile_size": 8, "overlap": 3, "batch_size": 5}
    canvas, _ = kit.run(source, model, **options)
    assert len(np.unique(canvas.probabilities)) > 5
    for window in (Window(3, 5, 40, 50), Window(31, 0, 9, 77), Window(60, 33, 1, 1), Window(0, 70, 90, 7)):
        part, _ = kit.run(source, model, window, **options)
        cut = (slice(None), slice(window.row, window.row_stop), slice(window.col, window.col_stop))
        assert (part.probabilities[cut] == canvas.probabilities[cut]).all()


@pytest.mark.brief
@pytest.mark.parametrize("write_ahead", [0, 2])
def test_likely_rows_are_those_of_the_probabilities(kit, write_ahead):
    """The same classes, largest probabilities and validity as of rows with all of them, bit for bit."""
    rng = np.random.default_rng(8)
    shape = (300, 130)
    valid = rng.uniform(size=shape) > 0.3
    valid[:70] = False
    source = kit.Source({"optical": np.round(rng.uniform(0, 1, (4, *shape)), 1)}, {"optical": valid})  # with equals
    model = kit.copy_values(4)
    options = TileOptions(tile_size=32, overlap=8, batch_size=2, write_ahead=write_ahead)
    asked = rng.uniform(size=shape) > 0.4
    for wanted in (None, lambda window: asked[window.slices_in(Window(0, 0, *shape))]):
        found: dict[str, list] = {"all": [], "likely": []}
        run_tiles(source, model, options, wanted=wanted, sink=found["all"].append)
        run_tiles(source, model, options, wanted=wanted, likely_sink=found["likely"].append)
        assert len(found["all"]) == len(found["likely"])
        for rows, likely in zip(found["all"], found["likely"], strict=True):
            assert isinstance(likely, LikelyRows)
            expected = rows.likely()
            assert likely.window == expected.window
            for name in ("index", "largest", "valid"):
                assert getattr(likely, name).tobytes() == getattr(expected, name).tobytes()
            assert not likely.index[~likely.valid].any()
            assert not likely.largest[~likely.valid].any()


def test_either_sink_must_be_given(kit):
    source, model = kit.Source({"optical": np.zeros((3, 40, 40))}), kit.copy_values(3)
    for sinks in ({}, {"sink": print, "likely_sink": print}):
        with pytest.raises(ValueError, match="either a sink or a likely_sink"):
            run_tiles(source, model, TileOptions(tile_size=16, overlap=4), **sinks)
