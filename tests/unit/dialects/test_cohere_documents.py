"""Documents of Cohere's rerank that are objects become YAML."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nearfar.core.errors import InputError
from nearfar.dialects.cohere.documents import text_v1, text_v2

if TYPE_CHECKING:
    import httpx

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
WRITTEN: dict[str, dict[str, Any]] = {
    "title: 'Fruit: yellow'": {"title": "Fruit: yellow"},
    "title: Fruit\nbody: Bananas are yellow.": {"title": "Fruit", "body": "Bananas are yellow."},
    "b: 1\na: 2": {"b": 1, "a": 2},
    "answer: 'yes'\nnumber: '123'\nnothing: 'null'": {"answer": "yes", "number": "123", "nothing": "null"},
    "day: '2026-01-02'\ntime: '12:30:45'": {"day": "2026-01-02", "time": "12:30:45"},
    "body: 'one\n\n  two'": {"body": "one\ntwo"},
    "body: é 猫 😀 𠀀": {"body": "é 猫 😀 𠀀"},
    "body: '😀\n\n  \ue000\\U0001F600'": {"body": "😀\n\ue000\\U0001F600"},
    "path: C:\\U0001F600": {"path": "C:\\U0001F600"},
    'bell: "\\a"\nnul: "\\0"': {"bell": "\a", "nul": "\0"},
    f"body: {'word ' * 1000}end": {"body": "word " * 1000 + "end"},
    f"n: {2**70}\nf: 0.1\nlarge: 1.0e+300": {"n": 2**70, "f": 0.1, "large": 1e300},
    "'yes': true\n'no': false": {"yes": True, "no": False},
    "tags:\n- pet\n- meows\nsize:\n  cm: 30\n  of: null": {"tags": ["pet", "meows"], "size": {"cm": 30, "of": None}},
    "none: []\nempty: {}\nblank: ''": {"none": [], "empty": {}, "blank": ""},
    "'': 1\n'a: b': 2\n'- c': 3\n'#': 4\n😀: 5": {"": 1, "a: b": 2, "- c": 3, "#": 4, "😀": 5},
    "a:\n- x\nb:\n- x": {"a": ["x"], "b": ["x"]},
}


def _nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {"a": 1}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


@pytest.mark.parametrize("text", WRITTEN)
def test_objects_are_written_as_yaml_that_reads_back(text: str) -> None:
    document = WRITTEN[text]

    assert text == text_v1(0, document, [*document]) == text_v2(0, document, None)
    assert document == yaml.safe_load(text)


def test_rank_fields_choose_and_order_the_lines_and_null_fields_are_left_out() -> None:
    assert "b: 2\na: 1" == text_v1(0, {"a": 1, "b": 2, "c": None, "d": 4}, ["b", "c", "a", "x"])


@given(st.dictionaries(st.text(), JSON, min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_json_object_reads_back_without_anchors(document: dict[str, Any]) -> None:
    decoded = msgspec.json.decode(json.dumps(document))
    fields = {field: value for field, value in decoded.items() if value is not None}
    assume(fields)

    text = text_v1(0, decoded, [*decoded])

    assert json.dumps(fields) == json.dumps(yaml.safe_load(text))
    assert not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))


@given(st.dictionaries(st.text(), st.text(st.characters(exclude_categories=["Cs", "Co"])), min_size=1))
@settings(max_examples=50, deadline=None)
def test_no_character_that_yaml_can_hold_beyond_u_ffff_is_escaped(document: dict[str, str]) -> None:
    document = {key.replace("\\", "/"): value.replace("\\", "/") for key, value in document.items()}

    text = text_v1(0, document, [*document])

    assert not re.search(r"\\U", text)
    assert document == yaml.safe_load(text)


def test_a_document_may_be_nested_in_twenty_levels_and_no_more() -> None:
    assert _nested(20) == yaml.safe_load(text_v1(0, _nested(20), ["a"]))

    with pytest.raises(InputError, match="index 3 is nested too deeply: at most 20 levels"):
        text_v1(3, _nested(21), ["a"])


def test_a_document_has_at_most_ten_thousand_values() -> None:
    assert text_v1(0, {"a": [1] * 9_999}, ["a"])

    with pytest.raises(InputError, match="index 3 has more than 10000 values"):
        text_v1(3, {"a": [1] * 10_000}, ["a"])


@pytest.mark.anyio
async def test_an_object_with_a_colon_in_it_is_ranked(builtin: httpx.AsyncClient) -> None:
    body = {"query": "a banana", "documents": [{"title": "Pets: cats"}, {"title": "Fruit: yellow"}]}

    first = await builtin.post("/v1/rerank", json={**body, "rank_fields": ["title"], "top_n": 1})
    second = await builtin.post("/v2/rerank", json={**body, "model": "rerank-v3.5", "return_documents": True})

    assert 200 == first.status_code
    assert 1 == first.json()["results"][0]["index"]
    assert "title: 'Fruit: yellow'" == second.json()["results"][0]["document"]["text"]


@pytest.mark.anyio
@pytest.mark.parametrize("levels", [21, 300, 900, 5000])
async def test_a_document_that_is_nested_too_deeply_is_refused(faked: httpx.AsyncClient, levels: int) -> None:
    document = '{"a":' * levels + "1" + "}" * levels
    content = f'{{"query": "q", "documents": [{document}], "rank_fields": ["a"]}}'

    answer = await faked.post("/v1/rerank", content=content)

    assert 400 == answer.status_code
    assert "nested too deeply" in answer.json()["message"]


@pytest.mark.anyio
async def test_half_of_a_surrogate_pair_in_an_object_is_read(faked: httpx.AsyncClient) -> None:
    content = rb'{"query": "q", "documents": [{"a": "\ud800"}], "rank_fields": ["a"]}'

    assert 200 == (await faked.post("/v1/rerank", content=content)).status_code
