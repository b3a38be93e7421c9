"""Values are counted as a JSON decoder finds them, whatever the strings contain."""

from __future__ import annotations

import json

import pytest

from nearfar.dialects.kit.checks import ValueCounts, count_values

BODIES = {
    '["a", "b,c", ""]': ValueCounts(3, 2),
    "[1, 2, [3, 4]]": ValueCounts(0, 3),
    '{"a": 1, "b": {"c": "d"}}': ValueCounts(4, 1),
    json.dumps(['a "quoted, text"', "back\\slash", '\\"', "ends with \\", ","]): ValueCounts(5, 4),
    json.dumps({"x": ['\\\\"', '\\\\\\"', ","], "y": None}): ValueCounts(5, 3),
    "": ValueCounts(0, 0),
}


@pytest.mark.parametrize(("body", "counts"), BODIES.items())
def test_strings_and_the_commas_outside_of_them_are_counted(body: str, counts: ValueCounts) -> None:
    assert counts == count_values(body.encode())
