"""Several rasters of one modality, named as one source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gopt_geo.errors import SourceError

if TYPE_CHECKING:
    from gopt_geo.scene.bandfiles import Source

__all__ = ["SceneMosaic", "one_source"]


@dataclass(frozen=True)
class SceneMosaic:
    """Scenes of one modality that show the ground together, as neighbouring or overlapping rasters do.

    Each is warped once onto the grid of the result. Where several have data the first named wins; where it has none
    (beyond its edges, nodata, clouds masked out) the next fills in. Values aren't blended or adjusted to each other.

    Parameters
    ----------
    sources
        What names each, see docs/sources.md; the first goes first, and its lattice is that of the whole.

    Raises
    ------
    SourceError
        If there is none, or a mosaic among them.

    Examples
    --------
    >>> gopt_geo.predict(SceneMosaic(("west.tif", "east.tif")), "s1.tif", "landcover.tif")  # doctest: +SKIP
    """

    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if isinstance(self.sources, str) or not isinstance(self.sources, tuple | list):
            remedy = 'write SceneMosaic(("west.tif", "east.tif"))'
            raise SourceError("SceneMosaic", f"its sources are a {type(self.sources).__name__}", remedy)
        object.__setattr__(self, "sources", tuple(self.sources))
        if not self.sources:
            raise SourceError("SceneMosaic", "it has no rasters", "name one at least")
        if any(isinstance(source, SceneMosaic) for source in self.sources):
            raise SourceError("SceneMosaic", "there is a mosaic among its rasters", "name all rasters in one mosaic")

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[Source]:
        return iter(self.sources)


def one_source(scenes: Sequence[Source]) -> Source | None:
    """Return scenes of one modality as one source: itself where it is alone, a mosaic of several, None of none."""
    if not scenes:
        return None
    return scenes[0] if len(scenes) == 1 else SceneMosaic(tuple(scenes))
