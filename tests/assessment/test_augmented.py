"""Multi-scale and mirrored prediction through the tiler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.assessment.augmented import SCALES, AugmentedModel, resample
from gopt_geo.assessment.modelscores import evaluate_model
from gopt_geo.errors import GoptGeoError
from gopt_geo.inference import TileOptions, run_tiles
from gopt_geo.scene.arrays import ArrayScene

from .helpers import PixelModel, random_area

OPTIONS = TileOptions(tile_size=32, overlap=8, batch_size=2)


class Recording(PixelModel):
    """Remembers the sizes it was given; tells left from right."""

    def __init__(self, classes):
        super().__init__(classes)
        self.sizes = []

    def __call__(self, values, valid, /):
        image = values["optical"]
        self.sizes.append(image.shape[-1])
        assert not image[~valid["optical"][:, None].expand_as(image)].any()
        return super().__call__({"optical": image + image.roll(1, -1)}, valid)


def tiles(seed=0, edge=32):
    torch.manual_seed(seed)
    return {"optical": torch.randn(2, 3, edge, edge)}, {"optical": torch.ones(2, edge, edge, dtype=torch.bool)}


@pytest.mark.brief
def test_one_size_without_a_mirror_is_the_model_itself():
    area = random_area(0)
    plain = evaluate_model(PixelModel(4), [area], 4, OPTIONS)
    wrapped = evaluate_model(AugmentedModel(PixelModel(4), 8), [area], 4, OPTIONS)
    assert np.array_equal(plain.counts(), wrapped.counts())


def test_the_mirror_is_averaged():
    values, valid = tiles()
    model = Recording(3)
    found = AugmentedModel(model, 8, flip=True)(values, valid)
    mirrored = model({"optical": values["optical"].flip(-1)}, valid).flip(-1)
    assert torch.allclose(found, (model(values, valid) + mirrored) / 2)
    assert torch.allclose(found.sum(dim=1), torch.ones(2, 32, 32))


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
    found = AugmentedModel(PixelModel(2), 8, scales, flip=True)({"optical": image}, valid)
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

    run_tiles(scene, AugmentedModel(Odd(2), 8, (0.5, 1.5), flip=True), OPTIONS, sink=sink)
    assert np.allclose(found[0, valid], 1, atol=1e-5)
    assert not found[:, ~valid].any()


def test_sizes_that_make_no_sense():
    for scales, said in (((), "there are none"), ((1, 0), "0 is no size"), ((-1.0,), "-1 is no size")):
        with pytest.raises(GoptGeoError, match=f"--scales: {said}"):
            AugmentedModel(PixelModel(2), 8, scales)
    with pytest.raises(GoptGeoError, match="nan is no size"):
        AugmentedModel(PixelModel(2), 8, (float("nan"),))
