"""What does quantizing a model's weights for MLX cost in retrieval? ``python benchmarks/quantized.py --help``.

Embeds texts with sentence-transformers in float32 and with each folder on MLX, and compares cosines and recall@10. On
Linux MLX computes a hundred tokens a second, so this takes minutes. Prints a table and writes results/quantized.json
and results/quantized.svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness.launcher import model_folder
from harness.machine import describe, machine_facts
from harness.plot import plot_bars
from harness.reference import reference_vectors
from harness.report import RESULTS, table, write_json
from harness.workloads import texts

from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.queue.batching import group_by_length

_NEAREST = 10

Array = npt.NDArray[np.float32]


def embed(folder: Path, chosen: list[str]) -> Array:
    """Return the texts' vectors (N, D) by this folder's model on MLX."""
    recipe = read_recipe(folder)
    engine = installed_engines()["mlx"].open(OpenRequest(folder=folder, recipe=recipe, device="auto", dtype="auto"))
    rows = TextEncoder(folder, recipe).encode(chosen)
    found = np.empty((len(rows), recipe.dim), dtype=np.float32)
    for group in group_by_length([len(row.ids) for row in rows], engine.info.batch_tokens, engine.info.max_padding):
        found[group] = engine.embed([rows[at] for at in group])
        print(".", end="", flush=True)
    print(flush=True)
    return found


def nearest(vectors: Array, queries: int) -> npt.NDArray[np.int64]:
    """Return the indices (Q, 10) of the texts nearest to each of the first ``queries`` texts, except itself."""
    similarity = vectors[:queries] @ vectors.T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1)[:, :_NEAREST]


def main() -> None:
    """Run the benchmark, print the table, write JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="written by `nearfar convert`")
    parser.add_argument("--model", help="the original, a folder  [default: the built-in model]")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=100)
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts))
    chosen = texts("S", arguments.texts)
    by_text = reference_vectors(model_folder(arguments.model), chosen)
    exact = np.stack([by_text[text] for text in chosen])
    expected = nearest(exact, arguments.queries)
    rows, recall = [], {}
    for folder in arguments.folders:
        found = embed(folder, chosen)
        cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
        same = [len({*a} & {*b}) for a, b in zip(nearest(found, arguments.queries), expected, strict=True)]
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        recall[folder.name] = float(np.mean(same)) / _NEAREST
        agreement = f"{cosines.min():.5f} / {cosines.mean():.5f}"
        rows.append([folder.name, f"{size / 1e6:.1f}", agreement, f"{recall[folder.name]:.1%}"])
    print(table(["folder", "MB", "cosine min / mean", f"recall@{_NEAREST}"], rows))
    write_json(RESULTS / "quantized.json", {"machine": facts, "rows": rows})
    plot_bars({f"recall@{_NEAREST}": recall}, "", RESULTS / "quantized.svg", form="%.3f")


if __name__ == "__main__":
    main()
