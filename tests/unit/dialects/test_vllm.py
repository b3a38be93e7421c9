"""vLLM's and Infinity's fields that request logits, and the names of a pair's sides."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nearfar.core.errors import InputError
from nearfar.dialects.vllm.rerank import RERANK
from nearfar.dialects.vllm.routes import CLASSIFY, SCORE

BODIES: tuple[tuple[Any, dict[str, Any]], ...] = (
    (SCORE, {"text_1": "a", "text_2": "b"}),
    (CLASSIFY, {"input": "a"}),
    (RERANK, {"query": "a", "documents": ["b"]}),
)


def job_of(endpoint: Any, body: dict[str, Any]) -> Any:
    return endpoint.to_job(endpoint.decoder.decode(msgspec.json.encode(body)))


def test_either_name_of_the_activation_requests_logits_and_so_does_infinity_s_raw_scores() -> None:
    options: dict[str, list[dict[str, Any]]] = {
        "scores": [{}, {"use_activation": True}, {"activation": None}, {"raw_scores": False}],
        "logits": [{"use_activation": False}, {"activation": False}],
    }

    found = {
        (endpoint.docs.summary, kind, str(option)): job_of(endpoint, body | option).raw_scores
        for endpoint, body in BODIES
        for kind, each in options.items()
        for option in each
    }
    raw = [job_of(endpoint, body | {"raw_scores": True}).raw_scores for endpoint, body in BODIES[1:]]

    assert {key: key[1] == "logits" for key in found} == found
    assert [True, True] == raw
    with pytest.raises(InputError, match="raw_scores isn't supported here"):  # /score has no such field
        job_of(SCORE, {"text_1": "a", "text_2": "b", "raw_scores": True})


def test_all_names_of_the_sides_make_the_same_pairs() -> None:
    names = [("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items")]

    found = [job_of(SCORE, {first: "a", second: ["b", "c"]}).pairs for first, second in names]

    assert [(("a", "b"), ("a", "c"))] * len(names) == found
