"""What do int8 and binary vectors, and quantized weights, cost in retrieval? ``python benchmarks/recall.py --help``.

Recall@10 is the ratio of the ten texts nearest to a query that are found as well by smaller vectors, of each of the
``embedding_types``, or with smaller weights. Without folders it embeds passages of Python's documentation with
sentence-transformers. With folders it embeds short texts with each of them on MLX, which takes minutes on Linux. Prints
tables and writes results/recall.json or results/weights.json, and a plot beside it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from engines import run_in_batches
from harness.launcher import model_folder
from harness.machine import describe, machine_facts
from harness.plot import plot_bars
from harness.reference import reference_vectors
from harness.report import RESULTS, table, write_json
from harness.workloads import passages, texts

from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.postprocess.quantization import default_range, quantize

_NEAREST = 10
_CANDIDATES = (4 * _NEAREST, 10 * _NEAREST)  # of the binary search, to be reranked
_RANGES = (2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 8)  # times 1 / sqrt(D)

Array = npt.NDArray[Any]


def main() -> None:
    """Run the benchmark, print the tables, write JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="written by `nearfar convert`")
    parser.add_argument("--model", help="the original, a folder or a name  [default: the built-in model]")
    parser.add_argument("--passages", type=int, default=5000, help="without folders")
    parser.add_argument("--texts", type=int, default=1000, help="with folders")
    parser.add_argument("--queries", type=int, help="[default: 500, or 100 with folders]")
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts))
    if arguments.folders:
        measure_weights(arguments, facts)
    else:
        measure_vectors(arguments, facts)


def measure_vectors(arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Compare vectors of each type with float ones."""
    documents, queries = passages(arguments.passages, arguments.queries or 500)
    by_text = reference_vectors(model_folder(arguments.model), [*documents, *queries])
    stored, asked = (np.stack([by_text[text] for text in some]) for some in (documents, queries))  # (N, D), (Q, D)
    kinds = compare_kinds(asked, stored)
    print(table(["documents", "queries", "bytes per vector", f"recall@{_NEAREST}"], kinds), end="\n\n")
    ranges = compare_ranges(asked, stored)
    print(table(["R × sqrt(D)", "R", "components clipped", f"recall@{_NEAREST}, int8"], ranges))
    write_json(RESULTS / "recall.json", {"machine": facts, "kinds": kinds, "ranges": ranges})
    recalls = {f"{row[0]} / {row[1]}": float(row[-1].rstrip("%")) for row in kinds}
    plot_bars({f"recall@{_NEAREST} by documents / queries": recalls}, "%", RESULTS / "recall.svg", form="%.1f")


def measure_weights(arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Compare each folder on MLX with the original by sentence-transformers; the queries are the first texts."""
    chosen, queries = texts("S", arguments.texts), arguments.queries or 100
    by_text = reference_vectors(model_folder(arguments.model), chosen)
    exact = np.stack([by_text[text] for text in chosen])
    expected = nearest_others(exact, queries)
    rows, recalls = [], {}
    for folder in arguments.folders:
        found = embed(folder, chosen)
        cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        recalls[folder.name] = recall(nearest_others(found, queries), expected)
        agreement = f"{cosines.min():.5f} / {cosines.mean():.5f}"
        rows.append([folder.name, f"{size / 1e6:.1f}", agreement, f"{recalls[folder.name]:.1%}"])
    print(table(["folder", "MB", "cosine min / mean", f"recall@{_NEAREST}"], rows))
    write_json(RESULTS / "weights.json", {"machine": facts, "rows": rows})
    plot_bars({f"recall@{_NEAREST}": recalls}, "", RESULTS / "weights.svg", form="%.3f")


def embed(folder: Path, chosen: list[str]) -> Array:
    """Return the texts' vectors (N, D) by this folder's model on MLX."""
    recipe = read_recipe(folder)
    engine = installed_engines()["mlx"].open(OpenRequest(folder=folder, recipe=recipe, device="auto", dtype="auto"))
    return run_in_batches(engine)(TextEncoder(folder, recipe).encode(chosen), engine.info.batch_tokens)


def nearest_others(vectors: Array, queries: int) -> Array:
    """Return the indices (Q, 10) of the vectors nearest to each of the first ``queries``, without itself."""
    similarity = vectors[:queries] @ vectors.T
    np.fill_diagonal(similarity, -2)
    return nearest(similarity)


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
