"""GoPT on frozen vision transformers, and the models it is compared with."""

from gopt_geo.models.backbone import DEMO_BACKBONE, Backbone, TrainedOn, load_backbone
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.cup import Grouping
from gopt_geo.models.gopt import GoPT
from gopt_geo.models.parameters import ParameterReport, count_parameters
from gopt_geo.models.prompter import GroupingPrompter
from gopt_geo.models.segmenter import Segmenter

__all__ = [
    "DEMO_BACKBONE",
    "Backbone",
    "GoPT",
    "GoptConfig",
    "Grouping",
    "GroupingPrompter",
    "ParameterReport",
    "Segmenter",
    "TrainedOn",
    "count_parameters",
    "load_backbone",
]
