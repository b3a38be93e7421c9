"""How fast are the engines without a server? ``python benchmarks/engines.py --help``.

Every engine that runs here embeds the same texts, tokenization included, next to sentence-transformers'
``encode(batch_size=32)`` in float32. Rounds are interleaved, so that other load on the machine affects all alike.
Prints a table of speeds with the cosine to sentence-transformers, and one of loading times, and writes
results/engines.json and results/engines.svg. An engine that would take minutes embeds only the first few texts.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from harness.launcher import model_folder
from harness.machine import describe, machine_facts
from harness.plot import plot_bars
from harness.process_monitor import process_tree
from harness.report import RESULTS, median_and_range, number, spread, table, write_json
from harness.workloads import texts

from nearfar.core.errors import SetupError
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.queue.scheduler import group_by_length

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from harness.workloads import Size

    from nearfar.core.settings import Dtype
    from nearfar.engines.base import Engine
    from nearfar.models.tokenization.row import Row

    Embed = Callable[[list[str]], npt.NDArray[np.float32]]

REFERENCE = "sentence-transformers float32"
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # without these, Torch is ten times slower in it
COUNTS: dict[Size, int] = {"S": 600, "M": 128, "P": 48}
BUDGETS = (128, 256, 512, 1024, 2048)  # tokens per batch to try
ROUND_S = 15.0  # limit per engine, text size and round
ENGINES: tuple[tuple[str, Dtype], ...] = (
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("mlx", "float32"),
)


@dataclass(frozen=True)
class Contender:
    """Something that embeds texts. ``about`` describes how it runs."""

    name: str
    about: str
    embed: Embed
    loading: dict[str, float] = field(default_factory=dict)  # load_s, first_text_s, memory_mib, batch_tokens
    tokens_per_s: float = math.inf  # of a first small batch

    def limited(self, chosen: list[str], mean_tokens: float) -> list[str]:
        """Return as many of the texts as it embeds within ROUND_S."""
        return chosen[: int(min(max(8, ROUND_S * self.tokens_per_s / mean_tokens), len(chosen)))]


def open_engine(name: str, dtype: Dtype, folder: Path, cache_dir: Path) -> Contender | str:
    """Open an engine; return the reason instead if it can't run here."""
    kind = installed_engines().get(name)
    if kind is None:
        return "not registered"
    if reason := kind.unavailable_reason("cpu"):
        return reason
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    probes = tokens.sample_rows()
    before, started = resident_mib(), time.perf_counter()
    try:
        engine = kind.open(
            OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype=dtype, probes=probes, cache_dir=cache_dir)
        )
    except SetupError as error:
        return str(error)
    info = engine.info
    loading = {"load_s": time.perf_counter() - started, "batch_tokens": float(info.batch_tokens)}
    embed = embed_in_batches(engine, tokens)
    started = time.perf_counter()
    embed(texts("S", 1))
    loading["first_text_s"] = time.perf_counter() - started
    rate = _tokens_per_s(embed, tokens)
    loading["best_batch_tokens"] = float(_best_batch_tokens(embed, rate))
    loading["memory_mib"] = resident_mib() - before
    about = f"batches in parallel: {info.max_concurrent_batches}; {info.dtype_reason}"
    return Contender(f"nearfar {name} {dtype}", about, embed, loading, rate)


def embed_in_batches(engine: Engine, tokens: TextEncoder) -> Callable[..., npt.NDArray[np.float32]]:
    """Return a function that embeds texts as the server does; its ``budget`` is the batch size in tokens."""
    run = run_in_batches(engine)

    def embed(chosen: list[str], budget: int = engine.info.batch_tokens) -> npt.NDArray[np.float32]:
        return run(tokens.encode(chosen), budget)

    return embed


def run_in_batches(
    engine: Engine, method: Literal["embed", "score"] = "embed"
) -> Callable[[Sequence[Row], int], npt.NDArray[np.float32]]:
    """Return a function from rows and a batch size in tokens to their numbers, in the server's batches."""
    info = engine.info
    pool = ThreadPoolExecutor(info.max_concurrent_batches) if info.max_concurrent_batches > 1 else None

    def run(rows: Sequence[Row], budget: int) -> npt.NDArray[np.float32]:
        lengths = [len(row.ids) for row in rows]
        # Longest first, so that all threads finish at about the same time.
        groups = group_by_length(lengths, budget, info.max_padding if info.padded else None)[::-1]
        batches = [[rows[at] for at in group] for group in groups]
        found = np.empty((len(rows), info.dim)[: 2 if method == "embed" else 1], dtype=np.float32)
        for group, numbers in zip(groups, (pool.map if pool else map)(getattr(engine, method), batches), strict=True):
            found[group] = numbers
        return found

    return run


def _tokens_per_s(embed: Embed, tokens: TextEncoder) -> float:
    """Return the speed on a small batch."""
    few = texts("S", 16)
    started = time.perf_counter()
    embed(few)
    return sum(len(row.ids) for row in tokens.encode(few)) / (time.perf_counter() - started)


def _best_batch_tokens(embed: Callable[[list[str], int], npt.NDArray[np.float32]], rate: float) -> int:
    """Return the batch size, in tokens, that embeds mixed texts fastest: by the median of three runs."""
    chosen = texts("M", max(8, min(128, int(rate * 3 / 60))))
    took: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    for _ in range(3):
        for budget, times in took.items():
            started = time.perf_counter()
            embed(chosen, budget)
            times.append(time.perf_counter() - started)
    return min(took, key=lambda budget: statistics.median(took[budget]))


def resident_mib() -> float:
    """Return this process's resident memory."""
    return process_tree(os.getpid())[os.getpid()] / 1024


def open_reference(folder: Path) -> Contender:
    """Open sentence-transformers on all cores."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return Contender(REFERENCE, "batches of 32", lambda chosen: np.asarray(model.encode(chosen, batch_size=32)))


def peak_gflops() -> float:
    """Return the speed of float32 matrix products by Torch on all cores: the upper bound for any engine."""
    import torch

    batch, weight = torch.randn(1024, 384), torch.randn(1536, 384)
    operations = 2 * 1024 * 384 * 1536

    def once() -> float:
        started = time.perf_counter()
        for _ in range(10):
            torch.nn.functional.linear(batch, weight)
        return 10 * operations / (time.perf_counter() - started) / 1e9

    return max(once() for _ in range(15))


def measure(contenders: Sequence[Contender], size: Size, rounds: int, mean_tokens: float) -> dict[str, Any]:
    """Embed texts of this size with every contender, round by round. Round 0 warms up and computes the cosines."""
    chosen = texts(size, COUNTS[size])
    exact = contenders[0].embed(chosen)
    speeds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    cosines: dict[str, tuple[float, float]] = {}
    for round_number in range(rounds + 1):
        for contender in contenders:
            part = contender.limited(chosen, mean_tokens)
            started = time.perf_counter()
            found = contender.embed(part)
            speed = len(part) / (time.perf_counter() - started)
            if round_number:
                speeds[contender.name].append(speed)
            else:
                cosines[contender.name] = _min_and_mean_cosine(found, exact[: len(part)])
            print(f"{size} round {round_number}/{rounds}  {contender.name:<32}{speed:>9.1f} texts/s", flush=True)
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


def _min_and_mean_cosine(found: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> tuple[float, float]:
    cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)  # (B,)
    return float(cosines.min()), float(cosines.mean())


def speed_table(result: dict[str, Any]) -> str:
    """Return speeds and cosines as a table."""
    rows = [
        [
            f"{size}  {name}",
            median_and_range(found["texts_per_s"]),
            number(found["texts_per_s"]["median"] * result["mean_tokens"][size]),
            median_and_range(found["ratio"]),
            f"{found['min_cosine']:.6f} / {found['mean_cosine']:.6f}",
        ]
        for size, by_name in result["sizes"].items()
        for name, found in by_name.items()
    ]
    return table(["size, engine", "texts/s", "tokens/s", "× sentence-transformers", "cosine min / mean"], rows)


def loading_table(contenders: Sequence[Contender]) -> str:
    """Return loading times, memory, and the default and fastest batch size as a table."""
    names = ("load_s", "first_text_s", "memory_mib", "batch_tokens", "best_batch_tokens")
    rows = [[one.name, *(number(one.loading[name]) for name in names)] for one in contenders if one.loading]
    return table(["engine", "load s", "first text s", "memory MiB", "batch tokens", "fastest batch tokens"], rows)


def main() -> None:
    """Run the benchmark, print the tables, write JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder  [default: the built-in model]")
    parser.add_argument("--rounds", type=int, default=5)
    names = sorted({name for name, _ in ENGINES})
    parser.add_argument("--engines", nargs="+", choices=names, default=names, help="engines to run  [default: all]")
    parser.add_argument("--sizes", nargs="+", choices=COUNTS, default=[*COUNTS], help="text sizes  [default: all]")
    arguments = parser.parse_args()
    folder = Path(model_folder(arguments.model))
    facts = machine_facts()
    print(describe(facts))
    contenders = [open_reference(folder)]
    for name, dtype in (each for each in ENGINES if each[0] in arguments.engines):
        slow = dtype == "bfloat16" and not BFLOAT16 & set(facts["simd"])
        opened = "this CPU has no bfloat16" if slow else open_engine(name, dtype, folder, RESULTS / "cache")
        print(f"{name} {dtype}: {opened if isinstance(opened, str) else opened.about}", flush=True)
        contenders += [] if isinstance(opened, str) else [opened]
    tokens = TextEncoder(folder, read_recipe(folder))
    sizes: list[Size] = arguments.sizes
    lengths = {
        size: statistics.mean(len(row.ids) for row in tokens.encode(texts(size, COUNTS[size]))) for size in sizes
    }
    gflops = peak_gflops()
    result: dict[str, Any] = {"machine": facts, "peak_gflops": gflops, "mean_tokens": lengths}
    result["loading"] = {contender.name: contender.loading for contender in contenders}
    result["sizes"] = {size: measure(contenders, size, arguments.rounds, lengths[size]) for size in sizes}
    print("\n" + loading_table(contenders) + "\n\n" + speed_table(result))
    print(f"float32 matrix products reach {gflops:.0f} GFLOP/s here")
    print("mean tokens per text: " + ", ".join(f"{size} {mean:.1f}" for size, mean in lengths.items()))
    write_json(RESULTS / "engines.json", result)
    panels = {
        f"{size}: {lengths[size]:.0f} tokens per text": {name: row["ratio"]["median"] for name, row in rows.items()}
        for size, rows in result["sizes"].items()
    }
    plot_bars(panels, "× sentence-transformers", RESULTS / "engines.svg", form="%.2f")


if __name__ == "__main__":
    main()
