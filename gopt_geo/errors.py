"""Every error a user can meet. One base class; each message names the subject, what was found and the remedy."""

from __future__ import annotations

from os import PathLike

__all__ = [
    "AoiError",
    "BandError",
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "DeviceMemoryError",
    "DrawingError",
    "GoptGeoError",
    "GridError",
    "OutputError",
    "PackError",
    "RadiometryError",
    "ResolutionError",
    "RunInterrupted",
    "SampleError",
    "ShiftError",
    "SourceError",
    "SplitError",
    "TrainingError",
]


class GoptGeoError(Exception):
    """Base of all errors a user can cause or meet; the command line turns it into one line and exit code 2.

    Parameters
    ----------
    subject
        The file, option or device concerned.
    found
        What was found, in a few words.
    remedy
        What the user can do about it.
    """

    def __init__(self, subject: str | PathLike[str], found: str, remedy: str) -> None:
        self.subject = str(subject)
        self.found = " ".join(found.split())  # libraries' messages may hold line breaks; ours are one line
        self.remedy = remedy
        super().__init__(f"{self.subject}: {self.found}; {self.remedy}")

    def __reduce__(self) -> tuple[type[GoptGeoError], tuple[str, str, str]]:
        """Pickle by the three parts, so that the error crosses process borders whole."""
        return type(self), (self.subject, self.found, self.remedy)


class SourceError(GoptGeoError):
    """A source can't be opened or read: missing, damaged, truncated, of a kind not supported, all nodata."""


class BandError(GoptGeoError):
    """A band was asked for that the source doesn't have, or the number of bands doesn't fit the pack."""


class RadiometryError(GoptGeoError):
    """The unit of the pixel values isn't stated, or can't be brought to the pack's."""


class GridError(GoptGeoError):
    """Grids can't be brought together: no CRS, no overlap, no geotransform, unequal shapes without a CRS."""


class ResolutionError(GoptGeoError):
    """The scene's pixel size is too far from the one the pack was trained at."""


class ShiftError(GoptGeoError):
    """The shift between optical and SAR can't be told reliably, and what was asked for needs it."""


class PackError(GoptGeoError):
    """A pack can't be used: damaged, of another format version, or for another backbone."""


class OutputError(GoptGeoError):
    """A result can't be written: it exists, its folder is missing or not writable, the disk is full."""


class DrawingError(OutputError):
    """A picture can't be drawn; the result it belongs to may be whole."""


class DeviceMemoryError(GoptGeoError):
    """The device ran out of memory."""


class AoiError(GoptGeoError):
    """An area of interest can't be used: unreadable, empty, not polygons, without a CRS, outside of the scene."""


class SplitError(GoptGeoError):
    """Labels can't be split as asked: too few blocks, shares that make no sense, a part without labels."""


class DatasetError(GoptGeoError):
    """A data set can't be used or combined: files missing, a field or class unknown, kinds that don't go together."""


class SampleError(GoptGeoError):
    """A sample can't be drawn or evaluated: too few units, references missing or unknown, a sample of another map."""


class ConfigError(GoptGeoError):
    """A configuration can't be used: not readable, an unknown key, a wrong type, values that contradict each other."""


class TrainingError(GoptGeoError):
    """A training can't go on: the loss isn't finite any more. The last good checkpoint stays."""


class CheckpointError(GoptGeoError):
    """A checkpoint can't be gone on from: missing, damaged, or of another configuration, backbone, data or version."""


class BatchError(GoptGeoError):
    """A batch can't begin or go on: its regions, folder, cluster or workers don't serve. What is finished stays."""


class WorkerError(BatchError):
    """A worker isn't one for this batch: another version of gopt-geo, or another pack at the same place."""


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C or a request to end came, and what was done so far is safe: the message says where, and how to go on.

    Parameters
    ----------
    number
        Of the signal.
    message
        One line.
    """

    def __init__(self, number: int, message: str) -> None:
        self.number = number
        super().__init__(number, message)

    def __str__(self) -> str:
        return str(self.args[1])
