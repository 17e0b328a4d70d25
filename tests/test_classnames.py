"""Names of classes as people write them."""

from __future__ import annotations

import pytest

from gopt_geo.classnames import find_class, first_few, meant_classes

CLASSES = {"Water": 1, "water body": 2, "Strasse": 3, "ROAD": 4, "road": 5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Water", 1),
        ("water", 1),
        (" WATER ", 1),
        ("Water Body", 2),
        ("straße", 3),
        ("road", 5),  # as it is written comes before what differs in case
        ("ROAD", 4),
        ("Road", None),  # two differ from it in case alone
        ("lake", None),
        ("", None),
    ],
)
def test_names_in_any_case(text: str, value: int | None) -> None:
    assert find_class(text, CLASSES) == value


def test_what_may_have_been_meant() -> None:
    assert meant_classes("Watr", CLASSES) == "did you mean 'Water'?"
    assert meant_classes("Road", CLASSES) == "did you mean 'ROAD' or 'road'?"
    assert meant_classes("xyz", CLASSES) == "choose from Water, water body, Strasse, ROAD, road"
    assert meant_classes("xyz", CLASSES, ["Water (1)"]) == "choose from Water (1)"
    assert meant_classes("xyz", [f"k{i}" for i in range(14)]).endswith("k11 and 2 more")


def test_lists_in_messages() -> None:
    assert first_few("abc") == "a, b, c"
    assert first_few("abc", 2) == "a, b and 1 more"
