"""Test-time augmentation through the tiler: sizes, turns, mirror images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions, run_tiles
from gopt_geo.inference.augmented import SCALES, AugmentedModel, augmented_memory, resample
from gopt_geo.scene.arrays import ArrayScene

OPTIONS = {"tile_size": 32, "overlap": 8, "batch_size": 2}


class PixelModel:
    """Probabilities of each pixel alone: the softmax of its values, one band a class."""

    modalities = ("optical",)

    def __init__(self, classes):
        self.num_classes = classes

    def __call__(self, values, valid, /):
        return torch.softmax(values["optical"], dim=1)


class Recording(PixelModel):
    """Remembers the sizes it was given; tells left from right and up from down."""

    def __init__(self, classes):
        super().__init__(classes)
        self.sizes = []

    def __call__(self, values, valid, /):
        image = values["optical"]
        self.sizes.append(image.shape[-1])
        assert not image[~valid["optical"][:, None].expand_as(image)].any()
        return super().__call__({"optical": image + image.roll(1, -1) + 2 * image.roll(1, -2)}, valid)


def tiles(seed=0, edge=32):
    torch.manual_seed(seed)
    return {"optical": torch.randn(2, 3, edge, edge)}, {"optical": torch.ones(2, edge, edge, dtype=torch.bool)}


def holed(seed, shape, bands=2):
    """A scene with holes, and in one part none."""
    rng = np.random.default_rng(seed)
    valid = rng.random(shape) < 0.8
    valid[: shape[0] // 2] = True
    return ArrayScene({"optical": rng.normal(size=(bands, *shape)).astype(np.float32)}, {"optical": valid})


@pytest.mark.brief
def test_one_size_without_symmetry_is_the_model_itself(kit):
    scene = holed(0, (70, 90))
    plain, _ = kit.run(scene, PixelModel(2), **OPTIONS)
    wrapped, _ = kit.run(scene, AugmentedModel(PixelModel(2), 8), **OPTIONS)
    assert np.array_equal(plain.probabilities, wrapped.probabilities)


def test_the_mirror_is_averaged():
    values, valid = tiles()
    model = Recording(3)
    found = AugmentedModel(model, 8, symmetry="flip")(values, valid)
    mirrored = model({"optical": values["optical"].flip(-1)}, valid).flip(-1)
    assert torch.allclose(found, (model(values, valid) + mirrored) / 2)
    assert torch.allclose(found.sum(dim=1), torch.ones(2, 32, 32))


@pytest.mark.brief
def test_all_eight_turns_and_mirrors_are_averaged():
    """The mean over a group doesn't change when what it is applied to is turned: the mean of seven would."""
    values, valid = tiles()
    model = Recording(3)
    augmented = AugmentedModel(model, 8, symmetry="dihedral")
    found = augmented(values, valid)
    assert len(model.sizes) == augmented.passes == 8
    turned = []
    for mirrored, quarters in itertools.product((False, True), range(4)):
        image = values["optical"].flip(-2) if mirrored else values["optical"]
        other = augmented({"optical": torch.rot90(image, quarters, (-2, -1))}, valid)
        other = torch.rot90(other, -quarters, (-2, -1))
        turned.append(other.flip(-2) if mirrored else other)
    assert all(torch.allclose(other, found, atol=1e-6) for other in turned)
    plain = model(values, valid)
    assert not torch.allclose(plain, found, atol=0.05), "the model should tell directions apart"


def test_turns_take_the_masks_along():
    values, _ = tiles()
    valid = {"optical": torch.rand(2, 32, 32) < 0.6}
    values = {"optical": torch.where(valid["optical"][:, None], values["optical"], 0)}
    found = AugmentedModel(Recording(3), 8, (1.0, 0.5), "dihedral")(values, valid)  # Recording checks them
    assert torch.allclose(found.sum(dim=1), torch.ones(2, 32, 32), atol=1e-6)


@pytest.mark.parametrize(("scale", "size"), [(0.5, 16), (0.75, 24), (1.0, 32), (1.1, 32), (1.75, 56), (0.01, 8)])
def test_sizes_are_multiples_of_the_patch(scale, size):
    model = Recording(3)
    AugmentedModel(model, 8, [scale])(*tiles())
    assert model.sizes == [size]


@pytest.mark.brief
@pytest.mark.parametrize("scales", [SCALES, (0.5,), (1.5, 1)])
def test_a_smooth_field_comes_back_as_it_was(scales):
    """A model that looks at one pixel gives the same classes at every size, but for borders."""
    ramp = torch.linspace(-4, 4, 32)
    image = torch.stack([ramp.expand(32, 32), -ramp.expand(32, 32)])[None]
    valid = {"optical": torch.ones(1, 32, 32, dtype=torch.bool)}
    plain = PixelModel(2)({"optical": image}, valid)
    found = AugmentedModel(PixelModel(2), 8, scales, "dihedral")({"optical": image}, valid)
    assert torch.allclose(found, plain, atol=0.03)
    assert torch.allclose(found.sum(dim=1), torch.ones(1, 32, 32), atol=1e-6)


@pytest.mark.brief
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.sampled_from([8, 16, 24, 40, 64]), st.floats(0.05, 0.95))
def test_invalid_pixels_never_bleed(seed, size, share):
    rng = np.random.default_rng(seed)
    valid = torch.from_numpy(rng.random((1, 32, 32)) < share)
    constant = torch.where(valid[:, None], 7.0, 1e6)
    values, kept = resample(constant, valid, size)
    assert torch.allclose(values[kept[:, None]], torch.tensor(7.0), rtol=1e-5)
    assert not values[~kept[:, None]].any()


@pytest.mark.brief
@pytest.mark.parametrize("size", [8, 24, 40])
def test_a_tile_is_the_same_beside_any_other(size):
    """Whether the neighbour in the batch has holes must not decide how a tile is rounded."""
    values, valid = tiles()
    holes = {"optical": valid["optical"].clone()}
    holes["optical"][1, 5:20, 3:9] = False
    for mask in (valid, holes):
        assert torch.equal(
            resample(values["optical"], mask["optical"], size)[0][0],
            resample(values["optical"][:1], mask["optical"][:1], size)[0][0],
        )


@pytest.mark.parametrize(("scales", "symmetry"), [((1.0,), "dihedral"), ((0.75, 1.0, 1.25), "flip")])
def test_a_window_is_a_part_of_the_whole_to_the_bit(kit, scales, symmetry):
    scene = holed(3, (110, 130), bands=3)
    whole, _ = kit.run(scene, AugmentedModel(Recording(3), 8, scales, symmetry), **OPTIONS)
    rng = np.random.default_rng(1)
    for _ in range(6):
        row, col = int(rng.integers(0, 100)), int(rng.integers(0, 120))
        window = Window(row, col, int(rng.integers(1, 110 - row)), int(rng.integers(1, 130 - col)))
        part, _ = kit.run(scene, AugmentedModel(Recording(3), 8, scales, symmetry), window, **OPTIONS)
        cut = (slice(None), slice(window.row, window.row_stop), slice(window.col, window.col_stop))
        assert np.array_equal(part.probabilities[cut], whole.probabilities[cut])


def test_what_a_model_says_of_invalid_pixels_never_reaches_valid_ones():
    rng = np.random.default_rng(1)
    valid = np.ones((64, 64), bool)
    valid[20:40, 10:50] = False

    class Odd(PixelModel):
        def __call__(self, values, valid, /):
            out = torch.zeros(len(values["optical"]), 2, *values["optical"].shape[-2:])
            out[:, 0], out[:, 1] = valid["optical"].float(), (~valid["optical"]).float()
            return out

    scene = ArrayScene({"optical": rng.normal(size=(2, 64, 64)).astype(np.float32)}, {"optical": valid})
    found = np.zeros((2, 64, 64), np.float32)

    def sink(rows):
        found[:, rows.window.row : rows.window.row_stop] = rows.probabilities

    run_tiles(scene, AugmentedModel(Odd(2), 8, (0.5, 1.5), "dihedral"), TileOptions(**OPTIONS), sink=sink)
    assert np.allclose(found[0, valid], 1, atol=1e-5)
    assert not found[:, ~valid].any()


def test_memory_is_that_of_the_largest_size():
    class Measured(PixelModel):
        def working_memory(self, tile_size, batch_size):
            return 1000 * tile_size**2 * batch_size

    model = Measured(4)
    need = {
        scales: augmented_memory(model, AugmentedModel(model, 8, scales), 32, 2, 3)
        for scales in ((1.0,), (0.5, 1.0), (2.0, 1.0))
    }
    assert need[1.0,] == need[0.5, 1.0]
    assert need[1.0,] > model.working_memory(32, 2)
    assert need[2.0, 1.0] > model.working_memory(64, 2)


def test_what_makes_no_sense():
    for scales, said in (((), "there are none"), ((1, 0), "0 is no size"), ((-1.0,), "-1 is no size")):
        with pytest.raises(GoptGeoError, match=f"--scales: {said}"):
            AugmentedModel(PixelModel(2), 8, scales)
    with pytest.raises(GoptGeoError, match="nan is no size"):
        AugmentedModel(PixelModel(2), 8, (float("nan"),))
    with pytest.raises(GoptGeoError, match="--augment: 'rotate' is unknown; choose none, flip, dihedral"):
        AugmentedModel(PixelModel(2), 8, symmetry="rotate")
