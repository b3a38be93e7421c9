"""What the rows share: texts, what a plain HTTP call answers to them, and the proxy that says 429.

Nothing here knows any client, and nothing but the standard library is imported.
"""

import json
import math
import os
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

URL = os.environ["NEARFAR_URL"]
KEY = os.environ["NEARFAR_KEY"]
FLAKY_URL = os.environ["NEARFAR_FLAKY_URL"]
LIMITED = "Rate limit reached"  # what the proxy says

QUERY = "What is the capital of the United States?"
PASSAGES = [
    "Carson City is the capital city of the American state of Nevada.",
    "Washington, D.C. is the capital of the United States.",
    "Capital punishment has existed in the United States since before it was a country.",
    "Bananas are rich in potassium.",
]
NEAREST = 1  # of the passages, to the query
TEXTS = [*PASSAGES, "naïve café — 東京 🙂", "a text\nof two lines"]
UNKNOWN = "no-such-model"
WRONG_KEY = "sk-wrong-key-of-somebody"


def call(path: str, body: object = None, *, base: str = URL) -> object:
    """Send what is given, or GET; give the answer."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(base + path, content, headers), timeout=60) as reply:
        return json.loads(reply.read() or b"null")


def vectors(texts: Sequence[str], **options: object) -> list[list[float]]:
    """Give the texts' vectors as a plain call gets them."""
    asked = {"model": "text-embedding-3-small", "input": list(texts), "encoding_format": "float", **options}
    return [item["embedding"] for item in call("/v1/embeddings", asked)["data"]]


def scores() -> list[float]:
    """Give each passage's score, in the passages' order, as a plain call gets it."""
    reply = call("/v2/rerank", {"model": "rerank-v3.5", "query": QUERY, "documents": PASSAGES})
    found = {item["index"]: item["relevance_score"] for item in reply["results"]}
    return [found[index] for index in range(len(PASSAGES))]


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Give the cosine of two vectors of the same length."""
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


def assert_vectors(texts: Sequence[str], found: Sequence[Sequence[float]], **options: object) -> None:
    """Hold vectors against those of a plain call."""
    expected = vectors(texts, **options)
    assert len(expected) == len(found)
    least = min(cosine(one, list(other)) for one, other in zip(expected, found, strict=True))
    assert least >= 0.9999


def assert_scores(found: dict[int, float] | Sequence[tuple[int, float]], *, top: int = len(PASSAGES)) -> None:
    """Hold scores by index, best first, against those of a plain call."""
    expected = scores()
    order = sorted(range(len(PASSAGES)), key=lambda index: -expected[index])[:top]
    found = dict(found)
    assert order[0] == NEAREST
    assert order == list(found)
    for index, score in found.items():
        assert math.isclose(expected[index], score, abs_tol=1e-3)


@contextmanager
def limited(times: int = 1, *, requests: int = 2) -> Iterator[None]:
    """Let the proxy answer the next request with 429; at the end hold how many were sent."""
    urllib.request.urlopen(f"{FLAKY_URL}/__arm?n={times}", b"", timeout=10).close()
    yield
    assert requests == call("/__count", base=FLAKY_URL)
