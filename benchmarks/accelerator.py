"""Are the numbers right on this machine's GPU, and how fast is it? ``python benchmarks/accelerator.py --help``.

Three parts, each in a process that is ended at its limit, at most six minutes together: the served pipeline's numbers
next to sentence-transformers' in each precision, the engines alone, and the server over HTTP. Prints a Markdown table
and writes results/accelerator.json and results/accelerator.svg. Exits with 1 if a number is wrong or a part failed.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from engines import run_in_batches
from harness.launcher import Server, model_folder, nearfar, stop_on_sigterm
from harness.machine import describe, machine_facts
from harness.measurement import RoundSpec, ScenarioRunner
from harness.parity import TOLERANCE, measure_distances, references
from harness.parts import Result, print_results, run_part
from harness.plot import plot_bars
from harness.reference import reference_vectors
from harness.report import RESULTS, markdown_table, number, write_json
from harness.scenarios import Scenario, embed_requests, texts_to_check
from harness.workloads import texts

from nearfar.core.errors import SetupError
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.workloads import Size

    from nearfar.core.settings import Device, Dtype
    from nearfar.engines.base import Engine

ENGINES: dict[str, tuple[str, ...]] = {"cuda": ("torch",), "mps": ("torch", "mlx"), "cpu": ("torch",)}
SERVED: dict[str, Dtype] = {"cuda": "float16", "mps": "float16", "cpu": "float32"}
COUNTS: dict[Size, int] = {"S": 8192, "M": 2048, "P": 1024}  # texts, at most
NAMES: dict[Size, str] = {"S": "short texts", "M": "mixed texts", "P": "passages"}


def compare_numbers(options: argparse.Namespace) -> Iterator[Result]:
    """Compare the served pipeline with sentence-transformers, for all checkpoints in each precision."""
    with tempfile.TemporaryDirectory() as tiny:
        checked = references(model_folder(options.model), texts("M", 32), Path(tiny))
        for engine in ENGINES[options.device]:
            for dtype in options.dtypes:
                try:
                    distances = measure_distances(checked, engine, options.device, dtype)
                except SetupError as error:
                    yield Result(part="numbers", engine=engine, dtype=dtype, what="all", failure=str(error))
                    continue
                for reference, distance in zip(checked, distances, strict=True):
                    limit = TOLERANCE[dtype]
                    what = reference.name
                    yield Result(part="numbers", engine=engine, dtype=dtype, what=what, distance=distance, limit=limit)


def measure_engines(options: argparse.Namespace) -> Iterator[Result]:
    """Measure each engine in each precision without a server, tokenization excluded."""
    folder = Path(model_folder(options.model))
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    for name in ENGINES[options.device]:
        for dtype in options.dtypes:
            try:
                engine = installed_engines()[name].open(
                    OpenRequest(folder=folder, recipe=recipe, device=options.device, dtype=dtype)
                )
            except SetupError as error:
                yield Result(part="engine", engine=name, dtype=dtype, what="opening", failure=str(error))
                continue
            for size in COUNTS:
                yield measure_engine(engine, tokens, size, options.seconds)
            engine.close()


def measure_engine(engine: Engine, tokens: TextEncoder, size: Size, seconds: float) -> Result:
    """Embed texts of this size for so many seconds; compare vectors of large batches with those of rows alone."""
    embed, info = run_in_batches(engine), engine.info
    rows = tokens.encode(texts(size, COUNTS[size]))
    few = rows[:16]
    alone = np.concatenate([engine.embed([row]) for row in few[:8]])  # warms up as well
    took_s = _seconds(lambda: embed(few, info.batch_tokens))
    rows = rows[: min(max(len(few), round(len(few) * seconds / took_s / 4)), len(rows))]
    together = embed(rows, info.batch_tokens)
    began, runs = time.perf_counter(), 0
    while not runs or time.perf_counter() - began < seconds:
        embed(rows, info.batch_tokens)
        runs += 1
    return Result(
        part="engine",
        engine=info.name,
        dtype=info.dtype,
        what=NAMES[size],
        tokens_per_s=runs * sum(len(row.ids) for row in rows) / (time.perf_counter() - began),
        distance=float(np.linalg.norm(together[: len(alone)] - alone, axis=1).max()),
        limit=TOLERANCE[info.dtype],
    )


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure_server(options: argparse.Namespace) -> Iterator[Result]:
    """Measure the server with short texts, at each number of clients; compare answers with sentence-transformers."""
    engine, dtype = ENGINES[options.device][-1], SERVED[options.device]
    requests = embed_requests("S", 1, "base64")
    scenarios = [Scenario(name=f"{count} clients", requests=requests, clients=count) for count in options.clients]
    folder = model_folder(options.model)
    runner = ScenarioRunner(
        RoundSpec(1, options.seconds, timeout_s=10), reference_vectors(folder, texts_to_check(scenarios))
    )
    encoder = TextEncoder(Path(folder), read_recipe(Path(folder)))
    rows = encoder.encode([request.texts[0] for request in requests.requests])
    mean_tokens = sum(len(row.ids) for row in rows) / len(rows)
    spec = nearfar(model=options.model, engine=engine, device=options.device, dtype=dtype)
    with Server(spec, options.results / "accelerator.log") as server:
        for scenario in scenarios:
            (found,) = runner.run(scenario, server)
            cosine = found.accuracy.get("min_cosine", math.nan)
            yield Result(
                part="server",
                engine=engine,
                dtype=dtype,
                what=scenario.name,
                tokens_per_s=found.result.texts_per_s * mean_tokens,
                latency=f"{number(found.result.p50_ms)} / {number(found.result.p99_ms)}",
                distance=math.sqrt(max(2 - 2 * cosine, 0)),
                limit=TOLERANCE[dtype],
                failure=f"{found.result.failures} {found.result.first_failure}" if found.result.failures else "",
            )


# Each part and the seconds that it may take: five and a half minutes in all.
PARTS: dict[str, tuple[Callable[[argparse.Namespace], Iterator[Result]], float]] = {
    "numbers": (compare_numbers, 120),
    "engine": (measure_engines, 120),
    "server": (measure_server, 90),
}


def choose_device(requested: Device) -> Device:
    """Return the GPU to measure, or the CPU if it is requested. Exits if there is none."""
    from nearfar.engines.torch.choices import find_device

    try:
        found: Any = find_device(requested)
    except SetupError as error:
        raise SystemExit(str(error)) from error
    if found == "cpu" and requested != "cpu":
        raise SystemExit("this machine has no CUDA or Metal device; --device cpu runs the same on the CPU")
    device: Device = found
    return device


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", *ENGINES], default="auto", help="[default: the GPU]")
    parser.add_argument("--model", help="a folder of an embedding model  [default: the built-in model]")
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCE, default=[*TOLERANCE])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement; more than 3 may not fit")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 64, 512])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to  [default: %(default)s]")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run one part, or all of them; print the table, write JSON and plot."""
    options = parse_arguments(arguments)
    options.device = choose_device(options.device)
    if options.part:
        stop_on_sigterm()
        print_results(PARTS[options.part][0](options))
        return
    command = [sys.executable, __file__, *arguments]
    facts = machine_facts()
    print(f"{describe(facts)}\ndevice: {options.device}", flush=True)
    results = [result for part, (_, limit_s) in PARTS.items() for result in run_part(part, limit_s, command)]
    header = ["part", "engine", "dtype", "what", "tokens/s", "p50 / p99 ms", "distance", "limit", ""]
    print("\n" + markdown_table(header, [result.cells() for result in results]))
    write_json(
        options.results / "accelerator.json", {"machine": facts, "results": [asdict(result) for result in results]}
    )
    panels: dict[str, dict[str, float]] = {}
    for result in results:
        if result.tokens_per_s > 0:
            panel, bar = (result.what, f"{result.engine} {result.dtype}")
            panel, bar = ("over HTTP, short texts", result.what) if result.part == "server" else (panel, bar)
            panels.setdefault(panel, {})[bar] = result.tokens_per_s
    plot_bars(panels, "tokens/s", options.results / "accelerator.svg")
    if not all(result.is_right for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
