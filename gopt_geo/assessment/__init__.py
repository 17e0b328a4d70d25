"""How well a map agrees with reference labels."""

from gopt_geo.assessment.evaluate import Assessment, evaluate_map
from gopt_geo.assessment.metrics import Scores, confusion_matrix

__all__ = ["Assessment", "Scores", "confusion_matrix", "evaluate_map"]
