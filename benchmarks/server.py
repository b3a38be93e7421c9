"""How fast is the server over HTTP? ``python benchmarks/server.py [MODEL]``: a table and a JSON file.

Starts ``nearfar serve`` in a process of its own and keeps N clients busy with the next request as soon as they
have an answer, for a few seconds a row. Texts are prose of the standard library's docstrings, cut to three sizes.
Figures of one run compare with each other; those of different hours or machines do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import platform
import random
import re
import signal
import socket
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RESULTS = Path(__file__).parent / "results"
SECONDS = 4.0
CLIENTS = (1, 8, 32, 64)
MODULES = (
    "argparse",
    "asyncio",
    "decimal",
    "difflib",
    "email.message",
    "http.client",
    "logging",
    "pathlib",
    "subprocess",
    "threading",
    "unittest",
)


@dataclass(frozen=True)
class Load:
    """What every client of a row sends."""

    name: str
    words: int
    rows: int
    encoding: str = "base64"
    path: str = "/v1/embeddings"


@dataclass(frozen=True)
class Figure:
    """What came of a row."""

    load: str
    clients: int
    texts_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failures: int


LOADS = (
    Load("short, 1 a request", 8, 1),
    Load("short, 1 a request, float", 8, 1, "float"),
    Load("short, 32 a request", 8, 32),
    Load("passages, 1 a request", 110, 1),
    Load("passages, 32 a request", 110, 32),
    Load("rerank, 1 query × 20 passages", 70, 20, path="/v2/rerank"),
)


@cache
def words_of_docstrings() -> list[str]:
    """Give the words of the standard library's docstrings: modules, their classes, functions and methods."""
    found: list[str] = []
    for module in map(import_module, MODULES):
        owned = [value for value in vars(module).values() if callable(value)]
        members = [member for value in owned if inspect.isclass(value) for member in vars(value).values()]
        documented = (inspect.getdoc(thing) for thing in (module, *owned, *members) if not isinstance(thing, str))
        found += " ".join(filter(None, documented)).split()
    return found


def texts(words: int, count: int, seed: int) -> list[str]:
    """Cut ``count`` texts of about ``words`` words, at random places."""
    pool = words_of_docstrings()
    rng = random.Random(seed)  # noqa: S311 — texts, not secrets
    sizes = [max(2, round(rng.gauss(words, words / 4))) for _ in range(count)]
    starts = [rng.randrange(len(pool) - size) for size in sizes]
    return [" ".join(pool[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def body(load: Load, chosen: list[str]) -> dict[str, Any]:
    """Build a request's body."""
    if load.path.endswith("rerank"):
        return {"model": "rerank-v3.5", "query": chosen[0], "documents": chosen}
    return {"model": "text-embedding-3-small", "input": chosen, "encoding_format": load.encoding}


async def measure(client: httpx.AsyncClient, load: Load, clients: int) -> Figure:
    """Keep ``clients`` callers busy for SECONDS and count what they get."""
    pool = texts(load.words, max(load.rows * 8, 256), seed=clients)
    bodies = [
        json.dumps(body(load, pool[at : at + load.rows])).encode()
        for at in range(0, len(pool) - load.rows + 1, load.rows)
    ]
    times: list[float] = []
    failures = 0
    deadline = time.perf_counter() + SECONDS

    async def caller(number: int) -> None:
        nonlocal failures
        for turn in range(number, sys.maxsize, clients):
            began = time.perf_counter()
            if began > deadline:
                return
            answer = await client.post(load.path, content=bodies[turn % len(bodies)])
            if answer.status_code == httpx.codes.OK:
                times.append(time.perf_counter() - began)
            else:
                failures += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(clients)))
    took = time.perf_counter() - began
    if not times:
        raise SystemExit(f"{load.name}: none of {failures} requests was answered")
    p50, p95, p99 = (float(np.percentile(times, q)) * 1000 for q in (50, 95, 99))
    return Figure(load.name, clients, len(times) * load.rows / took, p50, p95, p99, failures)


@contextlib.asynccontextmanager
async def serving(model: list[str]) -> AsyncIterator[tuple[httpx.AsyncClient, float, int]]:
    """Start a server and give a client, the seconds to the first answer, and the process' id."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "nearfar", "serve", *model, "--port", str(port)]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, limits=limits) as client:
            await first_answer(client, process)
            yield client, time.perf_counter() - began, process.pid
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def first_answer(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    """Ask until a vector comes back."""
    while process.returncode is None:
        with contextlib.suppress(httpx.TransportError):
            answer = await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "hello"})
            if answer.status_code == httpx.codes.OK:
                return
        await asyncio.sleep(0.02)
    raise SystemExit("the server didn't start; run `nearfar serve` to see why")


def peak_rss_mib(pid: int) -> float | None:
    """Read the most memory the process has held, where the system tells."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) / 1024


async def main() -> None:
    """Run every load at every number of clients, print the table, and write it down."""
    figures = []
    print(f"{platform.platform()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    async with serving(sys.argv[1:]) as (client, start_s, pid):
        print(f"{'load':<32}{'clients':>8}{'texts/s':>10}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'failed':>8}")
        for load in LOADS:
            for clients in CLIENTS:
                figure = await measure(client, load, clients)
                figures.append(figure)
                print(
                    f"{figure.load:<32}{clients:>8}{figure.texts_per_s:>10.1f}{figure.p50_ms:>9.1f}"
                    f"{figure.p95_ms:>9.1f}{figure.p99_ms:>9.1f}{figure.failures:>8}",
                    flush=True,
                )
        memory = peak_rss_mib(pid)
    print(f"process start to first vector: {start_s:.1f} s" + (f"; peak memory: {memory:.0f} MiB" if memory else ""))
    RESULTS.mkdir(exist_ok=True)
    facts = {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    median = statistics.median(figure.p50_ms for figure in figures)
    result: dict[str, Any] = {**facts, "start_s": start_s, "peak_mib": memory, "median_p50_ms": median}
    result["figures"] = [asdict(figure) for figure in figures]
    (RESULTS / "server.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
