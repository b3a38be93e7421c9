"""How fast is ``nearfar serve`` over HTTP, and is what it answers right? ``python benchmarks/server.py --help``.

Starts the server in a process of its own, measures every cell for some seconds, and again in the next round, and
prints one table; results/server.json and results/server.svg hold the same. Figures of one run compare with each
other; those of different hours or machines do not.
"""

from __future__ import annotations

import argparse
import fnmatch
import signal
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cells import Cell, embed_load, server_cells, texts_to_check
from launch import Memory, Recipe, Server, StartError
from machine import describe, machine_facts
from orders import Order
from ours import model_folder, nearfar_recipe
from plot import draw_server
from reference import reference_vectors
from rounds import Bench, Pace, tabulate
from tables import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results"
_GROWTH_TEXTS = (10_000, 100_000)
_GROWTH_RUN_S = 2.0  # the memory is looked at this often


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for."""

    model: str | None
    engine: str | None
    dtype: str | None
    rounds: int
    seconds: float
    starts: int
    only: str
    growth: bool


def start_times(recipe: Recipe, starts: int) -> list[float]:
    """Start and end the server so often; give the seconds to each first vector."""
    times = []
    for _ in range(starts):
        with Server(recipe, RESULTS / "server.log") as server:
            times.append(server.start_s)
        print(f"process start to first vector: {times[-1]:.2f} s", flush=True)
    return times


def measure_cells(recipe: Recipe, cells: Sequence[Cell], bench: Bench, rounds: int) -> dict[str, Memory]:
    """Measure all cells, round by round, on one server; give its memory at the start and at the end."""
    with Server(recipe, RESULTS / "server.log") as server:
        at_start = server.memory()
        for number in range(1, rounds + 1):
            for cell in cells:
                for row in bench.measure(cell, server, recipe):
                    print(f"round {number}/{rounds}  {row.line()}", flush=True)
        return {"at_start": at_start, "at_end": server.memory()}


def measure_growth(recipe: Recipe) -> dict[str, Memory]:
    """Watch the memory of a fresh server while it answers short texts in batches of 32 to 8 clients."""
    stream = embed_load("S", 32, count=_GROWTH_TEXTS[0]).stream(recipe, 8)
    found, done = {}, 0
    with Server(recipe, RESULTS / "server.log") as server:
        found["0"] = server.memory()
        for goal in _GROWTH_TEXTS:
            while done < goal:
                order = Order(port=server.port, streams=(stream,), warm_s=0, seconds=_GROWTH_RUN_S)
                answered = server.run(order).figures[0]
                if not answered.all_texts:
                    raise SystemExit(f"growth: {answered.failures} {answered.complaint}")
                done += answered.all_texts
            found[str(goal)] = server.memory()
            print(f"memory after {done:,} texts: {_told(found[str(goal)])}", flush=True)
    return found


def choose_cells(only: str) -> list[Cell]:
    """Pick the cells whose names match the glob, and what those are shares of."""
    cells = server_cells()
    chosen = {cell.name for cell in cells if fnmatch.fnmatch(cell.name, only)}
    chosen |= {cell.base for cell in cells if cell.name in chosen}
    return [cell for cell in cells if cell.name in chosen]


def read_command_line() -> Asked:
    """Read what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="an embedding model, as `nearfar serve` takes it; the built-in one by default")
    parser.add_argument("--engine", help="as `nearfar serve` takes it")
    parser.add_argument("--dtype", help="as `nearfar serve` takes it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of every cell in every round")
    parser.add_argument("--starts", type=int, default=3, help="of which the median counts; 0 leaves them out")
    parser.add_argument(
        "--only", metavar="GLOB", default="*", help=", ".join(cell.name.replace("%", "%%") for cell in server_cells())
    )
    parser.add_argument("--growth", action="store_true", help="memory after 10,000 and 100,000 texts: some minutes")
    return Asked(**vars(parser.parse_args()))


def main() -> None:
    """Measure, print the table, and write it down."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the server is ended as well
    asked = read_command_line()
    recipe = nearfar_recipe(model=asked.model, engine=asked.engine, dtype=asked.dtype)
    cells = choose_cells(asked.only)
    if not cells and not asked.growth:
        raise SystemExit(f"no cell matches {asked.only}; --help lists them")
    facts = machine_facts()
    print(describe(facts), flush=True)
    checked = texts_to_check(cells)
    exact = reference_vectors(model_folder(asked.model), checked) if checked else {}
    bench = Bench(Pace(asked.rounds, asked.seconds), exact)
    result: dict[str, Any] = {"machine": facts, "asked": asdict(asked)}
    try:
        result["start_s"] = start_times(recipe, asked.starts)
        result["memory"] = _dumped(measure_cells(recipe, cells, bench, asked.rounds)) if cells else {}
        result["growth"] = _dumped(measure_growth(recipe)) if asked.growth else {}
    except StartError as error:
        raise SystemExit(f"the server {error}") from error
    result["cells"] = bench.summary()
    write_json(RESULTS / "server.json", result)
    print("\n" + tabulate(result["cells"]))
    print(_footer(result))
    draw_server(result, RESULTS / "server.svg")


def _dumped(memories: dict[str, Memory]) -> dict[str, Any]:
    return {moment: asdict(memory) for moment, memory in memories.items()}


def _told(memory: Memory) -> str:
    peak = "" if memory.peak_mib is None else f", peak {memory.peak_mib:,.0f}"
    return f"{memory.now_mib:,.0f} MiB{peak}"


def _footer(result: dict[str, Any]) -> str:
    lines = []
    if times := result["start_s"]:
        lines.append(f"process start to first vector: {statistics.median(times):.2f} s (median of {len(times)})")
    lines += [f"memory {moment}: {_told(Memory(**memory))}" for moment, memory in result["memory"].items()]
    lines += [f"memory after {texts} texts: {_told(Memory(**memory))}" for texts, memory in result["growth"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
