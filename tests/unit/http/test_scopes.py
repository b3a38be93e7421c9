"""Scopes: every route, with its documented requests, for every key. What an answer has decides, not its route."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from conftest import calling, running
from openapi_document import DOCUMENT, OPERATIONS, address, examples, request_body

from nearfar.core.caller import ALL_SCOPES, SCOPES_FOR, AnswerKind
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.dialects.kit.routing import installed_dialects
from nearfar.http.openapi.operations import list_operations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx
    from litestar import Litestar


pytestmark = pytest.mark.anyio

KEYS = {"all": ALL_SCOPES, "embed": ("embed",), "rerank": ("rerank",), "admin": ("admin",), "none": ()}
STATED = {
    (one.path, one.method): {
        kind
        for each in list_operations(installed_dialects())
        for kind in each.about.answers
        if (each.path, each.method) == (one.path, one.method)
    }
    for one in list_operations(installed_dialects())
}
PUBLIC = {(path, method) for path, method in OPERATIONS if DOCUMENT["paths"][path][method]["security"] == []}
PRELOAD = {"model": BUILTIN_MODEL}
# What the documentation has no example of: a model is loaded, unloaded, or chosen by a request without input.
MORE: list[tuple[str, str, Any]] = [
    ("/api/embed", "post", PRELOAD),
    ("/api/embed", "post", {**PRELOAD, "input": []}),
    ("/api/embed", "post", {**PRELOAD, "input": "", "keep_alive": 5}),
    ("/api/embeddings", "post", {**PRELOAD, "prompt": ""}),
    ("/represent", "post", {"input": "a cat", "model": BUILTIN_MODEL}),
    ("/represent", "post", {"input": "a cat", "model": "splade"}),
    ("/pooling", "post", {"input": "a cat", "task": "embed", "model": BUILTIN_MODEL}),
    ("/pooling", "post", {"input": "a cat", "task": "classify"}),
    ("/invocations", "post", {"inputs": {"source_sentence": "a cat", "sentences": ["a dog"]}}),
    ("/invocations", "post", {"query": "a cat", "texts": ["a dog"]}),
    ("/", "post", {"inputs": "a cat", "model": "classifier"}),
    ("/vertex", "post", {"instances": [{"inputs": "a cat"}]}),
    ("/vertex", "post", {"instances": [{"query": "a cat", "texts": ["a dog"]}]}),
]


def requests() -> Iterator[tuple[str, str, Any]]:
    """Yield every documented request, and more; those last that change something."""
    found = list(MORE)
    for path, method in OPERATIONS:
        content = DOCUMENT["paths"][path][method].get("requestBody", {"content": {}})["content"]
        found += [(path, method, body) for _, body in examples(content)] or [(path, method, None)]
    return iter(sorted(found, key=lambda one: STATED[one[:2]] >= {"changes"}))


_BY_FIELD: dict[str, AnswerKind] = {
    **dict.fromkeys(("embeddings", "embedding", "dense", "multi_vector", "indices"), "vectors"),
    **dict.fromkeys(("score", "relevance_score", "logit", "probs"), "scores"),
    **dict.fromkeys(("tokens", "token_strings", "prompt", "start", "text"), "tokens"),
    **dict.fromkeys(("done_reason", "closes_in_s"), "changes"),
}


def kinds_in(answer: httpx.Response) -> set[AnswerKind]:
    """Return what an answer has, by its content alone."""
    if answer.request.method == "GET" and answer.request.url.path.startswith("/admin/"):
        return {"internals"}
    if re.match(r"(/v1)?/(files|uploads|batches)", answer.request.url.path):
        return {"files"}
    if answer.request.method != "POST":
        return {"descriptions"}
    if answer.headers["content-type"] == "application/octet-stream":
        return {"vectors"}
    value = answer.json()
    is_texts = isinstance(value, list) and value and isinstance(value[0], str)
    found: set[AnswerKind] = {"tokens"} if is_texts else {*_kinds(value)}
    # Rerankers return documents, and usage counts tokens.
    if found & {"vectors", "scores"}:
        found.discard("tokens")
    return found or {"descriptions"}


def _kinds(value: Any, name: str = "") -> Iterator[AnswerKind]:
    """Yield what a value has: by the names of fields, and lists of numbers by their length."""
    if isinstance(value, dict) and value.keys() == {"index", "value"}:
        yield "vectors"
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from [_BY_FIELD[key]] if key in _BY_FIELD and not isinstance(each, dict) else _kinds(each, key)
    elif isinstance(value, list):
        if value and all(isinstance(each, float) for each in value):
            yield "vectors" if len(value) >= 16 else "scores"
        for each in value:
            yield from _kinds(each, name)
    elif isinstance(value, str) and name == "data":
        yield "vectors"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    entries = [
        f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
        f"scopes = {msgspec.json.encode(scopes).decode()}\n"
        for name, scopes in KEYS.items()
        if scopes
    ]
    file.write_text("\n".join(entries))
    return file


async def test_every_route_states_what_it_gives() -> None:
    assert [] == [route for route, kinds in STATED.items() if not kinds]


async def test_a_request_without_input_that_unloads_a_model_needs_the_scope_admin(
    every_kind: Litestar, keys_file: Path
) -> None:
    settings = msgspec.structs.replace(
        every_kind.state.settings, api_keys_file=str(keys_file), state_dir=None, load="demand"
    )
    async with running(settings) as app, calling(app) as client:
        answers = await _send_with_every_key(client, "POST", "/api/embed", json={**PRELOAD, "keep_alive": 0})
        states = [state.state for state in app.state.fleet.states()]

    assert [200, 403, 403, 200, 401] == [answer.status_code for answer in answers.values()]
    assert {"unloaded"} == {*states}


async def test_every_documented_request_needs_a_scope_for_what_its_answer_has(
    every_kind: Litestar, keys_file: Path
) -> None:
    wrong = []
    settings = msgspec.structs.replace(every_kind.state.settings, api_keys_file=str(keys_file), state_dir=None)
    async with running(settings) as app, calling(app) as client:
        for path, method, body in requests():
            operation = DOCUMENT["paths"][path][method]
            answers = await _send_with_every_key(
                client, method, address(path, operation), **request_body(operation, body)
            )
            kinds = kinds_in(answers["all"])
            expected = {
                name: 200 if (path, method) in PUBLIC or _allows(scopes, kinds) else 403 if scopes else 401
                for name, scopes in KEYS.items()
            }
            found = {name: answer.status_code for name, answer in answers.items()}
            if kinds == {"files"}:  # of which there are none of the examples' names
                found = {name: 200 if status == 404 else status for name, status in found.items()}
            if expected != found or not kinds <= STATED[path, method]:
                wrong.append((method, path, body, kinds, STATED[path, method], found, answers["all"].text[:200]))

    assert not wrong, "\n".join(map(str, wrong))


async def _send_with_every_key(
    client: httpx.AsyncClient, method: str, path: str, **body: Any
) -> dict[str, httpx.Response]:
    headers = {name: {"authorization": f"Bearer {name}"} if scopes else {} for name, scopes in KEYS.items()}
    calls = [client.request(method, path, headers=headers[name], **body) for name in KEYS]
    return dict(zip(KEYS, await asyncio.gather(*calls), strict=True))


def _allows(scopes: tuple[str, ...], kinds: set[AnswerKind]) -> bool:
    return all(set(SCOPES_FOR[kind]) & set(scopes) for kind in kinds)
