"""Does ``nearfar serve`` leak under mixed traffic? ``python benchmarks/soak.py --help``.

Clients of every dialect send small and large requests, send invalid ones, disconnect, and stop in the middle of a body.
Meanwhile the memory, threads and open files of the server's processes are sampled. Prints a table and writes
results/soak.json and results/soak.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.launcher import HOST, Server, StartError, nearfar, stop_on_sigterm
from harness.machine import describe, machine_facts
from harness.plot import LinePlot, plot_lines
from harness.process_monitor import ProcessMonitor, Sample, growth, memory_slope
from harness.random_requests import RandomRequest, RandomRequests
from harness.report import RESULTS, table, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

_WARMUP_RATIO = 0.25  # of the run; by then the allocator has usually seen every batch size
_TIMEOUT_S = 120.0
_PRINTED = 20  # unexpected responses


class Soak:
    """Clients, the requests they sent, and the responses that were not as expected."""

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._seed = port, seed
        self.requests: Counter[str] = Counter()
        self.unexpected: list[str] = []

    async def run(self, clients: int, duration_s: float) -> None:
        """Run the clients; each sends one request after the other."""
        end = time.monotonic() + duration_s
        await asyncio.gather(*(self._client(RandomRequests(self._seed + number), end) for number in range(clients)))

    async def _client(self, requests: RandomRequests, end: float) -> None:
        while time.monotonic() < end:
            request = requests.next()
            self.requests[request.name] += 1
            try:
                status = await asyncio.wait_for(self._send(request), _TIMEOUT_S)
            except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
                self.unexpected.append(f"{request.name}: {error!r}")
                continue
            if status not in {None, request.status}:
                self.unexpected.append(f"{request.name}: {status} instead of {request.status}")

    async def _send(self, request: RandomRequest) -> int | None:
        """Send one request on a new connection; return the status, or None if the client disconnected first."""
        reader, writer = await asyncio.open_connection(HOST, self._port)
        head = f"POST {request.path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
        head += f"Content-Length: {len(request.body)}\r\n\r\n"
        try:
            writer.write(head.encode() + request.body[: round(len(request.body) * request.sent_ratio)])
            if request.disconnect_s is None:
                return await _read_status(reader)
            await asyncio.wait((asyncio.ensure_future(reader.read(1)),), timeout=request.disconnect_s)
            return None
        finally:
            writer.transport.abort() if request.disconnect_s is not None else writer.close()


async def _read_status(reader: asyncio.StreamReader) -> int:
    """Read a response to its end and return its status.

    A server that has refused a body may close the connection before it has read the rest of it.
    """
    line = await reader.readline()
    if not line:
        raise ConnectionError("no response")
    try:
        while await reader.read(1 << 16):
            pass
    except ConnectionError:
        pass
    return int(line.split()[1])


def report(samples: Sequence[Sample], soak: Soak) -> str:
    """Return the figures as a table; ``samples`` are those after the warmup."""
    rows = [["requests", f"{soak.requests.total():,}", ""], ["unexpected responses", f"{len(soak.unexpected):,}", ""]]
    if samples:
        first, last = samples[0], samples[-1]
        threads, files = growth([each.threads for each in samples]), growth([each.files for each in samples])
        memory = f"{first.rss_mb:.0f} → {last.rss_mb:.0f} MB"
        rows += [
            ["memory", memory, f"{memory_slope(samples):+.2f} MB/min"],
            ["threads", f"{first.threads} → {last.threads}", f"{threads:+.0f}"],
            ["open files", f"{first.files} → {last.files}", f"{files:+.0f}"],
        ]
    return table(["soak", "", "growth after the warmup"], rows)


def main() -> None:
    """Run the soak test, print the table, write JSON and plot."""
    stop_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--engine", help="as for `nearfar serve`")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts), flush=True)
    duration_s = arguments.minutes * 60
    try:
        server = Server(nearfar(engine=arguments.engine), RESULTS / "soak.log")
        with server, ProcessMonitor(server.pid) as monitor:
            soak = Soak(server.port, arguments.seed)
            asyncio.run(soak.run(arguments.clients, duration_s))
    except StartError as error:
        raise SystemExit(f"the server {error}") from error
    print(", ".join(f"{name} {count:,}" for name, count in sorted(soak.requests.items())))
    print("".join(f"  {line}\n" for line in soak.unexpected[:_PRINTED]))
    print(report([sample for sample in monitor.samples if sample.at_s >= duration_s * _WARMUP_RATIO], soak))
    samples = [asdict(sample) for sample in monitor.samples]
    result = {"requests": soak.requests, "unexpected": soak.unexpected, "samples": samples}
    write_json(RESULTS / "soak.json", {"machine": facts, "arguments": vars(arguments)} | result)
    plots = [LinePlot("", "s", unit) for unit in ("MB", "threads", "files")]
    for one, key in zip(plots, ("rss_mb", "threads", "files"), strict=True):
        one.lines[key] = [(sample["at_s"], sample[key]) for sample in samples]
    plot_lines(plots, RESULTS / "soak.svg")


if __name__ == "__main__":
    main()
