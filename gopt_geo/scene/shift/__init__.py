"""The residual shift between optical and SAR, estimated from structure."""

from gopt_geo.scene.shift.estimate import ShiftEstimate, ShiftPoint, estimate_shift

__all__ = ["ShiftEstimate", "ShiftPoint", "estimate_shift"]
