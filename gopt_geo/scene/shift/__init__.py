"""The residual shift between optical and SAR, estimated from structure."""

from gopt_geo.scene.shift.estimate import ShiftEstimate, ShiftPoint, estimate_shift
from gopt_geo.scene.shift.pair import PairShift, estimate_pair

__all__ = ["PairShift", "ShiftEstimate", "ShiftPoint", "estimate_pair", "estimate_shift"]
