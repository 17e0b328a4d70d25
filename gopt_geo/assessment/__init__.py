"""How well maps and models agree with reference labels."""

from gopt_geo.assessment.boundary import BoundaryCounts, count_boundaries
from gopt_geo.assessment.calibration import Calibration
from gopt_geo.assessment.evaluate import Assessment, evaluate_map
from gopt_geo.assessment.metrics import Scores, confusion_matrix

__all__ = [
    "Assessment",
    "BoundaryCounts",
    "Calibration",
    "Scores",
    "confusion_matrix",
    "count_boundaries",
    "evaluate_map",
]
