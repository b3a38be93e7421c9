"""What is masked in a path before it is logged: keys, and nothing that names a model."""

from __future__ import annotations

import secrets
import uuid

import pytest

from nearfar.http.gate.keys import make_key
from nearfar.telemetry.masking import KeyMask

OWN = "correct/horse=battery"
KNOWN = b"a-known-key"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r"


@pytest.fixture
def mask() -> KeyMask:
    return KeyMask(OWN, KNOWN.__eq__)


KEYS = [OWN, KNOWN.decode(), JWT, str(uuid.UUID(int=5)), *(make_key("x")[0] for _ in range(20))]
KEYS += [f"sk-{secrets.token_hex(24)}", f"sk-proj-{secrets.token_urlsafe(60)}", f"hf_{'abcdefgh' * 4}"]
KEYS += [secrets.token_urlsafe(32) for _ in range(20)] + [secrets.token_hex(32) for _ in range(20)]
PLACES = [
    "/{}",
    "/v1/models/{}",
    "/v1/{}/embeddings",
    "/x?key={}",
    "/x%3Fkey%3D{}",
    "/v1/Bearer {}",
    "/v1/api_key={}&x=1",
]


def test_keys_are_masked_wherever_they_are(mask: KeyMask) -> None:
    paths = [(place.format(key), key) for place in PLACES for key in KEYS]

    assert not [path for path, key in paths if key in (masked := mask.mask(path, 300)) or key[:12] in masked]


@pytest.mark.parametrize("cut", range(8, 60, 7))
def test_no_part_of_a_key_is_left_where_the_cut_divides_it(mask: KeyMask, cut: int) -> None:
    key, _ = make_key("x")

    assert "nf-" not in mask.mask(f"/v1/models/{key}", cut)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/embeddings",
        "/v1/models/sentence-transformers/all-MiniLM-L6-v2",
        "/v1/models/sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        "/v1/models/Snowflake/snowflake-arctic-embed-l-v2.0",
        "/v1/models/Qwen/Qwen3-Embedding-0.6B-GGUF",
        "/v1/models/Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        "/v1/models/text-embedding-3-small",
        "/openai/deployments/text-embedding-ada-002/embeddings",
        "/v1/models/jinaai/jina-embeddings-v2-base-code",
        "/v1/models/mixedbread-ai/mxbai-rerank-large-v2",
        "/docs/manual/operations",
        "/v1/nothing at all",
    ],
)
def test_names_of_models_and_routes_stay(mask: KeyMask, path: str) -> None:
    assert path == mask.mask(path, 200)
