"""What does it save to compute a question once for all its documents? ``python benchmarks/judges.py --help``.

A seeded Qwen3 of middling size reranks documents for one query, on rows of random ids as long as Qwen3-Reranker's: one
document after another, in batches that each hold the question with every document, and in batches that hold it once.
All are run on one core and timed by what that core spent on them, so that neighbours count for little; Torch by itself
in the three ways, OpenVINO in the two that it has. ``--cores`` times the whole machine instead, batches side by side.
Prints a table and writes results/judges.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from machine import describe, machine_facts
from tables import figure, table, write_json

from nearfar.engines.base import OpenRequest
from nearfar.engines.common.prefixes import token_costs
from nearfar.engines.selection import installed_engines
from nearfar.models.recipe.llm_reranker import AnswerTokens, LlmReranker, PairPrompt
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.batching import pack, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from nearfar.engines.base import Engine

    Scores = npt.NDArray[np.float32]
    Clock = Callable[[], float]

RESULTS = Path(__file__).parent / "results"
# Tokens of Qwen3-Reranker's texts, counted with cl100k, which its vocabulary extends: system and instruction, what
# stands around the query, and what comes after the document.
BEFORE, AFTER = 39 + 24, 9
VOCABULARY = 8000  # none of its size is in the time: only one row of the table is read a token


def write_model(folder: Path, hidden: int, layers: int) -> Recipe:
    """Write a seeded Qwen3 and say how it is run."""
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
        initializer_range=0.06,  # with the usual 0.02 all scores are nearly the same
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    judge = LlmReranker(PairPrompt(segments=("{query}{document}",)), AnswerTokens(5, 6))
    return Recipe(
        architecture="Qwen3ForCausalLM",
        model_type="qwen3",
        task="score",
        max_tokens=4096,
        hidden_size=hidden,
        pad_token_id=0,
        llm_reranker=judge,
    )


def make_rows(count: int, query: int, document: int, seed: int = 0) -> list[Row]:
    """Make rows of one question about documents of about so many tokens, log-normal around the median."""
    numbers = np.random.default_rng(seed)
    head, tail = (numbers.integers(10, VOCABULARY, length).tolist() for length in (BEFORE + query, AFTER))
    lengths = np.maximum(numbers.lognormal(np.log(document), 0.4, count), 1).astype(int)
    own = (numbers.integers(10, VOCABULARY, length).tolist() for length in lengths)
    return [Row([*head, *ids, *tail], None, len(ids), 0) for ids in own]


def in_batches(engine: Engine, rows: Sequence[Row], groups: Sequence[Sequence[int]], threads: int) -> Scores:
    """Score the rows batch by batch, as a lane would, so many at once."""
    scores = np.empty(len(rows), dtype=np.float32)

    def run(group: Sequence[int]) -> None:
        scores[list(group)] = engine.score([rows[at] for at in group])

    if threads == 1:
        for group in groups:
            run(group)
        return scores
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, groups))
    return scores


def ways(engine: Engine, rows: Sequence[Row], threads: int) -> dict[str, Callable[[], Scores]]:
    """Give the ways of scoring that the engine has."""
    lengths, most = [len(row.ids) for row in rows], engine.info.batch_tokens
    padding = engine.info.max_padding
    together = plan(lengths, most, padding) if engine.info.padded else pack(lengths, most)
    found = {
        "one by one": lambda: in_batches(engine, rows, [[at] for at in range(len(rows))], 1),
        "batches": lambda: _unshared(engine, lambda: in_batches(engine, rows, together, threads)),
    }
    if engine.info.shares_prefixes:
        groups = pack(token_costs(rows), most)
        found["shared"] = lambda: in_batches(engine, rows, groups, threads)
        found["shared, one batch"] = lambda: in_batches(engine, rows, [range(len(rows))], 1)
    return found


def _unshared(engine: Engine, call: Callable[[], Scores]) -> Scores:
    """Call with sharing switched off, where the engine shares at all."""
    run = getattr(engine, "_run", None)
    if run is None:
        return call()
    run.shares_prefixes = False
    try:
        return call()
    finally:
        run.shares_prefixes = engine.info.shares_prefixes


def measure(engine: Engine, rows: Sequence[Row], rounds: int, clock: Clock, threads: int) -> dict[str, float]:
    """Give each way's median of seconds, in rounds by turns; raise where the scores aren't the same."""
    tried = ways(engine, rows, threads)
    seconds: dict[str, list[float]] = {name: [] for name in tried}
    exact: Scores | None = None
    for _ in range(rounds):
        for name, call in tried.items():
            start = clock()
            scores = call()
            seconds[name].append(clock() - start)
            exact = scores if exact is None else exact
            np.testing.assert_allclose(scores, exact, rtol=0, atol=1e-4)
    return {name: statistics.median(of) for name, of in seconds.items()}


def main() -> None:
    """Measure every engine at every length, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 50, 100, 200], help="of documents, in tokens")
    parser.add_argument("--queries", type=int, nargs="+", default=[12], help="lengths of the query, in tokens")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--cores", action="store_true", help="time the clock on the wall, with all cores")
    asked = parser.parse_args()
    facts = machine_facts()
    print(describe(facts))
    clock = time.perf_counter if asked.cores else time.process_time
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as place:
        recipe = write_model(Path(place), asked.hidden, asked.layers)
        for name in asked.engines:
            request = OpenRequest(
                folder=Path(place),
                recipe=recipe,
                device="cpu",
                dtype="float32",
                probes=make_rows(4, 12, 20, seed=1),
                threads=None if asked.cores else 1,
            )
            engine = installed_engines()[name].open(request)
            for query, document in ((query, document) for query in asked.queries for document in asked.lengths):
                pairs = make_rows(asked.documents, query, document)
                found = measure(
                    engine, pairs, asked.rounds, clock, engine.info.max_concurrent_batches if asked.cores else 1
                )
                base = found["one by one"]
                for way, seconds in found.items():
                    cells = [figure(seconds), figure(asked.documents / seconds), f"{base / seconds:.2f}"]
                    rows.append([f"{name} {way}", str(query), str(document), *cells])
                    print(".", end="", flush=True)
    print()
    print(table(["engine and way", "query", "document", "s", "documents/s", "× one by one"], rows))
    write_json(RESULTS / "judges.json", {"machine": facts, "asked": vars(asked), "rows": rows})


if __name__ == "__main__":
    main()
