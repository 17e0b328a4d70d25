"""Names of classes as people write them: found in any case, and listed in messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["find_class", "first_few", "meant_classes"]

_FEW, _LISTED = 6, 12


def find_class(text: str, classes: Mapping[str, int]) -> int | None:
    """Return the value of a class by its name; None where there is none, or where several differ in case alone.

    Parameters
    ----------
    text
        As written; the name as it is comes first, then the one that differs in upper and lower case or in blanks around
        it.
    classes
        Values by name.
    """
    if text in classes:
        return classes[text]
    plain = text.strip().casefold()
    found = [value for name, value in classes.items() if name.strip().casefold() == plain]
    return found[0] if len(found) == 1 else None


def meant_classes(text: str, names: Iterable[str], called: Sequence[str] = ()) -> str:
    """Return what may have been meant by a name, as a remedy.

    Parameters
    ----------
    text
        As written.
    names
        There are.
    called
        What they are called in a list; else the names.

    Returns
    -------
    The closest ones, or those that differ in case alone; else a list of all.
    """
    listed = list(names)
    plain = [name.strip().casefold() for name in listed]
    close = difflib.get_close_matches(text.strip().casefold(), plain, n=2)
    if close:
        return (
            f"did you mean {' or '.join(repr(name) for name, key in zip(listed, plain, strict=True) if key in close)}?"
        )
    return f"choose from {first_few(called or listed, _LISTED)}"


def first_few(names: Iterable[str], limit: int = _FEW) -> str:
    """Return names as a list for a message, the first ones and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
