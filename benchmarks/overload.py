"""What does ``nearfar serve`` do with ten times the load it can serve? ``python benchmarks/overload.py --help``.

Measures the capacity, sends ten times that for a minute, and measures goodput, the latency of admitted and of refused
requests, memory, and the time until the server accepts requests again. Then the official openai client, with its
default retries, sends twice the capacity. Prints a table and writes results/overload.json and results/overload.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.launcher import HOST, Server, StartError, nearfar, stop_on_sigterm
from harness.load.spec import LoadSpec
from harness.machine import describe, machine_facts
from harness.plot import LinePlot, plot_lines
from harness.process_monitor import ProcessMonitor, memory_slope
from harness.report import RESULTS, number, table, write_json
from harness.scenarios import embed_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

_OK, _TOO_MANY_REQUESTS = 200, 429
_TEXTS = 8  # passages per request: large requests, so that sending them takes little CPU
_CLIENTS = 16  # enough to keep the server busy
_POLL_S = 0.05
_TOKENS = _TEXTS * 150  # per request


@dataclass
class Flood:
    """The responses to requests that arrive at a fixed rate, whatever the server does."""

    responses: list[tuple[float, int, float]] = field(default_factory=list)  # (arrived after s, status, latency s)
    errors: Counter[str] = field(default_factory=Counter)  # connection errors
    duration_s: float = 0.0  # from the first request to the last response
    recovery_s: float = 0.0  # from the last request until a small one succeeds
    sender_cpu: float = 0.0  # CPU time of this process / wall time while it sent

    @property
    def statuses(self) -> Counter[int]:
        """Return the number of responses by status."""
        return Counter(status for _, status, _ in self.responses)

    def p99_s(self, status: int) -> float:
        """Return the 99th percentile of the latency of responses with this status; NaN without any."""
        latencies = sorted(latency for _, found, latency in self.responses if found == status)
        return latencies[math.ceil(0.99 * len(latencies)) - 1] if latencies else math.nan


class ConnectionPool:
    """Keep-alive connections, as many as there are requests in flight."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: str) -> int:
        """Send an embeddings request and return the response's status."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(HOST, self._port)
        try:
            content = body.encode()
            head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content)
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(headers.partition(b"content-length:")[2].split(maxsplit=1)[0]))
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return int(headers.split(maxsplit=2)[1])

    def close(self) -> None:
        """Close the idle connections."""
        for _, writer in self._idle:
            writer.close()


async def send_at_rate(rate: float, duration_s: float, send: Callable[[int], Coroutine[None, None, None]]) -> None:
    """Start ``send`` at random moments, ``rate`` times a second on average; wait for all calls."""
    rng = random.Random(1)  # noqa: S311 — the same arrivals in every run
    start, due = time.monotonic(), 0.0
    calls: list[asyncio.Task[None]] = []
    while due < duration_s:
        await asyncio.sleep(max(0.0, start + due - time.monotonic()))
        calls.append(asyncio.create_task(send(len(calls))))
        due += rng.expovariate(rate)
    await asyncio.gather(*calls)


async def flood(port: int, bodies: Sequence[str], rate: float, duration_s: float) -> Flood:
    """Send requests at a fixed rate, then poll until a small request succeeds."""
    found, start, pool = Flood(), time.monotonic(), ConnectionPool(port)

    async def send(index: int) -> None:
        sent = time.monotonic()
        try:
            status = await pool.post(bodies[index % len(bodies)])
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            found.errors[type(error).__name__] += 1
            return
        found.responses.append((sent - start, status, time.monotonic() - sent))

    cpu_s = time.process_time()
    flooding = asyncio.create_task(send_at_rate(rate, duration_s, send))
    await asyncio.sleep(duration_s)
    end = time.monotonic()
    found.sender_cpu = (time.process_time() - cpu_s) / duration_s
    small = json.dumps({"model": "text-embedding-3-small", "input": "hello"})
    while await pool.post(small) != _OK:  # noqa: ASYNC110 — the server is polled
        await asyncio.sleep(_POLL_S)
    found.recovery_s = time.monotonic() - end
    await flooding
    found.duration_s = time.monotonic() - start
    pool.close()
    return found


async def send_by_openai(
    port: int, inputs: Sequence[tuple[str, ...]], rate: float, duration_s: float
) -> tuple[int, Counter[str]]:
    """Send with the official client and its default retries; return the successes and the failures by kind."""
    from openai import AsyncOpenAI, OpenAIError

    succeeded, failed = 0, Counter[str]()
    async with AsyncOpenAI(base_url=f"http://{HOST}:{port}/v1", api_key="unused") as client:

        async def send(index: int) -> None:
            nonlocal succeeded
            try:
                await client.embeddings.create(model="text-embedding-3-small", input=[*inputs[index % len(inputs)]])
                succeeded += 1
            except OpenAIError as error:
                failed[f"{type(error).__name__} {getattr(error, 'status_code', '')}"] += 1

        await send_at_rate(rate, duration_s, send)
    return succeeded, failed


def measure(server: Server, arguments: argparse.Namespace) -> tuple[list[list[str]], list[LinePlot]]:
    """Overload the server; return the rows of the table and the plots."""
    requests = embed_requests("P", _TEXTS)
    stream = requests.stream(server.spec, _CLIENTS)
    load = LoadSpec(port=server.port, streams=(stream,), warmup_s=2, duration_s=arguments.capacity_seconds)
    before = server.run(load).streams[0]
    capacity = before.requests_per_s
    print(f"capacity: {capacity:.1f} requests/s of {_TEXTS} passages with {_CLIENTS} clients", flush=True)
    with ProcessMonitor(server.pid) as monitor:
        found = asyncio.run(flood(server.port, stream.bodies, arguments.times * capacity, arguments.seconds))
    after = server.run(load).streams[0].requests_per_s
    steady = monitor.samples[len(monitor.samples) // 4 :]
    # The requests in a full queue and the running batch come first; 1.5 because requests differ in size.
    expected_s = 1.5 * (arguments.queue_tokens / (capacity * _TOKENS) + before.p99_ms / 1000)
    goodput, mean = found.statuses[_OK] / found.duration_s, (capacity + after) / 2
    rows = [
        ["sent", f"{len(found.responses) + found.errors.total():,}", f"{arguments.times:g} × capacity"],
        ["sender CPU", f"{found.sender_cpu:.0%}", "of one core"],
        ["goodput", f"{goodput:.1f}/s", f"{goodput / mean:.0%} of {mean:.1f}/s, the mean capacity before and after"],
        ["p99, admitted", f"{number(found.p99_s(_OK))} s", f"a full queue takes {expected_s:.2f} s"],
        ["p99, refused", f"{number(1000 * found.p99_s(_TOO_MANY_REQUESTS))} ms", ""],
        *([f"status {status}", f"{count:,}", ""] for status, count in sorted(found.statuses.items())),
        *([name, f"{count:,}", ""] for name, count in found.errors.items()),
        ["recovery", f"{found.recovery_s:.2f} s", "from the last request until a small one succeeds"],
    ]
    if steady:
        grown = steady[-1].rss_mb - steady[0].rss_mb
        rows.append(["memory growth", f"{grown:+.0f} MB", f"{memory_slope(steady):+.1f} MB/min"])
    rows.append(_openai_row(server, [request.texts for request in requests.requests], capacity, arguments))
    responses = LinePlot(f"{arguments.times:g} × capacity", "s", "responses/s")
    for status in sorted(found.statuses):
        per_second = Counter(int(at) for at, code, _ in found.responses if code == status)
        responses.lines[str(status)] = [(second, float(count)) for second, count in sorted(per_second.items())]
    memory = LinePlot("memory", "s", "MB")
    memory.lines["resident"] = [(sample.at_s, sample.rss_mb) for sample in monitor.samples]
    return rows, [responses, memory]


def _openai_row(
    server: Server, inputs: Sequence[tuple[str, ...]], capacity: float, arguments: argparse.Namespace
) -> list[str]:
    rate, duration_s = arguments.client_times * capacity, arguments.client_seconds
    start = time.monotonic()
    succeeded, failed = asyncio.run(send_by_openai(server.port, inputs, rate, duration_s))
    total, took_s = succeeded + failed.total(), time.monotonic() - start
    detail = f"of {total:,} at {arguments.client_times:g} × capacity, in {took_s:.0f} s"
    errors = "".join(f"; {name} {count}" for name, count in failed.items())
    return ["openai client, succeeded", f"{succeeded / max(total, 1):.1%}", detail + errors]


def main() -> None:
    """Run the benchmark, print the table, write JSON and plot."""
    stop_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the overload")
    parser.add_argument("--times", type=float, default=10.0, help="load as a multiple of the capacity")
    parser.add_argument("--capacity-seconds", type=float, default=10.0, help="duration of each capacity measurement")
    parser.add_argument("--client-seconds", type=float, default=30.0, help="duration of the openai client's load")
    parser.add_argument("--client-times", type=float, default=2.0, help="its load as a multiple of the capacity")
    parser.add_argument("--queue-tokens", type=int, default=60_000, help="the server's queue_tokens")
    parser.add_argument("--engine", help="as for `nearfar serve`")
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts), flush=True)
    spec = nearfar(engine=arguments.engine)
    spec.environment["NEARFAR_QUEUE_TOKENS"] = str(arguments.queue_tokens)
    try:
        with Server(spec, RESULTS / "overload.log") as server:
            rows, plots = measure(server, arguments)
    except StartError as error:
        raise SystemExit(f"the server {error}") from error
    print("\n" + table(["overload", "measured", ""], rows))
    write_json(RESULTS / "overload.json", {"machine": facts, "arguments": vars(arguments), "rows": rows})
    plot_lines(plots, RESULTS / "overload.svg")


if __name__ == "__main__":
    main()
