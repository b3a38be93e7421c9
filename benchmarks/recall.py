"""What do bytes and bits cost in retrieval? ``python benchmarks/recall.py --help``.

Embeds passages of Python's documentation with the built-in model, or another, and looks for the ten nearest of each
query: with float vectors, and with what ``embedding_types`` gives. Recall is how many of the ten are the same.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import describe, machine_facts
from ours import model_folder
from passages import passages
from reference import reference_vectors
from tables import table, write_json

from nearfar.serving.postprocess.quantization import quantize, usual_range

RESULTS = Path(__file__).parent / "results"
_NEAREST = 10
_CANDIDATES = (4 * _NEAREST, 10 * _NEAREST)  # how many the bits choose, to be sorted again
_RANGES = (2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 8)  # times 1 / sqrt(D)

Array = npt.NDArray[Any]


def main() -> None:
    """Compare the kinds of vectors, print two tables and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or a name; the built-in model by default")
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=500)
    asked = parser.parse_args()
    facts = machine_facts()
    print(describe(facts))
    texts, questions = passages(asked.passages, asked.queries)
    by_text = reference_vectors(model_folder(asked.model), [*texts, *questions])
    documents = np.stack([by_text[text] for text in texts])  # (N, D)
    queries = np.stack([by_text[text] for text in questions])  # (Q, D)
    kinds = compare_kinds(queries, documents)
    print(table(["documents", "queries", "bytes a vector", f"recall@{_NEAREST}"], kinds), end="\n\n")
    ranges = compare_ranges(queries, documents)
    print(table(["R × sqrt(D)", "R", "components clipped", f"recall@{_NEAREST}, int8"], ranges))
    write_json(RESULTS / "recall.json", {"machine": facts, "kinds": kinds, "ranges": ranges})


def compare_kinds(queries: Array, documents: Array) -> list[list[str]]:
    """Give a row for each way of storing documents and of asking them."""
    dim = documents.shape[1]
    spread = usual_range(dim)
    exact = nearest(queries @ documents.T)
    asked = {kind: quantize(queries, kind, spread) for kind in ("int8", "uint8", "ubinary")}
    stored = {kind: quantize(documents, kind, spread) for kind in ("int8", "uint8", "ubinary")}
    hamming = -distances(asked["ubinary"], stored["ubinary"])
    floats = {kind: as_floats(stored[kind], spread) for kind in ("int8", "uint8")}
    ways: list[tuple[str, str, int, Array]] = [
        ("float", "float", 4 * dim, exact),
        ("int8", "int8, whole numbers", dim, nearest(whole(asked["int8"]) @ whole(stored["int8"]).T)),
        ("int8", "int8, middles of steps", dim, nearest(as_floats(asked["int8"], spread) @ floats["int8"].T)),
        ("int8", "float", dim, nearest(queries @ floats["int8"].T)),
        ("uint8", "uint8, middles of steps", dim, nearest(as_floats(asked["uint8"], spread) @ floats["uint8"].T)),
        ("binary", "binary, Hamming distance", dim // 8, nearest(hamming)),
    ]
    better = (
        ("the bits as ±1", dim // 8, queries @ (2.0 * (documents > 0) - 1).T),
        ("int8", dim // 8 + dim, queries @ floats["int8"].T),
        ("float", dim // 8 + 4 * dim, queries @ documents.T),
    )
    for count in _CANDIDATES:
        chosen = nearest(hamming, count)
        for kept, size, closeness in better:
            ways.append((f"binary, {count} again with {kept}", "binary, then float", size, again(chosen, closeness)))
    return [[kept, query, f"{size:,}", f"{recall(found, exact):.1%}"] for kept, query, size, found in ways]


def compare_ranges(queries: Array, documents: Array) -> list[list[str]]:
    """Give a row for each R: too small a one clips, too large a one has coarse steps."""
    exact = nearest(queries @ documents.T)
    rows = []
    for times in _RANGES:
        spread = times / math.sqrt(documents.shape[1])
        asked, stored = (whole(quantize(vectors, "int8", spread)) for vectors in (queries, documents))
        clipped = float((np.abs(documents) > spread).mean())
        rows.append([f"{times}", f"{spread:.4f}", f"{clipped:.2%}", f"{recall(nearest(asked @ stored.T), exact):.1%}"])
    return rows


def nearest(closeness: Array, count: int = _NEAREST) -> Array:
    """Give the indices (Q, count) of the closest of (Q, N); of equals the first, as Hamming distances often are."""
    return np.argsort(-closeness, axis=1, kind="stable")[:, :count]


def again(chosen: Array, closeness: Array) -> Array:
    """Sort the chosen (Q, C) again by a better measure (Q, N)."""
    order = nearest(np.take_along_axis(closeness, chosen, axis=1))
    return np.take_along_axis(chosen, order, axis=1)


def distances(queries: Array, documents: Array) -> Array:
    """Count the bits (Q, N) that differ between (Q, W) and (N, W) bytes."""
    return np.stack([np.bitwise_count(documents ^ query).sum(axis=1, dtype=np.int64) for query in queries])


def whole(stored: Array) -> Array:
    """Give the bytes as numbers whose products are exact."""
    return stored.astype(np.float64)


def as_floats(stored: Array, spread: float) -> Array:
    """Give the middle of the step that each byte stands for. int8's step 0 is twice as wide as the others."""
    step = 2 * spread / 255
    values = stored.astype(np.float64)
    if stored.dtype == np.uint8:
        return (values + 0.5) * step - spread
    return np.select([values < 0, values == 0], [values, 0.5], values + 1) * step


def recall(found: Array, exact: Array) -> float:
    """Give the share of the exact ones that were found."""
    return float(np.mean([len({*row} & {*right}) / len(right) for row, right in zip(found, exact, strict=True)]))


if __name__ == "__main__":
    main()
