"""Bands become normalised channels, in full precision, without a parameter or an entry in the state."""

from __future__ import annotations

import pytest
import torch

from gopt_geo.models.normalise import Normaliser
from gopt_geo.packmeta import ModalityInfo


@pytest.mark.brief
def test_mixes_then_normalises() -> None:
    info = ModalityInfo(
        bands=("a", "b"),
        units="raw",
        channels=((1.0, 0.0), (0.5, 0.5), (0.0, 2.0)),
        mean=(1.0, 2.0, 3.0),
        std=(2.0, 4.0, 8.0),
    )
    normaliser = Normaliser({"sar": info, "optical": info})
    values = torch.randn(2, 2, 3, 5)
    found = normaliser({"optical": values, "mask": values})
    assert list(found) == ["optical"]
    first, second = values[:, 0], values[:, 1]
    expected = torch.stack([(first - 1) / 2, ((first + second) / 2 - 2) / 4, (2 * second - 3) / 8], dim=1)
    assert torch.allclose(found["optical"], expected, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(normaliser({"optical": values})["optical"], found["optical"])
    assert not normaliser.state_dict()
    assert not list(normaliser.parameters())
