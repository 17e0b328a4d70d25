"""How figures are made, in words, for every output that shows them."""

from __future__ import annotations

from gopt_geo.assessment.metrics import Scores

__all__ = ["conventions"]


def conventions(scores: Scores, boundary: int | None, bins: int | None) -> tuple[str, ...]:
    """Return what the reader of a set of figures must know to compare it with others, a line each.

    Parameters
    ----------
    scores
        The figures.
    boundary
        Tolerance of the boundary F1 in pixels; None where there is none.
    bins
        Of the calibration error; None where there is none.
    """
    lines = [
        "pixels without a label count nowhere; no class is left out, an unlabelled or background class that is one is"
        " scored",
        f"labelled pixels without a prediction count as errors ({scores.unpredicted:.2%} of them)"
        if scores.unpredicted > 0
        else "labelled pixels without a prediction would count as errors (there are none)",
        f"means leave out classes that are in neither reference nor prediction ({scores.absent} of {len(scores.iou)})",
        "kappa = (OA - pe) / (1 - pe), pe = sum(row x column) / n^2",
    ]
    if boundary is not None:
        lines.append(
            f"boundary F1: borders agree within {boundary} pixels, counted over all ground (after Csurka et al. 2013)"
        )
    if bins is not None:
        lines.append(f"ECE: {bins} bins of equal width over the confidence (Guo et al. 2017)")
    return tuple(lines)
