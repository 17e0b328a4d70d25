"""Ids of regions: they become names of files, on any file system, and must not lead anywhere else."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["alike", "id_fault"]

_BYTES = 200  # of 255 that file systems allow: an ending and the name of a hidden folder come on top
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL)
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_OURS = re.compile(r"(failures|manifest|mosaic)|.*\.(confidence|probabilities)", re.IGNORECASE | re.DOTALL)
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def id_fault(text: str) -> str | None:
    """Tell why an id can't be part of a file's name, None if it can; without a word of which id it is."""
    # most ids are printable throughout, which is quickly told
    unseen = None if text.isprintable() else next((c for c in text if unicodedata.category(c) in _UNSEEN), None)
    checks = (
        (not text.strip(), "it is empty"),
        (unseen is not None, f"it holds the control or invisible character U+{ord(unseen or ' '):04X}"),
        (text in (".", ".."), "it stands for a folder"),
        ("/" in text or "\\" in text, "it holds a path separator"),
        (text != text.strip(), "there are spaces around it"),
        (text.startswith((".", "-")), f"it begins with {text[:1]!r}"),
        (_FORBIDDEN.search(text) is not None, 'it holds one of < > : " | ? *, which not all file systems take'),
        (_RESERVED.fullmatch(text) is not None, "Windows reserves this name"),
        (_OURS.fullmatch(text) is not None, "files of the batch itself are called so"),
        (len(text.encode("utf-8", "replace")) > _BYTES, f"it is longer than {_BYTES} bytes"),
    )
    return next((why for wrong, why in checks if wrong), None)


def alike(text: str) -> str:
    """Return what is equal for ids that some file system takes for one name: of another case, or composed otherwise."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
