"""Does ``nearfar serve`` stay as it was after an hour of everything? ``python benchmarks/soak.py --help``.

Callers of every dialect ask for much and for little, send what is wrong, hang up, and leave bodies half sent; from
outside, the process' memory, threads and open files are looked at. Ends with 1 if anything came back that shouldn't
have, or anything grows.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calls import Call, Calls
from launch import Server, StartError
from machine import describe, machine_facts
from ours import nearfar_recipe
from watch import Sample, Watch, growth, mb_a_minute

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOG = Path(__file__).parent / "results" / "soak.log"
_HOST = "127.0.0.1"
_MOST_MB_A_MINUTE = 1.0
_MOST_FILES = 8  # connections of callers who are just leaving; more is a leak
_WARM_SHARE = 0.25  # of the run; the allocator's pools and every size of batch have been seen by then, as a rule
_PATIENCE_S = 120.0
_TOLD = 20  # unexpected answers that are shown


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for."""

    minutes: float
    callers: int
    engine: str | None
    seed: int


class Soak:
    """Callers, and what came of their calls."""

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._seed = port, seed
        self.done: Counter[str] = Counter()
        self.unexpected: list[str] = []

    async def run(self, callers: int, seconds: float) -> None:
        """Let so many call until the time is over, one call after the other each."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._caller(Calls(self._seed + number), until) for number in range(callers)))

    async def _caller(self, calls: Calls, until: float) -> None:
        while time.monotonic() < until:
            call = calls.next()
            self.done[call.name] += 1
            try:
                status = await asyncio.wait_for(self._send(call), _PATIENCE_S)
            except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
                self.unexpected.append(f"{call.name}: {error!r}")
                continue
            if status not in {None, call.expected}:
                self.unexpected.append(f"{call.name}: {status} instead of {call.expected}")

    async def _send(self, call: Call) -> int | None:
        """Send one call on a connection of its own; give the status, None where the caller left before it."""
        reader, writer = await asyncio.open_connection(_HOST, self._port)
        head = f"POST {call.path} HTTP/1.1\r\nHost: {_HOST}\r\nConnection: close\r\n"
        head += f"Content-Length: {len(call.body)}\r\n\r\n"
        try:
            writer.write(head.encode() + call.body[: round(len(call.body) * call.sends)])
            if call.leaves_s is None:
                return await _status(reader)
            await asyncio.wait((asyncio.ensure_future(reader.read(1)),), timeout=call.leaves_s)
            return None
        finally:
            writer.transport.abort() if call.leaves_s is not None else writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    """Read an answer to its end; give its status. A server that has refused a body may hang up on the rest of it."""
    line = await reader.readline()
    if not line:
        raise ConnectionError("no answer")
    try:
        while await reader.read(1 << 16):
            pass
    except ConnectionError:
        pass
    return int(line.split()[1])


def tell(samples: Sequence[Sample], soak: Soak, warm_s: float) -> bool:
    """Print what was seen; say whether it is as it should be."""
    counted = [sample for sample in samples if sample.at_s >= warm_s]
    slope = mb_a_minute(counted)
    threads, files = growth([each.threads for each in counted]), growth([each.files for each in counted])
    print(f"calls: {sum(soak.done.values()):,}; " + ", ".join(f"{name} {n:,}" for name, n in sorted(soak.done.items())))
    print(f"unexpected: {len(soak.unexpected)}")
    for line in soak.unexpected[:_TOLD]:
        print(f"  {line}")
    if counted:
        first, last = counted[0], counted[-1]
        print(f"after {warm_s:.0f} s: memory {first.rss_mb:.0f} → {last.rss_mb:.0f} MB, {slope:+.2f} MB/min")
        print(f"threads {first.threads} → {last.threads}, {threads:+.0f}")
        print(f"files {first.files} → {last.files}, {files:+.0f}")
    return not soak.unexpected and slope < _MOST_MB_A_MINUTE and threads <= 0 and files <= _MOST_FILES


def read_command_line() -> Asked:
    """Read what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--engine", help="as `nearfar serve` takes it")
    parser.add_argument("--seed", type=int, default=1)
    return Asked(**vars(parser.parse_args()))


def main() -> None:
    """Soak a server, tell, and end with 0 if it is as it was."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the server is ended as well
    asked = read_command_line()
    print(describe(machine_facts()), flush=True)
    try:
        with Server(nearfar_recipe(engine=asked.engine), _LOG) as server, Watch(server.pid) as watch:
            soak = Soak(server.port, asked.seed)
            asyncio.run(soak.run(asked.callers, asked.minutes * 60))
    except StartError as error:
        raise SystemExit(f"the server {error}") from error
    sys.exit(0 if tell(watch.samples, soak, asked.minutes * 60 * _WARM_SHARE) else 1)


if __name__ == "__main__":
    main()
