"""GoPT on frozen vision transformers."""

from gopt_geo.models.backbone import DEMO_BACKBONE, Backbone, load_backbone
from gopt_geo.models.gopt import GoPT, GoptConfig
from gopt_geo.models.prompter import GroupingPrompter

__all__ = ["DEMO_BACKBONE", "Backbone", "GoPT", "GoptConfig", "GroupingPrompter", "load_backbone"]
