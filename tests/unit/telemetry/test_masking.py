"""What is masked in a path before it is logged: keys, and nothing that names a model."""

from __future__ import annotations

import logging
import secrets
import sys
import time
import uuid

import pytest

from nearfar.http.gate.keys import make_key
from nearfar.telemetry.logs import HumanLines, JsonLines
from nearfar.telemetry.masking import KeyMask

OWN = "correct/horse=battery"
KNOWN = b"a-known-key"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r"


@pytest.fixture
def mask() -> KeyMask:
    return KeyMask(OWN, KNOWN.__eq__)


KEYS = [OWN, KNOWN.decode(), JWT, str(uuid.UUID(int=5)), *(make_key("x")[0] for _ in range(20))]
KEYS += [f"sk-{secrets.token_hex(24)}", f"sk-proj-{secrets.token_urlsafe(60)}", f"hf_{'abcdefgh' * 4}"]
KEYS += [f"HF_{'ABCDEFGH' * 4}"]
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


def _encoded(key: str, times: int) -> str:
    encoded = "".join(f"%{ord(char):02X}" for char in key)
    for _ in range(times - 1):
        encoded = encoded.replace("%", "%25")
    return encoded


OWN_KEY = "nf-" + "Ab3_xY9-" * 5 + "q1Z"
HIDDEN = ["{0}", "{upper}", "{lower}", "{half}/{rest}", "{half}%2F{rest}", "{half} {rest}", "{half}\0{rest}", "x{0}y"]
HIDDEN += ["{half}\u200b{rest}", "{half}.{rest}", "{once}", "{twice}", "{five}", "{half}/{quarter}/{last}"]


@pytest.mark.parametrize("form", HIDDEN)
@pytest.mark.parametrize("key", [OWN, OWN_KEY])
def test_a_key_is_masked_in_other_cases_divided_and_encoded(mask: KeyMask, key: str, form: str) -> None:
    middle, half, three = len(key) // 2, key[: len(key) // 2], len(key) * 3 // 4
    parts = {"half": half, "rest": key[middle:], "quarter": key[middle:three], "last": key[three:]}
    encoded = {"once": _encoded(key, 1), "twice": _encoded(key, 2), "five": _encoded(key, 5)}
    path = "/v1/models/" + form.format(key, upper=key.upper(), lower=key.lower(), **parts, **encoded)

    masked = mask.mask(path, 300).lower()

    assert "***" in masked
    assert not [part for part in parts.values() if part.lower() in masked]


@pytest.mark.parametrize("path", ["/v1/a-kno/wn-key", "/a-known-key/x", "/a/-known/-key", "/%61-known-key"])
def test_a_hashed_key_is_masked_where_slashes_divide_it(mask: KeyMask, path: str) -> None:
    masked = mask.mask(path, 300)

    assert "***" in masked
    assert "known" not in masked


def test_in_an_id_keys_are_masked_and_other_ids_stay(mask: KeyMask) -> None:
    ids = [str(uuid.UUID(int=5)), secrets.token_hex(16), "req_1", "a" * 128, "checkout-nf.7", "nf-embed"]
    ids += ["the model nf-e5-small.v2 is loaded", "nf-lab/bge-m3: 12 texts in 3 batches of one request for nf-lab"]
    ids += ["set HF_HUB_DISABLE_XET=1 to download without it"]

    assert ids == [mask.mask_known(name) for name in ids]
    assert not [key for key in [OWN, OWN_KEY, KNOWN.decode(), JWT] if key[4:] in mask.mask_known(key)]


def test_a_record_is_logged_without_keys(mask: KeyMask) -> None:
    try:
        raise ValueError(OWN, OWN_KEY)  # noqa: TRY301 — a traceback is wanted
    except ValueError:
        record = logging.LogRecord("nearfar", logging.ERROR, "", 1, "request %s failed", (OWN_KEY,), sys.exc_info())

    mask.filter(record)

    lines = HumanLines().format(record) + JsonLines().format(record)
    assert 2 == lines.count("request *** failed")
    assert 2 == lines.count("ValueError: ('***', '***')")


def test_a_long_path_takes_no_time(mask: KeyMask) -> None:
    """Each of these took over a second with a pattern that tries every way to divide it."""
    paths = ["/a" * 500_000, "c/" * 500_000, "/" * 1_000_000, "%25" * 300_000, "nf-" * 300_000, "co/" * 300_000]
    began = time.process_time()

    masked = [mask.mask(path, 200) for path in paths]

    assert 200 >= max(map(len, masked))
    assert time.process_time() - began < 1


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
        "/v1/models/nf-embed",
        "/v1/models/nf-lab/paraphrase-multilingual-MiniLM-L12-v2",
        "/openai/deployments/nf-e5-small.v2/embeddings",
    ],
)
def test_names_of_models_and_routes_stay(mask: KeyMask, path: str) -> None:
    assert path == mask.mask(path, 200)
