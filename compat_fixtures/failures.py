"""Write ``<dialect>/<endpoint>/failures.json``: the errors of every endpoint in its dialect's format.

``python compat_fixtures/failures.py`` writes all files; a test checks that they are up to date. The tables below are
written by hand from each protocol's documentation, not derived from the server's code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
_KEY = "sk-fixture"
# Words that make the test engine fail in different ways.
_FAULTS = {"engine_raises": "boom", "engine_gives_nan": "nan", "engine_gives_too_few": "few"}
_BUILTIN = "sentence-transformers/all-MiniLM-L6-v2"
_TOO_LARGE = 300  # bytes


class Endpoint(NamedTuple):
    """A POST endpoint of one dialect."""

    folder: str
    path: str
    body: dict[str, Any]  # valid; TEXT is replaced by the text that the model reads
    model: str = "model"  # field with the model's name; empty if the protocol has none
    runs: bool = True  # whether a model runs
    owner: str = ""  # the dialect that responds before the body is read, if another one shares the path

    @property
    def dialect(self) -> str:
        """Return the dialect."""
        return self.folder.partition("/")[0]


_QUERY: dict[str, Any] = {"query": "cat", "documents": ["TEXT", "a dog"]}
ENDPOINTS = (
    Endpoint("openai/embeddings", "/v1/embeddings", {"model": "text-embedding-3-small", "input": "TEXT"}),
    Endpoint("cohere/embed_v1", "/v1/embed", {"texts": ["TEXT"]}),
    Endpoint(
        "cohere/embed_v2", "/v2/embed", {"model": "embed-v4.0", "texts": ["TEXT"], "input_type": "search_document"}
    ),
    Endpoint("cohere/rerank_v1", "/v1/rerank", _QUERY),
    Endpoint("cohere/rerank_v2", "/v2/rerank", {"model": "rerank-v3.5", **_QUERY}),
    Endpoint("cohere/tokenize", "/v1/tokenize", {"model": "embed-v4.0", "text": "TEXT"}, runs=False),
    Endpoint("cohere/detokenize", "/v1/detokenize", {"model": "embed-v4.0", "tokens": [4937]}, runs=False),
    Endpoint("jina/embeddings", "/jina/v1/embeddings", {"model": "jina-embeddings-v3", "input": ["TEXT"]}),
    Endpoint("jina/rerank", "/jina/v1/rerank", {"model": "jina-reranker-v2-base-multilingual", **_QUERY}),
    Endpoint("voyage/embeddings", "/voyage/v1/embeddings", {"model": "voyage-3.5", "input": ["TEXT"]}),
    Endpoint("voyage/rerank", "/voyage/v1/rerank", {"model": "rerank-2.5", **_QUERY}),
    Endpoint(
        "voyage/ranking", "/v1/ranking", {"query": {"text": "cat"}, "passages": [{"text": "TEXT"}, {"text": "a dog"}]}
    ),
    Endpoint("tei/embed", "/embed", {"inputs": "TEXT"}),
    Endpoint("tei/hub", f"/hf-inference/models/{_BUILTIN}", {"inputs": "TEXT"}, model=""),
    Endpoint("tei/embed_all", "/embed_all", {"inputs": "TEXT"}),
    Endpoint("tei/rerank", "/rerank", {"query": "cat", "texts": ["TEXT", "a dog"]}, owner="vllm"),
    Endpoint("tei/similarity", "/similarity", {"inputs": {"source_sentence": "cat", "sentences": ["TEXT"]}}),
    Endpoint("tei/tokenize", "/tokenize", {"inputs": "TEXT"}, runs=False, owner="vllm"),
    Endpoint("tei/decode", "/decode", {"ids": [4937]}, runs=False),
    Endpoint("vllm/rerank", "/rerank", _QUERY),
    Endpoint("vllm/score", "/score", {"text_1": "cat", "text_2": ["TEXT"]}),
    Endpoint("vllm/tokenize", "/tokenize", {"prompt": "TEXT"}, runs=False),
    Endpoint("vllm/detokenize", "/detokenize", {"tokens": [4937]}, runs=False),
    Endpoint("ollama/embed", "/api/embed", {"model": _BUILTIN, "input": "TEXT"}),
    Endpoint("ollama/embeddings", "/api/embeddings", {"model": _BUILTIN, "prompt": "TEXT"}),
    Endpoint("ollama/rerank", "/api/rerank", {"model": _BUILTIN, **_QUERY}),
    Endpoint("ollama/show", "/api/show", {"model": _BUILTIN}, runs=False),
    Endpoint("embed_rerank/embed", "/api/v1/embed", {"texts": ["TEXT"]}, model=""),
    Endpoint("embed_rerank/rerank", "/api/v1/rerank", {"query": "cat", "passages": ["TEXT", "a dog"]}, model=""),
    Endpoint("embed_rerank/openai_rerank", "/v1/openai/rerank", _QUERY),
    Endpoint("native/represent", "/represent", {"input": "TEXT"}),
)

_FORMATS: dict[str, Any] = {
    "openai": lambda _status, error: {"error": _openai(*error), "message": error[0], "detail": error[0]},
    "cohere": lambda _status, error: {"message": error, "id": "<uuid>", "detail": error},
    "jina": lambda _status, error: {"detail": "<string>", **error},
    "voyage": lambda _status, error: {"detail": error},
    "tei": lambda _status, error: {"error": "<string>", "error_type": error},
    "vllm": lambda status, error: {
        "error": {"message": "<string>", "type": error, "param": "<any>", "code": status},
        "detail": "<string>",
    },
    "ollama": lambda _status, error: {"error": error},
    "embed_rerank": lambda status, error: {"error": error, "detail": "<string>", "status_code": status},
    "native": lambda _status, error: {"error": error, "message": "<string>"},
}


def _openai(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, object]:
    return {"message": message, "type": kind, "param": None, "code": code}


_INTERNAL_ERROR = "<has had an error while processing your request>"
# Each dialect's status, and the argument of its format above.
_ERRORS: dict[str, dict[str, tuple[int, Any]]] = {
    "openai": {
        "malformed_json": (400, ("<has We could not parse the JSON body of your request>",)),
        "wrong_method": (405, ("Only POST requests are accepted.", "invalid_request_error", "method_not_supported")),
        "no_key": (401, ("<has You didn't provide an API key>",)),
        "wrong_key": (401, ("<has Incorrect API key provided>", "invalid_request_error", "invalid_api_key")),
        "body_too_large": (413, ("<string>",)),
        "unknown_model": (404, ("<has does not exist or you do not", "invalid_request_error", "model_not_found")),
        "engine_fails": (500, (_INTERNAL_ERROR, "server_error")),
        "out_of_memory": (413, ("<string>",)),
    },
    "cohere": {
        "malformed_json": (400, "<has invalid json syntax>"),
        "wrong_method": (405, "<string>"),
        "no_key": (401, "no api key supplied"),
        "wrong_key": (401, "invalid api token"),
        "body_too_large": (413, "<string>"),
        "unknown_model": (404, "<has model 'no-such-model' not found, make sure the correct model ID was used>"),
        "engine_fails": (500, "internal server error"),
        "out_of_memory": (413, "<string>"),
    },
    "tei": {
        "malformed_json": (400, "Validation"),
        "wrong_method": (405, "Validation"),
        "no_key": (401, "Unauthorized"),
        "wrong_key": (401, "Unauthorized"),
        "body_too_large": (413, "Validation"),
        "unknown_model": (404, "Validation"),
        "engine_fails": (424, "Backend"),
        "out_of_memory": (413, "Validation"),
    },
    "vllm": {
        "malformed_json": (400, "BadRequestError"),
        "wrong_method": (405, "BadRequestError"),
        "no_key": (401, "Unauthorized"),
        "wrong_key": (401, "Unauthorized"),
        "body_too_large": (413, "BadRequestError"),
        "unknown_model": (404, "NotFoundError"),
        "engine_fails": (500, "InternalServerError"),
        "out_of_memory": (413, "BadRequestError"),
    },
    "jina": {
        "malformed_json": (422, {}),
        "wrong_method": (405, {"detail": "Method Not Allowed"}),
        "no_key": (401, {"code": "AUTH_MISSING_API_KEY"}),
        "wrong_key": (401, {"code": "AUTH_INVALID_API_KEY"}),
        "body_too_large": (413, {}),
        "unknown_model": (400, {"detail": "Model 'no-such-model' not found.", "code": "INPUT_MODEL_NOT_FOUND"}),
        "engine_fails": (500, {"code": "<string>"}),
        "out_of_memory": (413, {}),
    },
    "voyage": {
        "malformed_json": (400, "<has The request body is not valid JSON>"),
        "wrong_method": (405, "Method Not Allowed"),
        "no_key": (401, "<string>"),
        "wrong_key": (401, "Provided API key is invalid."),
        "body_too_large": (413, "<string>"),
        "unknown_model": (400, "Model no-such-model is not supported."),
        "engine_fails": (500, "<has Something went wrong on our end>"),
        "out_of_memory": (413, "<string>"),
    },
    "ollama": {
        "malformed_json": (400, "<string>"),
        "wrong_method": (405, "<string>"),
        "no_key": (401, "unauthorized"),
        "wrong_key": (401, "unauthorized"),
        "body_too_large": (413, "<string>"),
        "unknown_model": (404, 'model "no-such-model" not found, try pulling it first'),
        "engine_fails": (500, "<has internal server error>"),
        "out_of_memory": (413, "<string>"),
    },
    "embed_rerank": {
        "malformed_json": (422, "api_error"),
        "wrong_method": (405, "api_error"),
        "no_key": (401, "api_error"),
        "wrong_key": (401, "api_error"),
        "body_too_large": (413, "api_error"),
        "unknown_model": (404, "api_error"),
        "engine_fails": (500, "internal_server_error"),
        "out_of_memory": (413, "api_error"),
    },
    "native": {
        "malformed_json": (400, "MalformedBody"),
        "wrong_method": (405, "MethodNotAllowed"),
        "no_key": (401, "ApiKeyMissing"),
        "wrong_key": (401, "ApiKeyInvalid"),
        "body_too_large": (413, "BodyTooLarge"),
        "unknown_model": (404, "ModelNotFound"),
        "engine_fails": (500, "EngineError"),
        "out_of_memory": (413, "DeviceOutOfMemory"),
    },
}


def main() -> None:
    """Write every file."""
    for endpoint in ENDPOINTS:
        file = HERE / endpoint.folder / "failures.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(written(endpoint))


def written(endpoint: Endpoint) -> str:
    """Return the text of an endpoint's file, one case per line."""
    lines = [f"  {json.dumps(case)}" for case in cases(endpoint)]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def cases(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return all failure cases of an endpoint."""
    owner = endpoint.owner or endpoint.dialect
    found = [
        _case(endpoint, "malformed_json", owner, body="{"),
        _case(endpoint, "wrong_method", owner, method="PUT"),
        _case(endpoint, "no_key", owner, server={"api_key": _KEY}),
        _case(endpoint, "wrong_key", owner, server={"api_key": _KEY}, headers={"authorization": "Bearer no"}),
        _case(endpoint, "body_too_large", owner, server={"max_body_bytes": _TOO_LARGE}, pad="x" * _TOO_LARGE),
    ]
    if endpoint.model:
        unknown: dict[str, Any] = {endpoint.model: "no-such-model"}
        found.append(_case(endpoint, "unknown_model", endpoint.dialect, **unknown))
    if endpoint.runs:
        fake = {"engine": "fake"}
        found += [
            _case(endpoint, "engine_fails", endpoint.dialect, name=name, server=fake, text=f"the word {word} in it")
            for name, word in _FAULTS.items()
        ]
        found.append(_case(endpoint, "out_of_memory", endpoint.dialect, server=fake, text="the word giant in it"))
    return found


def _case(  # noqa: PLR0913 — all are parts of a case
    endpoint: Endpoint,
    kind: str,
    dialect: str,
    *,
    name: str = "",
    text: str = "a cat",
    method: str = "POST",
    body: str | None = None,
    headers: dict[str, str] | None = None,
    server: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    status, error = _ERRORS[dialect][kind]
    request: dict[str, Any] = {"method": method, "path": endpoint.path, "headers": headers or {}}
    if body is None:
        request["json"] = {**json.loads(json.dumps(endpoint.body).replace("TEXT", text)), **fields}
    else:
        request["body"] = body
    return {
        "name": name or kind,
        "promise": f"{endpoint.folder}: {(name or kind).replace('_', ' ')}, in the protocol's error format.",
        "source": "written by failures.py",
        "date": "2026-11",
        "server": server or {},
        "request": request,
        "expect": {"status": status, "json": _FORMATS[dialect](status, error)},
    }


if __name__ == "__main__":
    main()
