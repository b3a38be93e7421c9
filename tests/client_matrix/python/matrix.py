"""What all Python clients' tests share: texts, the expected answers by plain HTTP requests, and the 429 proxy.

No client library; standard library only.
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
LIMITED = "Rate limit reached"  # the proxy's message

QUERY = "What is the capital of the United States?"
PASSAGES = [
    "Carson City is the capital city of the American state of Nevada.",
    "Washington, D.C. is the capital of the United States.",
    "Capital punishment has existed in the United States since before it was a country.",
    "Bananas are rich in potassium.",
]
NEAREST = 1  # index of the passage most similar to the query
TEXTS = [*PASSAGES, "naïve café — 東京 🙂", "a text\nof two lines"]
UNKNOWN = "no-such-model"
WRONG_KEY = "sk-wrong-key-of-another"


def call(path: str, body: object = None, *, base: str = URL) -> object:
    """Send a POST with this body, or a GET without one; return the decoded JSON response."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(base + path, content, headers), timeout=60) as response:
        return json.loads(response.read() or b"null")


def vectors(texts: Sequence[str], **options: object) -> list[list[float]]:
    """Return the texts' vectors by a plain HTTP request."""
    body = {"model": "text-embedding-3-small", "input": list(texts), "encoding_format": "float", **options}
    return [item["embedding"] for item in call("/v1/embeddings", body)["data"]]


def scores() -> list[float]:
    """Return the passages' scores by a plain HTTP request, in the order of PASSAGES."""
    reply = call("/v2/rerank", {"model": "rerank-v3.5", "query": QUERY, "documents": PASSAGES})
    found = {item["index"]: item["relevance_score"] for item in reply["results"]}
    return [found[index] for index in range(len(PASSAGES))]


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the cosine of two vectors."""
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


def assert_vectors(texts: Sequence[str], found: Sequence[Sequence[float]], **options: object) -> None:
    """Compare vectors with those of a plain HTTP request."""
    expected = vectors(texts, **options)
    assert len(expected) == len(found)
    lowest = min(cosine(one, list(other)) for one, other in zip(expected, found, strict=True))
    assert lowest >= 0.9999


def assert_scores(found: dict[int, float] | Sequence[tuple[int, float]], *, top: int = len(PASSAGES)) -> None:
    """Compare scores by index, best first, with those of a plain HTTP request."""
    expected = scores()
    order = sorted(range(len(PASSAGES)), key=lambda index: -expected[index])[:top]
    found = dict(found)
    assert order[0] == NEAREST
    assert order == list(found)
    for index, score in found.items():
        assert math.isclose(expected[index], score, abs_tol=1e-3)


@contextmanager
def limited(times: int = 1, *, requests: int = 2) -> Iterator[None]:
    """Make the proxy reject the next requests with 429; at the end, check how many the client sent."""
    urllib.request.urlopen(f"{FLAKY_URL}/__arm?n={times}", b"", timeout=10).close()
    yield
    assert requests == call("/__count", base=FLAKY_URL)
