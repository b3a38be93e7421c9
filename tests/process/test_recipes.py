"""The settings of the manual's recipes work: what each app sends with them is answered as the app reads it.

Addresses, models and templates come from the page; the form of each body from the app's source.
"""

from __future__ import annotations

import json
import re
from string import Template
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from manual import blocks, codes, tables

if TYPE_CHECKING:
    from server_process import ServerProcess

ADDRESS = "http://127.0.0.1:9000"
TEXTS = ["Bananas are yellow.", "The cat sat on the mat."]
QUERY = "Where is the cat?"
FIELDS = tables("recipes", "| app | where | field | value |")


def post(server: ServerProcess, url: str, body: object, key: str = "unused") -> Any:
    """Send a body to an address of the page; return the answer."""
    assert url.startswith(ADDRESS)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    content = body if isinstance(body, str) else json.dumps(body)
    answer = httpx.post(url.replace(ADDRESS, server.url), content=content, headers=headers, timeout=60)
    return answer.raise_for_status().json()


def assert_embeds(server: ServerProcess, base: str, model: str, **fields: object) -> None:
    """Embed as OpenAI's clients do below their base URL."""
    found = post(server, f"{base}/embeddings", {"model": model, "input": TEXTS, **fields})

    assert [0, 1] == [item["index"] for item in found["data"]]
    assert all(item["embedding"] for item in found["data"])


def assert_ranks(server: ServerProcess, url: str, model: str, **fields: object) -> None:
    """Rank as Cohere's clients do."""
    found = post(server, url, {"model": model, "query": QUERY, "documents": TEXTS, **fields})

    assert [1, 0] == [item["index"] for item in found["results"]]
    assert all(0 <= item["relevance_score"] <= 1 for item in found["results"])


def fields_of(app: str) -> list[tuple[str, str]]:
    """Return an app's fields and their values."""
    return [(field, codes(value)[0]) for name, _, field, value in FIELDS if name == app]


def settings_of(service: str) -> dict[str, Any]:
    """Return the settings of the one JSON block with this text."""
    [block] = [block for block in blocks("json") if block.page == "recipes" and service in block.code]
    settings: dict[str, Any] = json.loads(block.code)
    return settings


def test_open_webui(server: ServerProcess) -> None:
    [code] = [block.code for block in blocks("sh") if "RAG_EMBEDDING_ENGINE" in block.code]
    set_ = dict(line.split("=", 1) for line in code.splitlines())

    assert_embeds(server, set_["RAG_OPENAI_API_BASE_URL"], set_["RAG_EMBEDDING_MODEL"])
    assert_ranks(server, set_["RAG_EXTERNAL_RERANKER_URL"], set_["RAG_RERANKING_MODEL"], top_n=2)
    assert ("openai", "external", "true") == (
        set_["RAG_EMBEDDING_ENGINE"],
        set_["RAG_RERANKING_ENGINE"],
        set_["ENABLE_RAG_HYBRID_SEARCH"],
    )


def test_continue(server: ServerProcess) -> None:
    [config] = [yaml.safe_load(block.code) for block in blocks("yaml") if block.page == "recipes"]
    [embedder, reranker] = config["models"]

    assert_embeds(server, embedder["apiBase"], embedder["model"], encoding_format="base64")
    for base in (reranker["apiBase"], ADDRESS):  # its adapters take the address' last part away without a slash there
        assert_ranks(server, f"{base}/rerank", reranker["model"])
    assert ["openai", "cohere"] == [embedder["provider"], reranker["provider"]]


def test_dify(server: ServerProcess) -> None:
    """It embeds one text at a time, and asks for the documents again."""
    [(_, embedder), (_, base), (_, context), (_, reranker), (_, ranked)] = fields_of("Dify")
    body = {"model": reranker, "query": QUERY, "documents": TEXTS, "top_n": 3}

    found = post(server, f"{base}/embeddings", {"model": embedder, "input": TEXTS[0], "encoding_format": "float"})
    ranking = post(server, f"{ranked}/rerank", body | {"return_documents": True, "score_threshold": 0.8})

    assert 384 == len(found["data"][0]["embedding"])
    assert found["usage"]["prompt_tokens"] > 0
    assert TEXTS[::-1] == [item["document"]["text"] for item in ranking["results"]]
    assert context == str(httpx.get(f"{server.url}/info").json()["max_input_length"])


@pytest.mark.parametrize(
    ("app", "address", "model"),
    [
        ("AnythingLLM", "Base URL", "Embedding Model"),
        ("n8n", "Base URL", "Model, as an expression"),
        ("Flowise", "Base Path", "Model Name"),
    ],
)
def test_apps_with_openai_s_client_for_node(server: ServerProcess, app: str, address: str, model: str) -> None:
    fields = dict(fields_of(app))

    assert_embeds(server, fields[address], fields[model], encoding_format="base64")


def test_every_app_of_the_table_is_tested() -> None:
    assert {"Dify", "AnythingLLM", "n8n", "Flowise"} == {app for app, *_ in FIELDS}


def test_elasticsearch_embeds(server: ServerProcess) -> None:
    settings = settings_of('"service": "openai"')["service_settings"]

    found = post(server, settings["url"], {"input": TEXTS, "model": settings["model_id"]}, settings["api_key"])

    assert [384, 384] == [len(item["embedding"]) for item in found["data"]]


def test_elasticsearch_ranks_with_the_template_and_reads_the_answer_by_its_paths(server: ServerProcess) -> None:
    settings = settings_of('"service": "custom"')["service_settings"]
    body = Template(settings["request"]).substitute(query=json.dumps(QUERY), input=json.dumps(TEXTS))

    found = post(server, settings["url"], body, settings["secret_parameters"]["api_key"])

    paths = settings["response"]["json_parser"]
    assert [1, 0] == at_path(found, paths["reranked_index"])
    assert all(0 <= score <= 1 for score in at_path(found, paths["relevance_score"]))


def at_path(value: Any, path: str) -> list[Any]:
    """Return what a path of the form ``$.list[*].field`` finds."""
    match = re.fullmatch(r"\$\.(\w+)\[\*\]\.(\w+)", path)
    assert match
    return [item[match[2]] for item in value[match[1]]]


def test_opensearch_embeds_with_the_connector_s_template(server: ServerProcess) -> None:
    connector = settings_of("connector.pre_process.openai.embedding")
    [action] = connector["actions"]
    body = action["request_body"].replace("${parameters.input}", json.dumps(TEXTS))

    found = post(server, action["url"], body.replace("${parameters.model}", connector["parameters"]["model"]))

    assert [384, 384] == [len(item["embedding"]) for item in found["data"]]
