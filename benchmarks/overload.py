"""What does ``nearfar serve`` do with ten times what it can? ``python benchmarks/overload.py --help``.

Measures what it can, sends ten times that for a minute, and looks how much is answered, how fast the rest is refused,
what the memory does, and how soon it is over afterwards. Then the official openai client, as it comes, sends twice what
the server can, and should get everything through. Ends with 1 where one of these isn't as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cells import embed_load
from launch import Recipe, Server, StartError
from machine import describe, machine_facts
from orders import Figure, Order
from ours import nearfar_recipe
from watch import Watch, mb_a_minute

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

_LOG = Path(__file__).parent / "results" / "overload.log"
_HOST = "127.0.0.1"
_OK, _TOO_MANY = 200, 429
_TEXTS = 8  # passages in a request: large ones, so that those who send them take little of the machine
_CLIENTS = 16  # enough to keep it busy
_PROBE_S = 0.05
_REFUSED_S = 0.05  # the most that a refusal may take
_OVER_S = 2.0  # the most until the server answers again
_WAITING_MB = 64  # what the requests that wait may hold, and answers on their way


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for."""

    seconds: float
    times: float
    client_seconds: float
    client_times: float
    queue_tokens: int
    engine: str | None


@dataclass
class Flood:
    """What came of requests that arrive whatever the server does."""

    statuses: Counter[int] = field(default_factory=Counter)
    admitted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0  # from the first request to the last answer
    recovery_s: float = 0.0  # from the last request until a small one succeeds
    sender_cpu_s: float = 0.0  # of this process, while it sent


async def arrive(rate: float, seconds: float, send: Callable[[int], Coroutine[None, None, None]]) -> None:
    """Start a call at each of random moments, so many a second on average; wait for all of them."""
    rng = random.Random(1)  # noqa: S311 — the same arrivals in every run
    began, due = time.monotonic(), 0.0
    calls: list[asyncio.Task[None]] = []
    while due < seconds:
        await asyncio.sleep(max(0.0, began + due - time.monotonic()))
        calls.append(asyncio.create_task(send(len(calls))))
        due += rng.expovariate(rate)
    await asyncio.gather(*calls)


class Connections:
    """As many as are needed at once, kept open in between, as clients' are."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: str) -> int:
        """Ask for embeddings; give the status."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(_HOST, self._port)
        try:
            content = body.encode()
            head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {_HOST}\r\nContent-Length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content)
            told = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(told.partition(b"content-length:")[2].split(maxsplit=1)[0]))
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return int(told.split(maxsplit=2)[1])

    def close(self) -> None:
        """Close those that nothing is sent on."""
        for _, writer in self._idle:
            writer.close()


async def flood(port: int, bodies: Sequence[str], rate: float, seconds: float) -> Flood:
    """Send requests at a rate; give what came of them."""
    seen, first, connections = Flood(), time.monotonic(), Connections(port)

    async def send(number: int) -> None:
        began = time.perf_counter()
        try:
            status = await connections.post(bodies[number % len(bodies)])
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            seen.lost[type(error).__name__] += 1
            return
        took = time.perf_counter() - began
        seen.statuses[status] += 1
        if status == _OK:
            seen.admitted_s.append(took)
        if status == _TOO_MANY:
            seen.refused_s.append(took)

    busy_s = time.process_time()
    flooding = asyncio.create_task(arrive(rate, seconds, send))
    await asyncio.sleep(seconds)
    over = time.monotonic()
    seen.sender_cpu_s = time.process_time() - busy_s
    while await connections.post(json.dumps({"model": "text-embedding-3-small", "input": "hello"})) != _OK:  # noqa: ASYNC110 — it is asked for
        await asyncio.sleep(_PROBE_S)
    seen.recovery_s = time.monotonic() - over
    await flooding
    seen.took_s = time.monotonic() - first
    connections.close()
    return seen


async def by_openai(
    port: int, inputs: Sequence[tuple[str, ...]], rate: float, seconds: float
) -> tuple[int, Counter[str]]:
    """Send with the official client, its retries as they come; give how many succeeded, and how the others failed."""
    from openai import AsyncOpenAI, OpenAIError

    done, failed = 0, Counter[str]()
    async with AsyncOpenAI(base_url=f"http://{_HOST}:{port}/v1", api_key="unused") as client:

        async def send(number: int) -> None:
            nonlocal done
            try:
                await client.embeddings.create(model="text-embedding-3-small", input=[*inputs[number % len(inputs)]])
                done += 1
            except OpenAIError as error:
                failed[f"{type(error).__name__} {getattr(error, 'status_code', '')}"] += 1

        await arrive(rate, seconds, send)
    return done, failed


def p99(times: Sequence[float]) -> float:
    """Give the 99th percentile; NaN of nothing."""
    return sorted(times)[math.ceil(0.99 * len(times)) - 1] if times else math.nan


def say(what: str, *, good: bool) -> bool:
    """Print a line and whether it is as it should be."""
    print(f"{'ok  ' if good else 'FAIL'}  {what}", flush=True)
    return good


def overload(server: Server, recipe: Recipe, asked: Asked) -> list[bool]:
    """Measure, flood, and tell."""
    load = embed_load("P", _TEXTS)
    stream = load.stream(recipe, _CLIENTS)
    order = Order(port=server.port, streams=(stream,), warm_s=2, seconds=10)
    can: Figure = server.run(order).figures[0]
    capacity = can.requests_per_s
    print(
        f"can: {capacity:.1f} requests/s of {_TEXTS} passages, p99 {can.p99_ms:.0f} ms with {_CLIENTS} clients",
        flush=True,
    )
    with Watch(server.pid) as watch:
        seen = asyncio.run(flood(server.port, stream.bodies, asked.times * capacity, asked.seconds))
    goodput = seen.statuses[_OK] / seen.took_s
    afterwards = server.run(order).figures[0].requests_per_s  # a machine's pace changes within a minute
    could = (capacity + afterwards) / 2
    # A full queue, and the batch that runs, before one's own; 1.5 for requests that aren't all of a size.
    bound_s = 1.5 * (asked.queue_tokens / (capacity * _TEXTS * 150) + can.p99_ms / 1000)
    half = watch.samples[len(watch.samples) // 4 :]
    grown_mb = half[-1].rss_mb - half[0].rss_mb if half else math.nan
    other = {status: count for status, count in seen.statuses.items() if status not in {_OK, _TOO_MANY}}
    print(f"sent {asked.times:g} times that for {asked.seconds:g} s: {dict(seen.statuses)}, lost {dict(seen.lost)}")
    print(f"sending took {seen.sender_cpu_s / asked.seconds:.0%} of a core", flush=True)
    return [
        say(
            f"goodput {goodput:.1f}/s, {goodput / could:.0%} of {could:.1f}, the mean of before and after (90 %)",
            good=goodput >= 0.9 * could,
        ),
        say(
            f"p99 of the admitted {p99(seen.admitted_s):.2f} s (queue: {bound_s:.2f} s)",
            good=p99(seen.admitted_s) <= bound_s,
        ),
        say(f"p99 of the refused {p99(seen.refused_s) * 1000:.0f} ms (50 ms)", good=p99(seen.refused_s) <= _REFUSED_S),
        say(f"nothing but 200 and 429: {other}, lost {dict(seen.lost)}", good=not other and not seen.lost),
        say(
            f"memory {grown_mb:+.0f} MB, {mb_a_minute(half):+.1f} MB/min ({_WAITING_MB} MB)",
            good=grown_mb <= _WAITING_MB,
        ),
        say(f"over after {seen.recovery_s:.2f} s (2 s)", good=seen.recovery_s <= _OVER_S),
        _openai(server, [question.texts for question in load.questions], capacity, asked),
    ]


def _openai(server: Server, inputs: Sequence[tuple[str, ...]], capacity: float, asked: Asked) -> bool:
    began = time.monotonic()
    done, failed = asyncio.run(by_openai(server.port, inputs, asked.client_times * capacity, asked.client_seconds))
    took_s = time.monotonic() - began
    share = done / max(done + failed.total(), 1)
    return say(
        f"openai's client at {asked.client_times:g} times for {asked.client_seconds:g} s: {done} of "
        f"{done + failed.total()} through, {share:.1%}, in {took_s:.0f} s (100 %) {dict(failed)}",
        good=not failed,
    )


def read_command_line() -> Asked:
    """Read what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=10.0, help="what the server can")
    parser.add_argument("--client-seconds", type=float, default=30.0)
    parser.add_argument("--client-times", type=float, default=2.0)
    parser.add_argument("--queue-tokens", type=int, default=60_000, help="the server's queue_tokens")
    parser.add_argument("--engine", help="as `nearfar serve` takes it")
    return Asked(**vars(parser.parse_args()))


def main() -> None:
    """Overload a server, tell, and end with 0 if all is as it should be."""
    asked = read_command_line()
    print(describe(machine_facts()), flush=True)
    recipe = nearfar_recipe(engine=asked.engine)
    recipe.environment["NEARFAR_QUEUE_TOKENS"] = str(asked.queue_tokens)
    try:
        with Server(recipe, _LOG) as server:
            good = overload(server, recipe, asked)
    except StartError as error:
        raise SystemExit(f"the server {error}") from error
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
