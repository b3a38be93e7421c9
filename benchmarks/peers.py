"""How fast are other servers? ``python benchmarks/peers.py install``, then ``python benchmarks/peers.py run``.

Opt-in: installing takes some minutes and gigabytes. In every round each server in turn is started, measured on the same
scenarios, and stopped. They never run at the same time, because an idle server isn't quiet: thread pools spin, loops
poll. So every round measures a start as well. Ratios are computed per round, then summarized. The order rotates from
round to round. Prints two tables and writes results/peers.json and results/peers.svg.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.launcher import LaunchSpec, Server, StartError, model_folder, nearfar, stop_on_sigterm
from harness.machine import describe, machine_facts
from harness.measurement import RoundSpec, ScenarioRunner, accuracy_text
from harness.peers.install import install_all
from harness.peers.servers import PEERS, Peer
from harness.plot import plot_bars
from harness.reference import reference_vectors
from harness.report import RESULTS, median_and_range, number, spread, table, write_json
from harness.scenarios import Scenario, peer_scenarios, texts_to_check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.process_monitor import Memory

TORCH = "torch==2.13.0"
_PACKAGES = {"torch", "transformers", "sentence-transformers", "onnxruntime", "infinity-emb", "embed-rerank", "fastapi"}


class Contender:
    """One server and the results of its rounds."""

    def __init__(self, name: str, spec: LaunchSpec, runner: ScenarioRunner) -> None:
        self.name, self.spec, self.runner = name, spec, runner
        self.start_s: list[float] = []
        self.memory: list[Memory] = []
        self.start_error = ""

    def measure(self, scenarios: Sequence[Scenario], prefix: str) -> None:
        """Start the server, run the scenarios that it supports, stop it. A server that doesn't start is excluded."""
        try:
            with Server(self.spec, RESULTS / f"{self.name}.log") as server:
                self.start_s.append(server.start_s)
                print(f"{prefix}  {self.name}: {server.start_s:.1f} s to the first vector", flush=True)
                for scenario in scenarios:
                    if scenario.requests.is_rerank and not self.spec.rerank_path:
                        continue
                    for measurement in self.runner.run(scenario, server):
                        print(f"{prefix}  {self.name:<15}{measurement}", flush=True)
                self.memory.append(server.memory())
        except StartError as error:
            self.start_error = str(error)
            print(f"{prefix}  {self.name} is excluded: it {error}", flush=True)

    def result(self) -> dict[str, Any]:
        """Summarize the rounds."""
        peaks = [memory.peak_mib or memory.now_mib for memory in self.memory]
        return {
            "start_s": spread(self.start_s),
            "memory_mib": spread(peaks),
            "scenarios": self.runner.summary(),
            "start_error": self.start_error,
        }

    def ratios(self, ours: Contender) -> dict[str, dict[str, float]]:
        """Return our texts/s divided by this server's, computed per round, by scenario."""
        found = {}
        for name in dict.fromkeys(each.name for each in self.runner.measurements):
            both = (contender.runner.values(name, "texts_per_s") for contender in (ours, self))
            pairs = zip(*both, strict=False)  # this server may have been excluded after some rounds
            found[name] = spread([our / its for our, its in pairs if its])
        return found


def run(arguments: argparse.Namespace) -> None:
    """Measure nearfar and the peers in turn, print the tables, write JSON and plot."""
    peers = [peer for peer in select_peers(arguments.names) if _is_installed(peer)]
    scenarios = [scenario for scenario in peer_scenarios() if fnmatch.fnmatch(scenario.name, arguments.only)]
    facts = machine_facts()
    print(describe(facts), flush=True)
    model = model_folder(None)
    rounds = RoundSpec(arguments.rounds, arguments.seconds)
    expected = reference_vectors(model, texts_to_check(scenarios))
    specs = {"nearfar": nearfar(engine=arguments.engine, dtype=arguments.dtype)}
    specs |= {peer.name: peer.launch_spec(model) for peer in peers}
    contenders = [Contender(name, spec, ScenarioRunner(rounds, expected)) for name, spec in specs.items()]
    for index in range(rounds.rounds):
        first = index % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            if not contender.start_error:
                contender.measure(scenarios, f"round {index + 1}/{rounds.rounds}")
    result = {
        "machine": facts,
        "arguments": vars(arguments),
        "servers": {contender.name: contender.result() for contender in contenders},
        "ratios": {contender.name: contender.ratios(contenders[0]) for contender in contenders[1:]},
        "peers": {peer.name: {"versions": _versions(peer), "note": peer.note} for peer in peers},
    }
    print(f"\n{server_table(result)}\n\n{scenario_table(result)}")
    write_json(RESULTS / "peers.json", result)
    plot_bars(_panels(result), "texts/s", RESULTS / "peers.svg")


def select_peers(names: Sequence[str]) -> list[Peer]:
    """Return the peers with these names, or all; exit on an unknown name."""
    known = {peer.name for peer in PEERS}
    if unknown := set(names) - known:
        raise SystemExit(f"unknown peer {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    return [peer for peer in PEERS if not names or peer.name in names]


def _is_installed(peer: Peer) -> bool:
    if Path(peer.launch_spec("").command[0]).exists():
        return True
    print(f"{peer.name} is excluded: python benchmarks/peers.py install {peer.name}")
    return False


def _versions(peer: Peer) -> dict[str, str]:
    command = [str(peer.bin / "python"), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603 — fixed
    packages = {entry["name"].replace("_", "-"): entry["version"] for entry in listed}
    return {name: version for name, version in packages.items() if name in _PACKAGES}


def server_table(result: dict[str, Any]) -> str:
    """Return start times and memory as a table, and each peer's package versions."""
    servers = result["servers"].items()
    rows = [
        [name, median_and_range(found["start_s"]), median_and_range(found["memory_mib"])] for name, found in servers
    ]
    lines = [table(("server", "first vector s", "peak MiB"), rows)]
    for name, peer in result["peers"].items():
        packages = ", ".join(f"{package} {version}" for package, version in peer["versions"].items())
        lines.append(f"{name}: {packages}" + (f"; {peer['note']}" if peer["note"] else ""))
    lines += [f"{name} was excluded: it {found['start_error']}" for name, found in servers if found["start_error"]]
    return "\n".join(lines)


def scenario_table(result: dict[str, Any]) -> str:
    """Return every server's speed, latency and accuracy in each scenario as a table."""
    rows = []
    for scenario in peer_scenarios():
        for name, found in result["servers"].items():
            row = next((row for row in found["scenarios"] if row["name"] == scenario.name), None)
            if row is None:
                continue
            ratio = result["ratios"].get(name, {}).get(scenario.name)
            latencies = [number(row[latency]["median"]) for latency in ("p50_ms", "p99_ms")]
            failed = str(sum(row["failures"].values()))
            speeds = [median_and_range(row["texts_per_s"]), median_and_range(ratio) if ratio else "–"]
            rows.append([scenario.name, name, *speeds, *latencies, failed, accuracy_text(row)])
    header = ("scenario", "server", "texts/s", "nearfar ÷ it", "p50 ms", "p99 ms", "failed", "accuracy")
    return table(header, rows)


def _panels(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    panels: dict[str, dict[str, float]] = {}
    for name, found in result["servers"].items():
        for row in found["scenarios"]:
            panels.setdefault(row["name"], {})[name] = row["texts_per_s"]["median"]
    return panels


def main() -> None:
    """Run the subcommand."""
    stop_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", help="create the peers' virtual environments, replacing older ones")
    install.add_argument("--torch", default=TORCH, help=f"what pip installs first  [default: {TORCH}]")
    running = commands.add_parser("run", help="compare nearfar with the installed peers")
    running.add_argument("--rounds", type=int, default=5)
    running.add_argument("--seconds", type=float, default=4.0, help="per scenario and round")
    running.add_argument("--only", metavar="GLOB", default="*", help=", ".join(each.name for each in peer_scenarios()))
    running.add_argument("--engine", help="of nearfar")
    running.add_argument("--dtype", help="of nearfar")
    for command in (install, running):
        command.add_argument("names", nargs="*", metavar="NAME", help=", ".join(peer.name for peer in PEERS))
    arguments = parser.parse_args()
    if arguments.command == "install":
        install_all(select_peers(arguments.names), arguments.torch, model_folder(None))
    else:
        run(arguments)


if __name__ == "__main__":
    main()
