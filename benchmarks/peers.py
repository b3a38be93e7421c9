"""How do other servers compare? ``python benchmarks/peers.py install``, then ``python benchmarks/peers.py run``.

Opt-in: installing takes some minutes and gigabytes. In every round each server in turn is started, measured on the
same cells, and ended. They are never up at the same time: an idle peer isn't still (thread pools spin, loops poll), and
so every round measures a start as well. Ratios are taken within a round and only then summed up. Whoever begins
changes from round to round. results/peers.json and results/peers.svg hold what the table says.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cells import Cell, peer_cells, texts_to_check
from launch import Memory, Recipe, Server, StartError
from machine import describe, machine_facts
from ours import model_folder, nearfar_recipe
from peer_install import install_all
from peer_table import ALL, Peer
from plot import draw_peers
from reference import reference_vectors
from rounds import Bench, Pace, exactness_text
from tables import figure, figure_in_spread, spread, table, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results"
TORCH = "torch==2.13.0"
OURS = "nearfar"
_PACKAGES = {"torch", "transformers", "sentence-transformers", "onnxruntime", "infinity-emb", "embed-rerank", "fastapi"}


class Contender:
    """One server and what its rounds have given so far."""

    def __init__(self, name: str, recipe: Recipe, bench: Bench) -> None:
        self.name, self.recipe, self.bench = name, recipe, bench
        self.start_s: list[float] = []
        self.memory: list[Memory] = []
        self.left_out = ""  # why, once it has failed

    def measure(self, cells: Sequence[Cell], place: str) -> None:
        """Start it, measure the cells that it can answer, end it. If it doesn't start, it is left out from then on."""
        try:
            with Server(self.recipe, RESULTS / f"{self.name}.log") as server:
                self.start_s.append(server.start_s)
                print(f"{place}  {self.name}: {server.start_s:.1f} s to the first vector", flush=True)
                for cell in cells:
                    if cell.load.is_rerank and not self.recipe.rerank_path:
                        continue
                    for row in self.bench.measure(cell, server, self.recipe):
                        print(f"{place}  {self.name:<15}{row.line()}", flush=True)
                self.memory.append(server.memory())
        except StartError as error:
            self.left_out = str(error)
            print(f"{place}  {self.name} is left out: it {error}", flush=True)

    def result(self) -> dict[str, Any]:
        """Sum up its rounds."""
        peaks = [memory.peak_mib or memory.now_mib for memory in self.memory]
        return {
            "start_s": spread(self.start_s),
            "memory_mib": spread(peaks),
            "cells": self.bench.summary(),
            "left_out": self.left_out,
        }

    def ratios_of(self, ours: Contender) -> dict[str, dict[str, float]]:
        """Divide our texts/s by its, round by round."""
        found = {}
        for name in dict.fromkeys(row.name for row in self.bench.rows):
            pairs = zip(ours.speeds(name), self.speeds(name), strict=False)  # it may have been left out half-way
            found[name] = spread([our / its for our, its in pairs if its])
        return found

    def speeds(self, cell: str) -> list[float]:
        """List its texts/s, round by round."""
        return [row.figure.texts_per_s for row in self.bench.rows if row.name == cell]


def run(asked: argparse.Namespace) -> None:
    """Measure ours and the peers in turn, print the table, and write it down."""
    peers = [peer for peer in _named(asked.names) if _is_installed(peer)]
    cells = [cell for cell in peer_cells() if fnmatch.fnmatch(cell.name, asked.only)]
    facts = machine_facts()
    print(describe(facts), flush=True)
    model = model_folder(None)
    pace = Pace(asked.rounds, asked.seconds)
    expected = reference_vectors(model, texts_to_check(cells))
    ours = Contender(OURS, nearfar_recipe(engine=asked.engine, dtype=asked.dtype), Bench(pace, expected))
    contenders = [ours, *(Contender(peer.name, peer.recipe(model), Bench(pace, expected)) for peer in peers)]
    for number in range(pace.rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            if not contender.left_out:
                contender.measure(cells, f"round {number + 1}/{pace.rounds}")
    result = {
        "machine": facts,
        "asked": {"rounds": asked.rounds, "seconds": asked.seconds, "engine": asked.engine, "dtype": asked.dtype},
        "servers": {contender.name: contender.result() for contender in contenders},
        "ratios": {peer.name: peer.ratios_of(ours) for peer in contenders[1:]},
        "peers": {peer.name: {"versions": _versions(peer), "note": peer.note} for peer in peers},
    }
    write_json(RESULTS / "peers.json", result)
    print(f"\n{_servers_table(result)}\n\n{_cells_table(result)}")
    draw_peers(result, RESULTS / "peers.svg")


def _named(names: list[str]) -> list[Peer]:
    known = {peer.name for peer in ALL}
    if unknown := set(names) - known:
        raise SystemExit(f"no peer is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return [peer for peer in ALL if not names or peer.name in names]


def _is_installed(peer: Peer) -> bool:
    if not Path(peer.recipe("").command[0]).exists():
        print(f"{peer.name} is left out: python benchmarks/peers.py install {peer.name}")
        return False
    return True


def _versions(peer: Peer) -> dict[str, str]:
    command = [str(peer.bin / "python"), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603 — fixed
    packages = {entry["name"].replace("_", "-"): entry["version"] for entry in listed}
    return {name: version for name, version in packages.items() if name in _PACKAGES}


def _servers_table(result: dict[str, Any]) -> str:
    servers = result["servers"].items()
    rows = [
        [name, figure_in_spread(found["start_s"]), figure_in_spread(found["memory_mib"])] for name, found in servers
    ]
    lines = [table(("server", "first vector s", "peak MiB"), rows)]
    for name, told in result["peers"].items():
        packages = ", ".join(f"{package} {version}" for package, version in told["versions"].items())
        lines.append(f"{name}: {packages}" + (f"; {told['note']}" if told["note"] else ""))
    lines += [f"{name} was left out: it {found['left_out']}" for name, found in servers if found["left_out"]]
    return "\n".join(lines)


def _cells_table(result: dict[str, Any]) -> str:
    rows = []
    for cell in peer_cells():
        for name, found in result["servers"].items():
            row = next((row for row in found["cells"] if row["name"] == cell.name), None)
            if row is None:
                continue
            ratio = result["ratios"].get(name, {}).get(cell.name)
            times = [figure(row[time]["median"]) for time in ("p50_ms", "p99_ms")]
            failed = str(sum(row["failures"].values()))
            speeds = [figure_in_spread(row["texts_per_s"]), figure_in_spread(ratio) if ratio else "–"]
            rows.append([cell.name, name, *speeds, *times, failed, exactness_text(row)])
    return table(("cell", "server", "texts/s", "ours ÷ it", "p50 ms", "p99 ms", "failed", "exactness"), rows)


def main() -> None:
    """Install or run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the server is ended as well
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", help="make a virtual environment a peer; again: anew")
    install.add_argument("--torch", default=TORCH, help=f"what pip installs first; {TORCH} by default")
    running = commands.add_parser("run", help="compare ours with those that are installed")
    running.add_argument("--rounds", type=int, default=5)
    running.add_argument("--seconds", type=float, default=4.0, help="of every cell in every round")
    running.add_argument("--only", metavar="GLOB", default="*", help=", ".join(cell.name for cell in peer_cells()))
    running.add_argument("--engine", help="of ours")
    running.add_argument("--dtype", help="of ours")
    for command in (install, running):
        command.add_argument("names", nargs="*", metavar="NAME", help=", ".join(peer.name for peer in ALL))
    asked = parser.parse_args()
    if asked.command == "install":
        install_all(_named(asked.names), asked.torch, model_folder(None))
    else:
        run(asked)


if __name__ == "__main__":
    main()
