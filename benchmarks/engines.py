"""How fast are the engines by themselves, without a server? ``python benchmarks/engines.py --help``.

Every engine that can run here embeds the same texts, tokenising included, next to sentence-transformers'
``encode(batch_size=32)`` in float32: in turns, for some rounds, so that what else the machine does meets all alike.
Prints a table with the cosine to sentence-transformers beside each speed, and one of what opening each took, and writes
results/engines.json and .svg. An engine that would take minutes a round is given the first few texts only.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe, machine_facts
from ours import model_folder
from plot import draw_engines
from tables import figure, figure_in_spread, spread, table, write_json
from workloads import texts

from nearfar.core.errors import SetupError
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.queue.batching import pack, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from workloads import Name

    from nearfar.core.settings import Dtype

    Embed = Callable[[list[str]], npt.NDArray[np.float32]]

RESULTS = Path(__file__).parent / "results"
REFERENCE = "sentence-transformers float32"
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # without these Torch computes in it at a tenth of the speed
COUNTS: dict[Name, int] = {"S": 600, "M": 128, "P": 48}
BUDGETS = (128, 256, 512, 1024, 2048)  # tokens a batch that are tried
ROUND_S = 15.0  # the most that one engine may take for a workload
TRIED: tuple[tuple[str, Dtype], ...] = (
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("mlx", "float32"),
)


@dataclass(frozen=True)
class Contender:
    """Something that embeds texts. ``about`` says how it runs."""

    name: str
    about: str
    embed: Embed
    opening: dict[str, float] = field(default_factory=dict)  # load_s, warm_s, memory_mib, batch_tokens
    tokens_per_s: float = math.inf  # of a first small try

    def part(self, chosen: list[str], tokens: float) -> list[str]:
        """Give as many of the texts, of so many tokens each, as it manages in the time."""
        return chosen[: int(min(max(8, ROUND_S * self.tokens_per_s / tokens), len(chosen)))]


def open_engine(name: str, dtype: Dtype, folder: Path, cache: Path) -> Contender | str:
    """Open one of ours; give instead the sentence that says why it can't run here."""
    kind = installed_engines().get(name)
    if kind is None:
        return "not registered"
    if unavailable_reason := kind.unavailable_reason("cpu"):
        return unavailable_reason
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    probes = tokens.sample_rows()
    before, started = resident_mib(), time.perf_counter()
    try:
        engine = kind.open(
            OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype=dtype, probes=probes, cache_dir=cache)
        )
    except SetupError as error:
        return str(error)
    info = engine.info
    opening = {"load_s": time.perf_counter() - started, "batch_tokens": float(info.batch_tokens)}
    pool = ThreadPoolExecutor(info.max_concurrent_batches) if info.max_concurrent_batches > 1 else None

    def embed(chosen: list[str], budget: int = info.batch_tokens) -> npt.NDArray[np.float32]:
        """Group the texts as the server's lane does, and run as many groups at once as the engine likes."""
        rows = tokens.encode(chosen)
        lengths = [len(row.ids) for row in rows]
        padded = plan(lengths, budget, info.max_padding) if info.padded else []
        groups = padded or pack(lengths, budget)
        run = pool.map if pool else map
        found = np.empty((len(rows), info.dim), dtype=np.float32)
        # The longest first, so that all threads end together.
        for group, vectors in zip(
            groups[::-1], run(engine.embed, [[rows[at] for at in group] for group in groups[::-1]]), strict=True
        ):
            found[group] = vectors
        return found

    started = time.perf_counter()
    embed(texts("S", 1))
    opening["warm_s"] = time.perf_counter() - started
    rate = _rate(embed, tokens)
    opening["best_batch_tokens"] = float(_best_budget(embed, rate))
    opening["memory_mib"] = resident_mib() - before
    return Contender(
        f"nearfar {name} {dtype}", f"{info.max_concurrent_batches} at once; {info.dtype_reason}", embed, opening, rate
    )


def _rate(embed: Embed, tokens: TextEncoder) -> float:
    """Give the tokens/s of a first try."""
    few = texts("S", 16)
    started = time.perf_counter()
    embed(few)
    return sum(len(row.ids) for row in tokens.encode(few)) / (time.perf_counter() - started)


def _best_budget(embed: Callable[[list[str], int], npt.NDArray[np.float32]], rate: float) -> int:
    """Find the tokens a batch at which mixed texts go fastest, by the median of three."""
    chosen = texts("M", max(8, min(128, int(rate * 3 / 60))))
    took: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    for _ in range(3):
        for budget, times in took.items():
            started = time.perf_counter()
            embed(chosen, budget)
            times.append(time.perf_counter() - started)
    return min(took, key=lambda budget: statistics.median(took[budget]))


def resident_mib() -> float:
    """Measure this process' memory."""
    asked = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)  # noqa: S603, S607
    return int(asked.stdout) / 1024


def open_reference(folder: Path) -> Contender:
    """Open sentence-transformers, on all cores."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return Contender(REFERENCE, "batches of 32", lambda chosen: np.asarray(model.encode(chosen, batch_size=32)))


def ceiling_gflops() -> float:
    """Measure the best product of a batch and a weight, float32 by torch on all cores: what no engine can pass."""
    import torch

    batch, weight = torch.randn(1024, 384), torch.randn(1536, 384)
    operations = 2 * 1024 * 384 * 1536

    def once() -> float:
        started = time.perf_counter()
        for _ in range(10):
            torch.nn.functional.linear(batch, weight)
        return 10 * operations / (time.perf_counter() - started) / 1e9

    return max(once() for _ in range(15))


def measure(contenders: Sequence[Contender], workload: Name, rounds: int, tokens: float) -> dict[str, Any]:
    """Let all of them embed the workload, round by round; the first round warms up and gives the cosines."""
    chosen = texts(workload, COUNTS[workload])
    exact = contenders[0].embed(chosen)
    speeds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    cosines: dict[str, tuple[float, float]] = {}
    for number in range(rounds + 1):
        for contender in contenders:
            part = contender.part(chosen, tokens)
            started = time.perf_counter()
            found = contender.embed(part)
            speed = len(part) / (time.perf_counter() - started)
            if number:
                speeds[contender.name].append(speed)
            else:
                right = exact[: len(part)]
                agree = (found * right).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(right, axis=1)
                cosines[contender.name] = (float(agree.min()), float(agree.mean()))
            print(f"{workload} round {number}/{rounds}  {contender.name:<32}{speed:>9.1f} texts/s", flush=True)
    reference = speeds[REFERENCE]
    return {
        name: {
            "texts_per_s": spread(values),
            "ratio": spread([value / base for value, base in zip(values, reference, strict=True)]),
            "min_cosine": cosines[name][0],
            "mean_cosine": cosines[name][1],
        }
        for name, values in speeds.items()
    }


def report(result: dict[str, Any]) -> str:
    """Lay the figures out as one table."""
    rows = [
        [
            f"{workload}  {name}",
            figure_in_spread(found["texts_per_s"]),
            figure(found["texts_per_s"]["median"] * result["mean_tokens"][workload]),
            figure_in_spread(found["ratio"]),
            f"{found['min_cosine']:.6f} / {found['mean_cosine']:.6f}",
        ]
        for workload, by_name in result["workloads"].items()
        for name, found in by_name.items()
    ]
    return table(["workload, engine", "texts/s", "tokens/s", "× sentence-transformers", "cosine min / mean"], rows)


def report_opening(contenders: Sequence[Contender]) -> str:
    """Lay out what opening took, and at what size of batch each is fastest."""
    names = ("load_s", "warm_s", "memory_mib", "batch_tokens", "best_batch_tokens")
    rows = [[one.name, *(figure(one.opening[name]) for name in names)] for one in contenders if one.opening]
    return table(["engine", "load s", "first text s", "memory MiB", "batch tokens", "best of those tried"], rows)


def main() -> None:
    """Open what can run, measure it, print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder; the built-in model by default")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    folder = Path(model_folder(asked.model))
    facts = machine_facts()
    print(describe(facts))
    contenders = [open_reference(folder)]
    for name, dtype in TRIED:
        slow = dtype == "bfloat16" and not BFLOAT16 & set(facts["simd"])
        opened = "this processor has no bfloat16" if slow else open_engine(name, dtype, folder, RESULTS / "cache")
        print(f"{name} {dtype}: {opened if isinstance(opened, str) else opened.about}")
        contenders += [] if isinstance(opened, str) else [opened]
    tokens = TextEncoder(folder, read_recipe(folder))
    lengths = {
        name: statistics.mean(len(row.ids) for row in tokens.encode(texts(name, COUNTS[name]))) for name in COUNTS
    }
    gflops = ceiling_gflops()
    result = {"machine": facts, "ceiling_gflops": gflops, "mean_tokens": lengths}
    result["opening"] = {contender.name: contender.opening for contender in contenders}
    result["workloads"] = {name: measure(contenders, name, asked.rounds, lengths[name]) for name in COUNTS}
    print("\n" + report_opening(contenders) + "\n\n" + report(result))
    print(f"float32 matrix products reach {gflops:.0f} GFLOP/s here")
    print("mean tokens a text: " + ", ".join(f"{name} {mean:.1f}" for name, mean in lengths.items()))
    write_json(RESULTS / "engines.json", result)
    draw_engines(result, RESULTS / "engines.svg")


if __name__ == "__main__":
    main()
