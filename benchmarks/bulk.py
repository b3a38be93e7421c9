"""How fast is bulk work next to the engine alone? ``python benchmarks/bulk.py --help``.

The same texts are embedded by the engine alone at its fastest batch size, by ``nearfar embed``, by a batch of a server
that runs, and by a loop with openai's client, at the best of several request sizes. Each writes its vectors to a file.
Rounds are interleaved. The time that processes take to start is measured with a table of one row, and subtracted.
Prints one table of speeds and memory, and one of the latency of another client with and without the batch; writes
results/bulk.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from engines import BFLOAT16, COUNTS, Contender, open_engine
from harness.launcher import HOST, Server, model_folder, nearfar
from harness.load.spec import LoadSpec
from harness.machine import describe, machine_facts
from harness.process_monitor import ProcessMonitor
from harness.report import RESULTS, median_and_range, number, spread, table, write_json
from harness.scenarios import embed_requests
from harness.workloads import Size, texts
from openai import AsyncOpenAI, OpenAI

from nearfar.core.settings import Dtype

_BLOCK = 4096  # texts that the engine alone tokenizes at once
_REQUEST_SIZES = (16, 64, 256)  # texts of a request of the client's loop
_IN_FLIGHT = 8  # requests of that loop
_TRIED = 2048  # texts with which the loop's request size is chosen
_POLL_S = 0.25
_CLIENT_S = 15.0  # of the other client


class Measured(NamedTuple):
    """What one way of embedding all texts took. ``memory_mb`` is a process's peak, or a server's growth."""

    seconds: float
    memory_mb: float = float("nan")


def chunks(rows: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield the texts in parts of that size."""
    return (rows[at : at + size] for at in range(0, len(rows), size))


def engine_alone(engine: Contender, rows: Sequence[str], out: Path) -> Measured:
    """Embed the texts by the engine, at its fastest batch size."""
    embed = cast("Callable[[list[str], int], Any]", engine.embed)
    budget = int(engine.loading["best_batch_tokens"])
    start = time.perf_counter()
    with out.open("wb") as file:
        for block in chunks(rows, _BLOCK):
            np.save(file, embed([*block], budget))
    return Measured(time.perf_counter() - start)


def command(rows: Path, out: Path, options: Sequence[str]) -> Measured:
    """Run ``nearfar embed`` on a file of JSON lines."""
    start = time.perf_counter()
    line = [sys.executable, "-m", "nearfar", "embed", str(rows), "--out", str(out), *options]
    process = subprocess.Popen(line)  # noqa: S603 — our own command
    with ProcessMonitor(process.pid, 0.25) as monitor:
        process.wait()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"nearfar embed ended with {process.returncode}")
    return Measured(seconds, max(sample.rss_mb for sample in monitor.samples))


def batch(server: Server, rows: Path, out: Path) -> Measured:
    """Run a batch from the upload of its file to the download of the answers."""
    client = OpenAI(base_url=f"http://{HOST}:{server.port}/v1", api_key="none", timeout=600)
    start = time.perf_counter()
    with ProcessMonitor(server.pid, 0.25) as monitor:
        before_mb = server.memory().now_mib * 1.048576
        with rows.open("rb") as file:
            input_file = client.files.create(file=file, purpose="batch")
        made = client.batches.create(input_file_id=input_file.id, endpoint="/v1/embeddings", completion_window="24h")
        while made.status in {"validating", "in_progress", "finalizing"}:
            time.sleep(_POLL_S)
            made = client.batches.retrieve(made.id)
        if made.status != "completed" or made.error_file_id:
            raise SystemExit(f"the batch is {made.status}: {made}")
        client.files.content(cast("str", made.output_file_id)).write_to_file(out)
        seconds = time.perf_counter() - start
    for file_id in (input_file.id, made.output_file_id):
        client.files.delete(cast("str", file_id))
    return Measured(seconds, max(sample.rss_mb for sample in monitor.samples) - before_mb)


def client_loop(server: Server, rows: Sequence[str], size: int, out: Path) -> Measured:
    """Embed the texts as a script does: several requests at once, each with that many texts."""

    async def run() -> None:
        turns = asyncio.Semaphore(_IN_FLIGHT)
        async with AsyncOpenAI(base_url=f"http://{HOST}:{server.port}/v1", api_key="none", timeout=600) as client:

            async def send(chunk: Sequence[str]) -> list[list[float]]:
                async with turns:
                    reply = await client.embeddings.create(model=server.spec.model, input=[*chunk])
                    return [item.embedding for item in reply.data]

            vectors = await asyncio.gather(*(send(chunk) for chunk in chunks(rows, size)))
        np.save(out, np.concatenate([np.array(part, np.float32) for part in vectors]))

    start = time.perf_counter()
    asyncio.run(run())
    return Measured(time.perf_counter() - start)


def other_client(server: Server) -> dict[str, float]:
    """Return p50 and p99 in ms, and requests/s, of a client that sends one short text after another."""
    stream = embed_requests("S", 1, "base64").stream(server.spec, 1)
    result = server.run(LoadSpec(port=server.port, streams=(stream,), duration_s=_CLIENT_S)).streams[0]
    if result.failures:
        raise SystemExit(f"the other client got {result.failures}")
    return {"p50_ms": result.p50_ms, "p99_ms": result.p99_ms, "requests_per_s": result.requests_per_s}


def beside_a_batch(server: Server, rows: Path) -> dict[str, float]:
    """Return ``other_client``'s figures while a batch runs, and the batch's lines/s; then cancel the batch."""
    client = OpenAI(base_url=f"http://{HOST}:{server.port}/v1", api_key="none")
    with rows.open("rb") as file:
        input_file = client.files.create(file=file, purpose="batch")
    made = client.batches.create(input_file_id=input_file.id, endpoint="/v1/embeddings", completion_window="24h")
    while made.status == "validating":
        time.sleep(_POLL_S)
        made = client.batches.retrieve(made.id)
    first, start = done_lines(client, made.id), time.perf_counter()
    found = other_client(server)
    lines_per_s = (done_lines(client, made.id) - first) / (time.perf_counter() - start)
    if client.batches.retrieve(made.id).status == "completed":
        raise SystemExit("the batch ended before the other client did: use more rows")
    client.batches.cancel(made.id)
    return found | {"lines_per_s": lines_per_s}


def done_lines(client: OpenAI, batch_id: str) -> int:
    """Return how many lines of a batch are answered."""
    counts = client.batches.retrieve(batch_id).request_counts
    return counts.completed if counts else 0


def batch_lines(rows: Sequence[str], model: str, inputs: int) -> Iterator[bytes]:
    """Yield the lines of a batch file, each of so many texts."""
    for at, chunk in enumerate(chunks(rows, inputs)):
        body = {"model": model, "input": chunk[0] if inputs == 1 else chunk, "encoding_format": "base64"}
        line = {"custom_id": f"row-{at}", "method": "POST", "url": "/v1/embeddings", "body": body}
        yield json.dumps(line).encode() + b"\n"


def main() -> None:
    """Run the benchmark, print the tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder  [default: the built-in model]")
    parser.add_argument("--engine", default="openvino", help="as for `nearfar serve`  [default: openvino]")
    parser.add_argument("--dtype", help="as for `nearfar serve`  [default: bfloat16 where the CPU has it]")
    parser.add_argument("--size", choices=COUNTS, default="S", help="size of the texts  [default: S]")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inputs", type=int, default=1, help="texts of a batch's line  [default: 1]")
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts), flush=True)
    dtype: Dtype = arguments.dtype or ("bfloat16" if BFLOAT16 & set(facts["simd"]) else "float32")
    size: Size = arguments.size
    with tempfile.TemporaryDirectory() as temporary:
        result = run(Path(temporary), arguments, size, dtype)
    write_json(RESULTS / "bulk.json", {"machine": facts, "arguments": vars(arguments), "dtype": dtype} | result)


def run(folder: Path, arguments: argparse.Namespace, size: Size, dtype: Dtype) -> dict[str, Any]:
    """Measure everything, print the tables, and return the figures."""
    rows = texts(size, arguments.rows)
    spec = nearfar(model=arguments.model, engine=arguments.engine, dtype=dtype)
    spec = replace(spec, environment=spec.environment | {"NEARFAR_STATE_DIR": str(folder / "state")})
    one, many, lines = (folder / name for name in ("one.jsonl", "many.jsonl", "batch.jsonl"))
    one.write_text(json.dumps(rows[0]) + "\n")
    many.write_text("".join(json.dumps(text) + "\n" for text in rows))
    lines.write_bytes(b"".join(batch_lines(rows, spec.model, arguments.inputs)))
    out, options = folder / "out.npy", ["--engine", arguments.engine, "--dtype", dtype]
    options += ["--model", arguments.model] if arguments.model else []
    engine = open_engine(arguments.engine, dtype, Path(model_folder(arguments.model)), RESULTS / "cache")
    if isinstance(engine, str):
        raise SystemExit(f"{arguments.engine}: {engine}")
    command(one, out, options)  # the model is converted and verified once
    start_s = command(one, out.with_name("one.npy"), options).seconds
    with Server(spec, RESULTS / "bulk.log") as server:
        tried = {size: client_loop(server, rows[:_TRIED], size, out).seconds for size in _REQUEST_SIZES}
        request_size = min(tried, key=lambda size: tried[size])
        ways: dict[str, Callable[[], Measured]] = {
            "engine alone": lambda: engine_alone(engine, rows, out),
            "nearfar embed": lambda: command(many, out, options),
            "batch": lambda: batch(server, lines, out),
            f"client's loop, {request_size} texts × {_IN_FLIGHT}": lambda: client_loop(server, rows, request_size, out),
        }
        measured = measure(ways, arguments.rounds, out)
        measured["nearfar embed"] = [one._replace(seconds=one.seconds - start_s) for one in measured["nearfar embed"]]
        print(speed_table(measured, len(rows)) + f"\nnearfar embed starts in {start_s:.1f} s\n")
        client = {"without a batch": other_client(server), "beside a batch": beside_a_batch(server, lines)}
        print(client_table(client))
    speeds = {name: [each._asdict() for each in rounds] for name, rounds in measured.items()}
    return {"start_s": start_s, "request_size_s": tried, "ways": speeds, "client": client}


def measure(ways: dict[str, Callable[[], Measured]], rounds: int, out: Path) -> dict[str, list[Measured]]:
    """Embed all texts each way, round by round."""
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, run_way in ways.items():
            out.unlink(missing_ok=True)
            found[name].append(run_way())
            print(f"round {turn + 1}/{rounds}  {name:<32}{found[name][-1].seconds:>9.1f} s", flush=True)
    return found


def speed_table(measured: dict[str, list[Measured]], count: int) -> str:
    """Return rows/s, their ratio to the engine alone, and the memory, as a table."""
    alone = [each.seconds for each in measured["engine alone"]]
    rows = [
        [
            name,
            median_and_range(spread([count / each.seconds for each in rounds])),
            median_and_range(spread([base / each.seconds for base, each in zip(alone, rounds, strict=True)])),
            number(statistics.median(each.memory_mb for each in rounds)),
        ]
        for name, rounds in measured.items()
    ]
    return table(["", "rows/s", "× the engine alone", "memory MB"], rows)


def client_table(client: dict[str, dict[str, float]]) -> str:
    """Return the other client's figures as a table."""
    names = ("p50_ms", "p99_ms", "requests_per_s", "lines_per_s")
    rows = [[name, *(number(found.get(key, float("nan"))) for key in names)] for name, found in client.items()]
    return table(["another client", "p50 ms", "p99 ms", "requests/s", "batch's lines/s"], rows)


if __name__ == "__main__":
    main()
