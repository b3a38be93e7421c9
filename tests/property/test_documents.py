"""Whatever the documents allow is sent, made up by schemathesis, and what comes back must be what they say.

One is our own; the other is OpenAI's. A longer run: ``pytest tests/conformance --hypothesis-profile long``.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from checkpoints import write_transformer
from hypothesis import HealthCheck, assume, settings
from openapi_document import DOCUMENT, faults
from schemathesis.config import SchemathesisConfig
from server_process import ServerProcess
from small_models import write_colbert, write_splade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis.specs.openapi.schemas import OpenApiSchema

BUILTIN = "sentence-transformers/all-MiniLM-L6-v2"
NAMES = ["text-embedding-3-small", BUILTIN, "colbert", "splade", "classifier"]

# What a schema can't tell, as it depends on the model that is named, or on two fields together: the only reasons to
# refuse what it allows.
REFUSED_FOR = re.compile(
    r"takes no instruction|has no prompt|for this model(,| -)|what this model can give|no token this model knows"
    # Where none may be cut.
    r"|maximum of \d+ tokens|at most \d+ tokens|too many tokens|tokens; at most \d+ are allowed"
    r"|is not a token id of|in this model's vocabulary|model '[^']*' can't"
    r"|is not (a|an) [\w -]+ model|not allowed to generate embeddings from this model|does not support (embed|rerank)"
    r"|is not served here; add it|Expected `str . array`, got `int`"
    r"|'dimensions' = \d+. Must be less|Input lengths must be|number of total max chunks"
    r"|document at index \d+ cannot be empty"
)

# Words at which the fake engine fails, as it is meant to.
FAULTS = re.compile("boom|nan|zero|few|quit|hang|giant", re.IGNORECASE)

CONFIG = {
    "generation": {"mode": "positive", "with-security-parameters": False},
    "checks": {
        "ignored_auth": {"enabled": False},  # this server asks for no key
        "positive_data_acceptance": {"enabled": False},  # held against REFUSED_FOR below
    },
}


def _loaded(document: dict[str, Any]) -> OpenApiSchema:
    """Load a document, in which whatever names a model names one of those that are served, or none."""
    document = copy.deepcopy(document)
    document.pop("servers")
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request") and "model" in schema["properties"]:
            schema["properties"]["model"] = {"enum": NAMES}
    return schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))


ours = _loaded(DOCUMENT).exclude(path_regex=r"^/v1/v[12]/")  # second names of other paths
theirs = _loaded(schemathesis.openapi.from_path(Path(__file__).parent / "openai.openapi.yaml").raw_schema)

examples = settings(
    max_examples=settings().max_examples // 5,
    derandomize=settings().max_examples <= 100,
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a model for every task, and give the address."""
    folder = tmp_path_factory.mktemp("models")
    write_colbert(folder / "colbert", "bert")
    write_splade(folder / "trunk" / "splade", "bert")
    write_transformer(folder / "classifier", "bert", labels=2)
    tiny = [folder / "colbert", folder / "trunk" / "splade", folder / "classifier"]
    models = [(BUILTIN, "fake"), *((str(path), "torch") for path in tiny)]
    config = folder / "nearfar.toml"
    config.write_text("".join(f'[[models]]\nname = "{name}"\nengine = "{engine}"\n' for name, engine in models))
    with ServerProcess("--config", str(config), "--device", "cpu") as server:
        yield server.url


@ours.parametrize()
@examples
def test_what_our_document_allows_is_answered_as_it_says(case: schemathesis.Case[Any], url: str) -> None:
    case.body = _whole(case.body)
    assume(not FAULTS.search(repr(case.body)))

    response = case.call_and_validate(base_url=url)

    assert response.status_code < 500
    is_refused = response.status_code in {400, 422} and not REFUSED_FOR.search(response.text)
    if is_refused and _is_allowed(case):  # what schemathesis makes up isn't always what the schema allows
        pytest.fail(f"what the document allows is refused: {case.body!r}: {response.text}")


@theirs.parametrize()
@examples
def test_what_openai_s_document_allows_is_answered_as_it_says(case: schemathesis.Case[Any], url: str) -> None:
    case.body = _whole(case.body)
    assume(not FAULTS.search(repr(case.body)))

    response = case.call_and_validate(base_url=f"{url}/v1")

    assert response.status_code < 500


def _is_allowed(case: schemathesis.Case[Any]) -> bool:
    operation = DOCUMENT["paths"][case.operation.path][case.operation.method]
    return "requestBody" not in operation or not faults(
        operation["requestBody"]["content"]["application/json"]["schema"], case.body, is_ours=False
    )


def _whole(value: Any) -> Any:
    """Write whole numbers without a fraction, as clients do: 1.0 is an integer to JSON Schema, and none to msgspec."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value
