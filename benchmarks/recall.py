"""What do int8 and binary vectors cost in retrieval? ``python benchmarks/recall.py --help``.

Embeds passages of Python's documentation and finds the ten nearest of each query: with float vectors, and with each of
the ``embedding_types``. Recall@10 is the ratio of the ten that both find. Prints two tables and writes
results/recall.json and results/recall.svg.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from harness.launcher import model_folder
from harness.machine import describe, machine_facts
from harness.plot import plot_bars
from harness.reference import reference_vectors
from harness.report import RESULTS, table, write_json
from harness.workloads import passages

from nearfar.serving.postprocess.quantization import default_range, quantize

_NEAREST = 10
_CANDIDATES = (4 * _NEAREST, 10 * _NEAREST)  # of the binary search, to be reranked
_RANGES = (2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 8)  # times 1 / sqrt(D)

Array = npt.NDArray[Any]


def main() -> None:
    """Run the benchmark, print the tables, write JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or a name  [default: the built-in model]")
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=500)
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts))
    documents, queries = passages(arguments.passages, arguments.queries)
    by_text = reference_vectors(model_folder(arguments.model), [*documents, *queries])
    stored, asked = (np.stack([by_text[text] for text in texts]) for texts in (documents, queries))  # (N, D), (Q, D)
    kinds = compare_kinds(asked, stored)
    print(table(["documents", "queries", "bytes per vector", f"recall@{_NEAREST}"], kinds), end="\n\n")
    ranges = compare_ranges(asked, stored)
    print(table(["R × sqrt(D)", "R", "components clipped", f"recall@{_NEAREST}, int8"], ranges))
    write_json(RESULTS / "recall.json", {"machine": facts, "kinds": kinds, "ranges": ranges})
    recalls = {f"{row[0]} / {row[1]}": float(row[-1].rstrip("%")) for row in kinds}
    plot_bars({f"recall@{_NEAREST} by documents / queries": recalls}, "%", RESULTS / "recall.svg", form="%.1f")


def compare_kinds(queries: Array, documents: Array) -> list[list[str]]:
    """Return a row for each type of document and query vectors."""
    dim = documents.shape[1]
    limit = default_range(dim)
    exact = nearest(queries @ documents.T)
    asked = {kind: quantize(queries, kind, limit) for kind in ("int8", "uint8", "ubinary")}
    stored = {kind: quantize(documents, kind, limit) for kind in ("int8", "uint8", "ubinary")}
    hamming = -hamming_distances(asked["ubinary"], stored["ubinary"])
    floats = {kind: dequantized(stored[kind], limit) for kind in ("int8", "uint8")}
    rows: list[tuple[str, str, int, Array]] = [
        ("float", "float", 4 * dim, exact),
        ("int8", "int8, raw integers", dim, nearest(_integers(asked["int8"]) @ _integers(stored["int8"]).T)),
        ("int8", "int8, dequantized", dim, nearest(dequantized(asked["int8"], limit) @ floats["int8"].T)),
        ("int8", "float", dim, nearest(queries @ floats["int8"].T)),
        ("uint8", "uint8, dequantized", dim, nearest(dequantized(asked["uint8"], limit) @ floats["uint8"].T)),
        ("binary", "binary, Hamming distance", dim // 8, nearest(hamming)),
    ]
    rerankers = (
        ("bits as ±1", dim // 8, queries @ (2.0 * (documents > 0) - 1).T),
        ("int8", dim // 8 + dim, queries @ floats["int8"].T),
        ("float", dim // 8 + 4 * dim, queries @ documents.T),
    )
    for count in _CANDIDATES:
        candidates = nearest(hamming, count)
        for kind, size, similarity in rerankers:
            name = f"binary, {count} reranked with {kind}"
            rows.append((name, "binary, then float", size, rerank(candidates, similarity)))
    return [[name, query, f"{size:,}", f"{recall(found, exact):.1%}"] for name, query, size, found in rows]


def compare_ranges(queries: Array, documents: Array) -> list[list[str]]:
    """Return a row for each range R: a small one clips, a large one has coarse steps."""
    exact = nearest(queries @ documents.T)
    rows = []
    for times in _RANGES:
        limit = times / math.sqrt(documents.shape[1])
        asked, stored = (_integers(quantize(vectors, "int8", limit)) for vectors in (queries, documents))
        clipped = float((np.abs(documents) > limit).mean())
        rows.append([f"{times}", f"{limit:.4f}", f"{clipped:.2%}", f"{recall(nearest(asked @ stored.T), exact):.1%}"])
    return rows


def nearest(similarity: Array, count: int = _NEAREST) -> Array:
    """Return the indices (Q, count) of the most similar of (Q, N). Ties, as in Hamming distances, keep their order."""
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def rerank(candidates: Array, similarity: Array) -> Array:
    """Return the candidates (Q, C) sorted by a more exact similarity (Q, N)."""
    order = nearest(np.take_along_axis(similarity, candidates, axis=1))
    return np.take_along_axis(candidates, order, axis=1)


def hamming_distances(queries: Array, documents: Array) -> Array:
    """Return the number of bits (Q, N) that differ between (Q, W) and (N, W) bytes."""
    return np.stack([np.bitwise_count(documents ^ query).sum(axis=1, dtype=np.int64) for query in queries])


def _integers(stored: Array) -> Array:
    return stored.astype(np.float64)  # in which their products are exact


def dequantized(stored: Array, limit: float) -> Array:
    """Return the midpoint of each byte's quantization step. int8's step 0 is twice as wide as the others."""
    step = 2 * limit / 255
    values = stored.astype(np.float64)
    if stored.dtype == np.uint8:
        return (values + 0.5) * step - limit
    return np.select([values < 0, values == 0], [values, 0.5], values + 1) * step


def recall(found: Array, exact: Array) -> float:
    """Return the ratio of the exact results that were found."""
    return float(np.mean([len({*row} & {*right}) / len(right) for row, right in zip(found, exact, strict=True)]))


if __name__ == "__main__":
    main()
