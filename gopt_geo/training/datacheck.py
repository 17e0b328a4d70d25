"""What a training would read, told without training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gopt_geo.models.backbone import load_backbone
from gopt_geo.training.config import TrainConfig

if TYPE_CHECKING:
    from gopt_geo.training.datareport import DataReport

__all__ = ["check_training"]


def check_training(config: TrainConfig, *, say: Callable[[str], None] | None = None) -> DataReport:
    """Open the data of a training, and report what is in them; nothing is written.

    Parameters
    ----------
    config
        Of the training.
    say
        Is told each line of the report.

    Raises
    ------
    GoptGeoError
        If the training couldn't begin: for want of data, labels, the backbone or a device, or as sizes don't fit it.
    """
    from gopt_geo.training.data import open_training_data
    from gopt_geo.training.setup import set_up

    backbone = load_backbone(config.model.backbone, weights=config.model.backbone_weights)
    with open_training_data(
        config,
        patch_size=backbone.patch_size,
        in_chans=backbone.in_chans,
        channel_names=backbone.expects.bands,
    ) as data:
        if say is not None:
            for line in data.report.lines():
                say(line)
        setup = set_up(config, data, backbone)
        if say is not None:
            for line in setup.notices:
                say(line)
        return data.report
