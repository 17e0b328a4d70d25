"""How many parameters a model has, and which share of them is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gopt_geo.models.segmenter import Segmenter

__all__ = ["ParameterReport", "count_parameters"]


@dataclass(frozen=True)
class ParameterReport:
    """Parameters of a model, counted.

    Attributes
    ----------
    trained, frozen
        Parameters that learn and that don't.
    by_part
        Those that learn, by the part of the model that they belong to.
    """

    trained: int
    frozen: int
    by_part: dict[str, int]

    @property
    def share(self) -> float:
        """Trained share of all parameters, 0 to 1."""
        return self.trained / (self.trained + self.frozen)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "trained": self.trained,
            "frozen": self.frozen,
            "share": round(self.share, 6),
            "by_part": dict(self.by_part),
        }

    def __str__(self) -> str:
        """Return a small table, a line a part."""
        rows = [*self.by_part.items(), ("trained", self.trained), ("frozen", self.frozen)]
        lines = [f"{name:14} {count:>14,}" for name, count in rows]
        return "\n".join([*lines, f"{'trained share':14} {100 * self.share:>13.3f}%"])


def count_parameters(model: Segmenter) -> ParameterReport:
    """Count a model's parameters; a model on the meta device, without memory for its weights, will do.

    Parameters
    ----------
    model
        GoPT or one of the models it is compared with.
    """
    by_part: dict[str, int] = {}
    frozen = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = name.split(".")[0]
            by_part[part] = by_part.get(part, 0) + parameter.numel()
        else:
            frozen += parameter.numel()
    return ParameterReport(sum(by_part.values()), frozen, by_part)
