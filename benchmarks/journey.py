"""How far does a request travel through the code? ``python benchmarks/journey.py --help``.

Counts the files of nearfar that one request of each kind enters, and the calls of nearfar's functions. The application
runs in process and is warm. A generator or coroutine that resumes counts again, as the interpreter reports it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nearfar
from nearfar import Settings, create_app

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from litestar import Litestar

SOURCE = str(Path(nearfar.__file__).parent)
TEXT = "What is a vector database?"
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "1 text": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": TEXT}),
    "32 texts": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": [f"{TEXT} {n}" for n in range(32)]}),
    "token ids": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": [3923, 374, 264, 4724, 4729, 30]}),
    "rerank of 3": (
        "/v2/rerank",
        {"model": "rerank-v3.5", "query": TEXT, "documents": ["A database of vectors.", "A recipe.", "A vector."]},
    ),
}


class CallCounter:
    """Counts calls by function, in all threads, while it is active."""

    def __init__(self) -> None:
        self.calls: Counter[CodeType] = Counter()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Count the call of a function of nearfar; called by the interpreter."""
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            self.calls[frame.f_code] += 1

    @property
    def files(self) -> Counter[str]:
        """Return the calls by file, relative to the package."""
        counts: Counter[str] = Counter()
        for code, count in self.calls.items():
            counts[code.co_filename.removeprefix(SOURCE).lstrip("/")] += count
        return counts


async def post(app: Litestar, path: str, body: dict[str, Any]) -> None:
    """Send one request to the application and read its answer. Raises RuntimeError for one that isn't a 200."""
    sent = asyncio.Event()
    incoming: list[dict[str, Any]] = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif not message.get("more_body"):
            sent.set()

    headers = [(b"host", b"127.0.0.1:9000"), (b"content-type", b"application/json")]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
    }
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 9000), "state": {}, "extensions": {}}
    await app(scope, receive, send)  # type: ignore[arg-type]
    if statuses != [200]:
        raise RuntimeError(f"{path} answered {statuses}")


async def measure(settings: Settings) -> dict[str, CallCounter]:
    """Count the calls of each request, the fourth of its kind, so that caches are warm."""
    threads = CallCounter()
    threading.setprofile(threads)  # for the threads that start from here on: the engine's and the tokenizer's
    app = create_app(settings)
    found = {}
    async with app.lifespan():
        await app.state.fleet.opened()
        for name, (path, body) in REQUESTS.items():
            for _ in range(3):
                await post(app, path, body)
            threads.calls.clear()
            counter = CallCounter()
            sys.setprofile(counter)
            await post(app, path, body)
            await asyncio.sleep(0.05)  # the queue's bookkeeping after the answer counts too
            sys.setprofile(None)
            counter.calls += threads.calls
            found[name] = counter
    threading.setprofile(None)
    return found


def main() -> None:
    """Print the counts, and for one kind of request where its calls go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="auto", help="engine to run the built-in model on  [default: auto]")
    parser.add_argument("--show", choices=REQUESTS, help="list the files and functions that this request enters")
    arguments = parser.parse_args()
    found = asyncio.run(measure(Settings(engine=arguments.engine)))
    print(f"{'request':<12} {'files':>5} {'calls':>5}")
    for name, counter in found.items():
        print(f"{name:<12} {len(counter.files):>5} {sum(counter.calls.values()):>5}")
    if arguments.show:
        counter = found[arguments.show]
        for file, calls in counter.files.most_common():
            print(f"\n{calls:>4} {file}")
            own = [(n, code) for code, n in counter.calls.items() if code.co_filename == f"{SOURCE}/{file}"]
            for calls_of, code in sorted(own, key=lambda item: -item[0]):
                print(f"     {calls_of:>4} {code.co_qualname}")


if __name__ == "__main__":
    main()
