"""A field of another protocol that would change numbers is honored or refused by name, on every route with texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import msgspec
import pytest
from conftest import calling

from nearfar.dialects.kit.routing import installed_dialects

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from litestar import Litestar

pytestmark = pytest.mark.anyio

# Each with a value that would change numbers, and where there is one, a value that changes nothing.
CUTTING: dict[str, tuple[object, ...]] = {
    "truncate_prompt_tokens": (3, -1),
    "truncation_side": ("left", "right"),
    "truncation_direction": ("left", "right"),
    "truncation_strategy": ("error", "truncate"),
    "truncate": ("START", True),
    "truncation": (False, True),
    "auto_truncate": (False, True),
    "max_tokens": (3, 0),
    "max_tokens_override": (3, 0),
    "max_tokens_per_doc": (3, 0),
    "max_tokens_per_query": (3, 0),
    "max_length": (3, 0),
    "max_seq_length": (3, 0),
    "add_special_tokens": (False, True),
    "chat_template": ("{{ messages }}", ""),
    "chat_template_kwargs": ({"instruction": "Find the cat."}, {}),
    "instruction": ("Find the cat.", ""),
    "instruct": ("Find the cat.", ""),
    "query_instruction": ("Find the cat.", ""),
    "prompt_name": ("query", ""),
    "softmax": (False, True),
    "images": (["x"], []),
    "image": ("x", ""),
    "audio": ("x", ""),
    "video": ("x", ""),
}
VECTORS: dict[str, tuple[object, ...]] = CUTTING | {
    "dimensions": (8, 0),
    "dimension": (8, 0),
    "output_dimension": (8, 0),
    "output_dimensionality": (8, 0),
    "truncate_dim": (8, 0),
    "input_type": ("query", ""),
    "task": ("retrieval.query", ""),
    "task_type": ("RETRIEVAL_QUERY", ""),
    "text_type": ("query", ""),
    "late_chunking": (True, False),
    "return_multivector": (True, False),
    "normalize": (False,),
    "normalized": (False,),
    "normalize_embeddings": (False,),
    "use_activation": (False,),
    "activation": (False,),
    "embd_normalize": (-1,),
    "encoding_format": ("base64", "float"),
    "encoding_type": ("base64", "float"),
    "output_dtype": ("int8", "float"),
    "embedding_type": ("binary", "float"),
    "embedding_types": (["int8"], ["float"]),
    "embed_dtype": ("float16", "float32"),
    "precision": ("binary", "float32"),
    "endianness": ("big", "native"),
    "modality": ("image", "text"),
}
SCORES: dict[str, tuple[object, ...]] = CUTTING | {
    "max_chunks_per_doc": (3, 0),
    "max_doc_length": (3, 0),
    "max_query_length": (3, 0),
    "overlap_tokens": (3, 0),
    "raw_scores": (True, False),
    "use_activation": (False, True),
    "activation": (False, True),
    "normalize": (False, True),
    "rank_fields": (["title"], []),
}


def _struct(body: Any) -> Any:
    return get_args(body)[0] if get_origin(body) is Annotated else body


def _fields(body: Any) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(_struct(body))}


def _routes() -> Iterator[tuple[str, Any, set[str]]]:
    """Yield the path and the example of every route with texts, and the fields of all bodies that the path takes."""
    routes = [route for dialect in installed_dialects() for route in dialect.routes if route.docs.counts]
    structs = [route for route in routes if isinstance(_struct(route.docs.body), type)]
    for route in structs:
        for path in route.paths:
            known = set().union(*(_fields(other.docs.body) for other in structs if path in other.paths))
            if "{" not in path and known & {"input", "inputs", "texts", "content", "query", "queries", "prompt"}:
                yield path, route.docs.example, known


ROUTES = [*_routes()]


def _others(example: Any, known: set[str]) -> dict[str, tuple[object, ...]]:
    """Return the fields that no body of the path has."""
    fields = SCORES if {"query", "text_1"} & example.keys() else VECTORS
    return {name: values for name, values in fields.items() if name not in known}


async def _post(client: httpx.AsyncClient, path: str, example: Any, **field: object) -> httpx.Response:
    return await client.post(path, json={**field, **example})


async def test_a_field_that_a_route_does_not_honor_is_refused_by_name(every_kind: Litestar) -> None:
    offenders = []
    async with calling(every_kind) as client:
        for path, example, known in ROUTES:
            for name, (value, *_) in _others(example, known).items():
                answer = await _post(client, path, example, **{name: value})
                if not 400 <= answer.status_code < 500 or f"{name} isn't supported here" not in answer.text:
                    offenders.append((path, name, answer.status_code, answer.text[:120]))

    assert not offenders
    assert len({path for path, _, _ in ROUTES}) >= 30


async def test_so_is_a_field_in_camel_case_or_inside_of_options(every_kind: Litestar) -> None:
    offenders = []
    async with calling(every_kind) as client:
        for path, example, known in ROUTES:
            sent: dict[str, object] = {"maxTokensPerDoc": 3, "truncatePromptTokens": 3}
            if not {"query", "text_1"} & example.keys():
                sent |= {"inputType": "query", "outputDimension": 8, "encodingFormat": "base64"}
            options = {"truncation_side": "left", "user": "a", "truncate": None}
            sent |= {name: options for name in ("parameters", "extra_body") if name not in known}
            for name, value in sent.items():
                answer = await _post(client, path, example, **{name: value})
                if not 400 <= answer.status_code < 500 or name not in answer.text:
                    offenders.append((path, name, answer.status_code, answer.text[:120]))
            harmless = {"parameters": {"truncation_side": "right", "wait_for_model": True}, "extra_body": None}
            answer = await _post(client, path, example, **{} if "parameters" in known else harmless)
            if answer.status_code != 200:
                offenders.append((path, "harmless", answer.status_code, answer.text[:120]))

    assert not offenders


async def test_but_not_where_its_value_changes_nothing(every_kind: Litestar) -> None:
    offenders = []
    async with calling(every_kind) as client:
        for path, example, known in ROUTES:
            harmless = {name: values[1] for name, values in _others(example, known).items() if values[1:]}
            as_text = {
                name: str(value).lower() if isinstance(value, bool) else value for name, value in harmless.items()
            }
            for fields in (harmless, as_text, dict.fromkeys(_others(example, known))):
                answer = await _post(client, path, example, **fields)
                if answer.status_code != 200:
                    offenders.append((path, fields, answer.text[:200]))

    assert not offenders
