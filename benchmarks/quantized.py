"""What does quantising a model for MLX cost in retrieval? ``python benchmarks/quantized.py --help``.

Embeds texts with sentence-transformers in float32 and with each folder on MLX, and compares: cosines, and how many of a
query's ten nearest texts are the same. On Linux MLX computes a hundred tokens a second, so this takes minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import describe, machine_facts
from ours import model_folder
from reference import reference_vectors
from tables import table, write_json
from workloads import texts

from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.queue.batching import plan

RESULTS = Path(__file__).parent / "results"
_NEAREST = 10

Array = npt.NDArray[np.float32]


def embed(folder: Path, chosen: list[str]) -> Array:
    """Give (N, D) vectors of the folder on MLX."""
    recipe = read_recipe(folder)
    engine = installed_engines()["mlx"].open(OpenRequest(folder=folder, recipe=recipe, device="auto", dtype="auto"))
    rows = TextEncoder(folder, recipe).encode(chosen)
    found = np.empty((len(rows), recipe.dim), dtype=np.float32)
    for group in plan([len(row.ids) for row in rows], engine.info.batch_tokens, engine.info.max_padding):
        found[group] = engine.embed([rows[at] for at in group])
        print(".", end="", flush=True)
    print(flush=True)
    return found


def nearest(vectors: Array, queries: int) -> npt.NDArray[np.int64]:
    """Give the indices (Q, 10) of the texts nearest to each of the first ``queries``, themselves left out."""
    closeness = vectors[:queries] @ vectors.T
    np.fill_diagonal(closeness, -2)
    return np.argsort(-closeness, axis=1)[:, :_NEAREST]


def main() -> None:
    """Compare the folders, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="made by nearfar convert")
    parser.add_argument("--model", help="the original, a folder; the built-in model by default")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=100)
    asked = parser.parse_args()
    facts = machine_facts()
    print(describe(facts))
    chosen = texts("S", asked.texts)
    by_text = reference_vectors(model_folder(asked.model), chosen)
    exact = np.stack([by_text[text] for text in chosen])
    right = nearest(exact, asked.queries)
    rows = []
    for folder in asked.folders:
        found = embed(folder, chosen)
        cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
        same = [len({*a} & {*b}) for a, b in zip(nearest(found, asked.queries), right, strict=True)]
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        agreement = f"{cosines.min():.5f} / {cosines.mean():.5f}"
        rows.append([folder.name, f"{size / 1e6:.1f}", agreement, f"{np.mean(same) / _NEAREST:.1%}"])
    print(table(["folder", "MB", "cosine min / mean", f"same among the {_NEAREST} nearest"], rows))
    write_json(RESULTS / "quantized.json", {"machine": facts, "rows": rows})


if __name__ == "__main__":
    main()
