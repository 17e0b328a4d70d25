"""The files of an evaluation, whole or not at all: all figures as JSON, pictures in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from gopt_geo.errors import OutputError
from gopt_geo.outputs.evaluationfigures import draw_classes, draw_confusion, draw_reliability
from gopt_geo.outputs.staging import Staging

__all__ = ["PICTURES", "EvaluationFiles"]

PICTURES = ("confusion.png", "classes.png", "reliability.png")
_DRAW = dict(zip(PICTURES, (draw_confusion, draw_classes, draw_reliability), strict=True))


class EvaluationFiles:
    """A context manager that checks the paths before any work, and publishes what `write` made of the figures.

    Parameters
    ----------
    json_file
        All figures as JSON (.json).
    figures
        Folder of the pictures; made where its parent exists.
    overwrite
        Replace files that exist.
    inputs
        Files that must not be written over.
    pictures
        What draws each picture, by file name; those of `PICTURES` by default.

    Raises
    ------
    OutputError
        If a file can't be written there, on entering.
    """

    def __init__(
        self,
        json_file: Path | None,
        figures: Path | None,
        *,
        overwrite: bool = False,
        inputs: Iterable[str | os.PathLike[str]] = (),
        pictures: Mapping[str, Callable[[Path, Mapping[str, Any]], None]] = _DRAW,
    ) -> None:
        self._pictures = pictures
        self._json, self._figures, self._made = json_file, figures, False
        self._staging = Staging(overwrite, inputs=inputs)
        self._staged: dict[str, Path] = {}

    def __enter__(self) -> EvaluationFiles:
        self._staging.__enter__()
        try:
            if self._figures is not None:
                self._make_folder(self._figures)
            self._stage()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _stage(self) -> None:
        if self._json is not None:
            self._staged["json"] = self._staging.path(self._json, (".json",))
        if self._figures is not None:
            from importlib.util import find_spec

            if find_spec("matplotlib") is None:
                remedy = "pip install 'gopt-geo[report]', or leave --figures out"
                raise OutputError(self._figures, "matplotlib isn't installed", remedy)
            for name in self._pictures:
                self._staged[name] = self._staging.path(self._figures / name, (".png",))

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        try:
            folder.mkdir()
        except OSError as error:
            raise OutputError(
                folder, f"it can't be made ({error.strerror})", "check the path and its rights"
            ) from error
        self._made = True

    def write(self, found: Mapping[str, Any]) -> list[Path]:
        """Write the files and publish them.

        Parameters
        ----------
        found
            What ``to_dict()`` of an assessment returns. Without a calibration there is no reliability diagram.

        Returns
        -------
        Their paths.

        Raises
        ------
        OutputError
            If they can't be written, or drawn; nothing stands at their paths then.
        """
        written: list[Path] = []
        stale: list[Path] = []
        for name, path in self._staged.items():
            if name == "json":
                path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
                written += [self._json] if self._json is not None else []
            elif name == "reliability.png" and found.get("calibration") is None:
                self._staging.drop(path)
                if self._figures is not None:
                    stale.append(self._figures / name)  # with --overwrite, that of another evaluation
            elif self._figures is not None:
                self._pictures[name](path, found)
                written.append(self._figures / name)
        self._staging.publish()
        self._made = False
        for old in stale:
            old.unlink(missing_ok=True)
        return written

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._staging.__exit__(kind, error, trace)
        finally:
            if self._made and self._figures is not None:
                with suppress(OSError):
                    self._figures.rmdir()  # made for nothing, and empty
