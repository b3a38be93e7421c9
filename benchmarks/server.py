"""How fast is ``nearfar serve`` over HTTP, and how accurate are its answers? ``python benchmarks/server.py --help``.

Starts the server in a separate process, runs every scenario for some seconds, and repeats that in every round. Prints
one table and writes results/server.json and results/server.svg. Compare figures of one run with each other, not those
of different hours or machines.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.launcher import LaunchSpec, Server, StartError, model_folder, nearfar, stop_on_sigterm
from harness.load.spec import LoadSpec
from harness.machine import describe, machine_facts
from harness.measurement import RoundSpec, ScenarioRunner, summary_table
from harness.plot import LinePlot, plot_lines
from harness.reference import reference_vectors
from harness.report import RESULTS, write_json
from harness.scenarios import Scenario, embed_requests, server_scenarios, texts_to_check

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.process_monitor import Memory

LOG = RESULTS / "server.log"
_GROWTH_TEXTS = (10_000, 100_000)
_GROWTH_RUN_S = 2.0  # one run of the load generator; memory is read when a target is reached


def measure_starts(spec: LaunchSpec, starts: int) -> list[float]:
    """Start and stop the server that many times; return the seconds to each first vector."""
    times = []
    for _ in range(starts):
        with Server(spec, LOG) as server:
            times.append(server.start_s)
        print(f"process start to first vector: {times[-1]:.2f} s", flush=True)
    return times


def measure_scenarios(spec: LaunchSpec, scenarios: Sequence[Scenario], runner: ScenarioRunner) -> dict[str, Memory]:
    """Run all scenarios, round by round, on one server; return its memory before and after."""
    rounds = runner.rounds.rounds
    with Server(spec, LOG) as server:
        before = server.memory()
        for round_number in range(1, rounds + 1):
            for scenario in scenarios:
                for measurement in runner.run(scenario, server):
                    print(f"round {round_number}/{rounds}  {measurement}", flush=True)
        return {"at start": before, "at end": server.memory()}


def measure_growth(spec: LaunchSpec) -> dict[str, Memory]:
    """Return the memory of a new server before and while 8 clients send batches of 32 short texts."""
    stream = embed_requests("S", 32, pool=_GROWTH_TEXTS[0]).stream(spec, 8)
    memory, done = {}, 0
    with Server(spec, LOG) as server:
        memory["after 0 texts"] = server.memory()
        for target in _GROWTH_TEXTS:
            while done < target:
                load = LoadSpec(port=server.port, streams=(stream,), warmup_s=0, duration_s=_GROWTH_RUN_S)
                result = server.run(load).streams[0]
                if not result.total_texts:
                    raise SystemExit(f"growth: {result.failures} {result.first_failure}")
                done += result.total_texts
            memory[f"after {target} texts"] = server.memory()
            print(f"memory after {done:,} texts: {server.memory()}", flush=True)
    return memory


def select_scenarios(pattern: str) -> list[Scenario]:
    """Return the scenarios that match the glob pattern, and their baselines."""
    scenarios = server_scenarios()
    selected = {scenario.name for scenario in scenarios if fnmatch.fnmatch(scenario.name, pattern)}
    selected |= {scenario.baseline for scenario in scenarios if scenario.name in selected}
    return [scenario for scenario in scenarios if scenario.name in selected]


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot throughput and latency of single short texts by number of clients, and of the open loop."""
    throughput = LinePlot("single short texts", "clients", "texts/s", log_x=True)
    latency = LinePlot("their latency", "clients", "ms", log_x=True)
    open_loop = LinePlot("latency in an open loop", "% of the throughput of 64 clients", "ms")
    for encoding in ("float", "base64"):
        points = _matching(rows, rf"S1-{encoding}-c(\d+)")
        throughput.lines[encoding] = [(clients, row["texts_per_s"]) for clients, row in points]
        for percentile in ("p99", "p50"):
            latency.lines[f"{encoding}, {percentile}"] = [(clients, row[f"{percentile}_ms"]) for clients, row in points]
    for percentile in ("p50", "p95", "p99"):
        points = _matching(rows, r"open-(\d+)%")
        open_loop.lines[percentile] = [(ratio, row[f"{percentile}_ms"]) for ratio, row in points]
    plot_lines([throughput, latency, open_loop], path)


def _matching(rows: Sequence[dict[str, Any]], pattern: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows with a matching name, sorted by the number in it."""
    found = ((re.fullmatch(pattern, row["name"]), row) for row in rows)
    return sorted(((int(match[1]), row) for match, row in found if match), key=lambda pair: pair[0])


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    names = ", ".join(scenario.name.replace("%", "%%") for scenario in server_scenarios())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="an embedding model, as for `nearfar serve`  [default: the built-in one]")
    parser.add_argument("--engine", help="as for `nearfar serve`")
    parser.add_argument("--dtype", help="as for `nearfar serve`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="per scenario and round")
    parser.add_argument("--starts", type=int, default=3, help="server starts to time; their median is reported")
    parser.add_argument("--only", metavar="GLOB", default="*", help=f"scenarios to run: {names}")
    parser.add_argument("--growth", action="store_true", help="memory after 10,000 and 100,000 texts: some minutes")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark, print the table, write JSON and plot."""
    stop_on_sigterm()
    arguments = parse_arguments()
    spec = nearfar(model=arguments.model, engine=arguments.engine, dtype=arguments.dtype)
    scenarios = select_scenarios(arguments.only)
    if not scenarios and not arguments.growth:
        raise SystemExit(f"no scenario matches {arguments.only}; --help lists them")
    facts = machine_facts()
    print(describe(facts), flush=True)
    checked = texts_to_check(scenarios)
    expected = reference_vectors(model_folder(arguments.model), checked) if checked else {}
    runner = ScenarioRunner(RoundSpec(arguments.rounds, arguments.seconds), expected)
    memory: dict[str, Memory] = {}
    try:
        starts = measure_starts(spec, arguments.starts)
        if scenarios:
            memory |= measure_scenarios(spec, scenarios, runner)
        if arguments.growth:
            memory |= measure_growth(spec)
    except StartError as error:
        raise SystemExit(f"the server {error}") from error
    rows = runner.summary()
    print("\n" + summary_table(rows))
    if starts:
        print(f"process start to first vector: {statistics.median(starts):.2f} s (median of {len(starts)})")
    print("\n".join(f"memory {moment}: {value}" for moment, value in memory.items()))
    result = {"machine": facts, "arguments": vars(arguments), "start_s": starts, "scenarios": rows}
    write_json(
        RESULTS / "server.json", result | {"memory": {moment: asdict(found) for moment, found in memory.items()}}
    )
    plot(rows, RESULTS / "server.svg")


if __name__ == "__main__":
    main()
