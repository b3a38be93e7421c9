"""Does one caller hurt the others? ``python benchmarks/hostile.py --help``.

Attacks a server on this machine with a mix: equal texts, megabytes of JSON, answers that aren't read, half uploads,
half-open connections, HTTP/2 windows of no bytes, disconnects. Twice the worker is killed. Meanwhile a client embeds
texts, and a prober asks for /health/live. Prints memory over time, the longest stall and the client's latency, and what
was unexpected. Stops after the duration, or once the server has more memory than allowed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import signal
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.attacks import NAMES, run_attacks
from harness.launcher import HOST, Server, StartError, nearfar, stop_on_sigterm
from harness.machine import describe, machine_facts
from harness.process_monitor import ProcessMonitor, memory_slope, process_tree
from harness.report import RESULTS, table, write_json

if TYPE_CHECKING:
    from collections import Counter
    from multiprocessing.queues import Queue

_ROWS = 12  # of the printed table
_WARMUP_RATIO = 0.25
_RESTART_S = 5.0  # after a kill, in which requests may fail
_TIMEOUT_S = 60.0
_PRINTED = 20


@dataclass
class Client:
    """Sends one request after the other and notes the seconds that each took, with its time since the start."""

    port: int
    method: str
    path: str
    body: bytes | None
    pause_s: float
    kills: list[float] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event, start: float) -> None:
        """Send requests until the event is set."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_TIMEOUT_S)
        while not stop.wait(self.pause_s):
            began = time.monotonic()
            try:
                connection.request(self.method, self.path, self.body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = response.read()
                failure = "" if response.status == http.client.OK else f"{response.status} {answer[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                failure = repr(error)
                connection.close()
            now = time.monotonic()
            is_near_kill = any(began < kill + _RESTART_S and now > kill for kill in self.kills)
            if failure and not is_near_kill:
                self.unexpected.append(f"{now - start:.1f} s: {self.path} {failure}")
            elif not is_near_kill:
                self.times.append((now - start, now - began))


def kill_worker(supervisor: int) -> None:
    """Kill the server's worker with SIGKILL."""
    for pid in process_tree(supervisor).keys() - {supervisor}:
        os.kill(pid, signal.SIGKILL)


def longest(client: Client, since_s: float, until_s: float) -> float:
    """Return the longest time of a request in the period, in milliseconds."""
    return 1000 * max((took for at, took in client.times if since_s <= at < until_s), default=0.0)


def report(monitor: ProcessMonitor, prober: Client, client: Client, duration_s: float) -> str:
    """Return memory, files, stalls and latency over time as a table."""
    rows = []
    for at, parts in [*((at, 1) for at in range(_ROWS)), (0, _ROWS)]:  # the last row is the whole run
        since, until = duration_s * at / _ROWS, duration_s * (at + parts) / _ROWS
        samples = [sample for sample in monitor.samples if since <= sample.at_s < until]
        took = [took * 1000 for at_s, took in client.times if since <= at_s < until]
        p99 = statistics.quantiles(took, n=100)[98] if len(took) > 1 else float("nan")
        memory = f"{max((sample.rss_mb for sample in samples), default=0):,.0f}"
        files = f"{max((sample.files for sample in samples), default=0)}"
        rows.append([f"{since:.0f}-{until:.0f}", memory, files, f"{longest(prober, since, until):.0f}", f"{p99:.0f}"])
    return table(["seconds", "peak MB", "files", "longest stall ms", "client p99 ms"], rows)


def attack(server: Server, arguments: argparse.Namespace) -> dict[str, object]:
    """Run the mix against a server, print the tables and return the figures."""
    duration_s: float = arguments.seconds
    stop, start = threading.Event(), time.monotonic()
    body = json.dumps({"model": "text-embedding-3-small", "input": "a caller among others"}).encode()
    kills: list[float] = []
    prober = Client(server.port, "GET", "/health/live", None, 0.005, kills)
    client = Client(server.port, "POST", "/v1/embeddings", body, 0.02, kills)
    threads = [threading.Thread(target=each.run, args=(stop, start), daemon=True) for each in (prober, client)]
    results: Queue[Counter[str]] = multiprocessing.Queue()
    attackers = multiprocessing.Process(
        target=run_attacks, args=(server.port, arguments.only, duration_s, results), daemon=True
    )
    with ProcessMonitor(server.pid, 0.5) as monitor:
        for thread in threads:
            thread.start()
        attackers.start()
        kill_at = [start + duration_s * at / (arguments.kills + 1) for at in range(1, arguments.kills + 1)]
        while attackers.is_alive() and results.empty():
            time.sleep(0.2)
            if kill_at and time.monotonic() > kill_at[0]:
                kills.append(kill_at.pop(0))
                kill_worker(server.pid)
            if monitor.samples and monitor.samples[-1].rss_mb > arguments.most_mb:
                client.unexpected.append(f"over {arguments.most_mb} MB: stopped")
                attackers.terminate()
        stop.set()
        for thread in threads:
            thread.join(_TIMEOUT_S)
    ended = dict(sorted(results.get().items())) if attackers.is_alive() or not results.empty() else {}
    unexpected = [*prober.unexpected, *client.unexpected, *(how for how in ended if "unexpected" in how)]
    print("\n".join(f"  {how:40} {count:,}" for how, count in ended.items()))
    print(report(monitor, prober, client, duration_s))
    late = [sample for sample in monitor.samples if sample.at_s >= duration_s * _WARMUP_RATIO]
    print(f"memory after the first quarter: {memory_slope(late):+.1f} MB/min")
    print(f"unexpected: {len(unexpected)}", *unexpected[:_PRINTED], sep="\n  ")
    return {"ended": ended, "unexpected": unexpected, "stalls": prober.times, "latencies": client.times}


def main() -> None:
    """Start a server, attack it, print the tables and write JSON."""
    stop_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="attacks of the mix  [default: all]")
    parser.add_argument("--kills", type=int, default=2, help="of the worker")
    parser.add_argument("--most-mb", type=float, default=8000.0, help="stop if the server takes more memory")
    parser.add_argument("--engine", help="as for `nearfar serve`")
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts), flush=True)
    try:
        with Server(nearfar(engine=arguments.engine), RESULTS / "hostile.log") as server:
            figures = attack(server, arguments)
    except StartError as error:
        raise SystemExit(f"the server {error}") from error
    write_json(RESULTS / "hostile.json", {"machine": facts, "arguments": vars(arguments)} | figures)


if __name__ == "__main__":
    main()
