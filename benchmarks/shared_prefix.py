"""What does computing a shared prefix once save in an LLM reranker? ``python benchmarks/shared_prefix.py --help``.

A seeded Qwen3 reranks documents for one query, on random token ids as long as Qwen3-Reranker's prompts. It scores them
one by one, in batches that repeat the prefix with every document, and in batches that compute it once (not every engine
can). By default on one core, by CPU time, so that other processes matter little; ``--cores`` measures wall time on all
cores. Prints a table and writes results/shared_prefix.json and results/shared_prefix.svg.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness.machine import describe, machine_facts
from harness.plot import plot_bars
from harness.report import RESULTS, number, table, write_json

from nearfar.engines.base import OpenRequest
from nearfar.engines.common.prefixes import token_costs
from nearfar.engines.selection import installed_engines
from nearfar.models.recipe.recipe import AnswerTokens, LlmReranker, PairPrompt, Recipe
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.scheduler import group_by_length

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from nearfar.engines.base import Engine

    Scores = npt.NDArray[np.float32]
    Clock = Callable[[], float]

# Tokens of Qwen3-Reranker's prompt, counted with cl100k, which its vocabulary extends: the system message and the
# instruction, the text around the query, and the text after the document.
BEFORE, AFTER = 39 + 24, 9
VOCABULARY = 8000  # its size doesn't affect the time: a token reads one row of the embedding table


def write_model(folder: Path, hidden: int, layers: int) -> Recipe:
    """Write a seeded Qwen3 and return its recipe."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen3",
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        head_dim=64,
        intermediate_size=3 * hidden,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        pad_token_id=0,
        initializer_range=0.06,  # with the default 0.02, all scores are nearly the same
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    reranker = LlmReranker(PairPrompt(segments=("{query}{document}",)), AnswerTokens(5, 6))
    return Recipe(
        architecture="Qwen3ForCausalLM",
        model_type="qwen3",
        task="score",
        max_tokens=4096,
        hidden_size=hidden,
        pad_token_id=0,
        llm_reranker=reranker,
    )


def make_rows(count: int, query: int, document: int, seed: int = 0) -> list[Row]:
    """Return rows of one query with ``count`` documents; their lengths are log-normal with median ``document``."""
    rng = np.random.default_rng(seed)
    prefix, suffix = (rng.integers(10, VOCABULARY, length).tolist() for length in (BEFORE + query, AFTER))
    lengths = np.maximum(rng.lognormal(np.log(document), 0.4, count), 1).astype(int)
    documents = (rng.integers(10, VOCABULARY, length).tolist() for length in lengths)
    return [Row([*prefix, *ids, *suffix], None, len(ids), 0) for ids in documents]


def score_batches(engine: Engine, rows: Sequence[Row], batches: Sequence[Sequence[int]], threads: int) -> Scores:
    """Score the rows batch by batch, ``threads`` at once."""
    scores = np.empty(len(rows), dtype=np.float32)

    def run(batch: Sequence[int]) -> None:
        scores[list(batch)] = engine.score([rows[index] for index in batch])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, batches))
    return scores


def methods(engine: Engine, rows: Sequence[Row], threads: int) -> dict[str, Callable[[], Scores]]:
    """Return the methods of scoring that the engine supports, by name."""
    info, lengths = engine.info, [len(row.ids) for row in rows]
    full = group_by_length(lengths, info.batch_tokens, info.max_padding if info.padded else None)
    found = {
        "one by one": lambda: score_batches(engine, rows, [[index] for index in range(len(rows))], 1),
        "batches": lambda: _without_sharing(engine, lambda: score_batches(engine, rows, full, threads)),
    }
    if info.shares_prefixes:
        shared = group_by_length(token_costs(rows), info.batch_tokens, None)
        found["shared"] = lambda: score_batches(engine, rows, shared, threads)
        found["shared, one batch"] = lambda: score_batches(engine, rows, [range(len(rows))], 1)
    return found


def _without_sharing(engine: Engine, call: Callable[[], Scores]) -> Scores:
    """Run the call with prefix sharing switched off, on engines that have it."""
    model: Any = getattr(engine, "_model", None)
    if not hasattr(model, "shares_prefixes"):
        return call()
    model.shares_prefixes = False
    try:
        return call()
    finally:
        model.shares_prefixes = engine.info.shares_prefixes


def measure(
    engine: Engine, rows: Sequence[Row], rounds: int, clock: Clock, threads: int
) -> dict[str, tuple[float, float]]:
    """Return each method's median seconds and largest score difference to "one by one", in interleaved rounds."""
    seconds: dict[str, list[float]] = {}
    scores: dict[str, Scores] = {}
    for _ in range(rounds):
        for name, call in methods(engine, rows, threads).items():
            start = clock()
            scores[name] = call()
            seconds.setdefault(name, []).append(clock() - start)
    exact = scores["one by one"]
    return {name: (statistics.median(times), float(abs(scores[name] - exact).max())) for name, times in seconds.items()}


def open_engine(name: str, folder: Path, recipe: Recipe, threads: int | None) -> Engine:
    """Open an engine on the seeded model in float32 on the CPU."""
    probes = make_rows(4, 12, 20, seed=1)
    return installed_engines()[name].open(
        OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=probes, threads=threads)
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 50, 100, 200], help="of documents, in tokens")
    parser.add_argument("--queries", type=int, nargs="+", default=[12], help="lengths of the query, in tokens")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--cores", action="store_true", help="measure wall time on all cores")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark, print the table, write JSON and plot."""
    arguments = parse_arguments()
    facts = machine_facts()
    print(describe(facts))
    clock = time.perf_counter if arguments.cores else time.process_time
    rows: list[list[str]] = []
    panels: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_model(Path(folder), arguments.hidden, arguments.layers)
        for name in arguments.engines:
            engine = open_engine(name, Path(folder), recipe, None if arguments.cores else 1)
            threads = engine.info.max_concurrent_batches if arguments.cores else 1
            for query, document in itertools.product(arguments.queries, arguments.lengths):
                pairs = make_rows(arguments.documents, query, document)
                found = measure(engine, pairs, arguments.rounds, clock, threads)
                one_by_one, _ = found["one by one"]
                for method, (seconds, difference) in found.items():
                    speedup = panels.setdefault(f"{query} + {document} tokens", {})
                    speedup[f"{name} {method}"] = one_by_one / seconds
                    figures = [number(seconds), number(arguments.documents / seconds), f"{one_by_one / seconds:.2f}"]
                    rows.append([f"{name} {method}", str(query), str(document), *figures, f"{difference:.0e}"])
                    print(".", end="", flush=True)
    print()
    header = ["engine, method", "query", "document", "s", "documents/s", "× one by one", "score difference"]
    print(table(header, rows))
    write_json(RESULTS / "shared_prefix.json", {"machine": facts, "arguments": vars(arguments), "rows": rows})
    plot_bars(panels, "× one by one", RESULTS / "shared_prefix.svg", form="%.2f")


if __name__ == "__main__":
    main()
