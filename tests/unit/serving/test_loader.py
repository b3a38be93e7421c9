"""Loader: models are loaded on demand within the budget, and never unloaded while a request uses them."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from checkpoints import write_transformer
from conftest import calling, ignore, until
from nearfar_fakes import FakeEngine, GatedKind
from prometheus_client.parser import text_string_to_metric_families

from nearfar import ModelSettings, Settings, create_app
from nearfar.core.errors import CheckpointError, ModelNotReady, SettingsError
from nearfar.engines.selection import EngineChoice
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.registry.names import VendorNames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import httpx
    from litestar import Litestar

    from nearfar.serving.registry.slot import Slot

pytestmark = pytest.mark.anyio

OPENAI = "/v1/embeddings"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write four models of one size, called a to d."""
    at = tmp_path_factory.mktemp("models")
    return {name: write_transformer(at / name, "bert") for name in "abcd"}


@pytest.fixture(scope="module")
def size(folders: dict[str, Path]) -> int:
    """Return the bytes of any of them."""
    return (folders["a"] / "model.safetensors").stat().st_size


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Several:
    """A running application, and the kind of engine behind each of its models."""

    def __init__(self, app: Litestar, client: httpx.AsyncClient, kinds: dict[str, GatedKind]) -> None:
        self.app = app
        self.client = client
        self.kinds = kinds
        self.fleet: Fleet = app.state.fleet

    def slot(self, name: str) -> Slot:
        return next(slot for slot in self.fleet._slots if slot.is_called(name))

    def engine(self, name: str) -> FakeEngine:
        return self.kinds[name].engines[-1]

    def states(self) -> str:
        """Return the names of the loaded models."""
        return "".join(state.name for state in self.fleet.states() if state.state == "loaded")

    def most_there(self) -> int:
        """Count the engines that were open at once."""
        return max(kind.most_there for kind in self.kinds.values())

    def is_in(self, name: str, state: str) -> Callable[[], bool]:
        return lambda: self.slot(name).state == state

    async def ask(self, name: str, text: str = "fox") -> httpx.Response:
        return await self.client.post(OPENAI, json={"model": name, "input": text})

    async def ask_all(self, names: str) -> list[int]:
        return [(await self.ask(name)).status_code for name in names]

    def asking(self, name: str, text: str = "fox") -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(self.ask(name, text))

    async def order(self, what: str, name: str) -> httpx.Response:
        return await self.client.post(f"/admin/models/{what}", json={"model": name})

    @asynccontextmanager
    async def in_use(self, name: str) -> AsyncIterator[None]:
        """Keep a request to the model from ending, and see that it ends well."""
        engine = self.engine(name)
        engine.gate.clear()
        before = len(engine.batches)
        asking = self.asking(name, "slow")
        await until(lambda: len(engine.batches) > before)
        try:
            yield
        finally:
            engine.gate.set()
        answer = await asking
        assert (200, name) == (answer.status_code, answer.json()["model"])

    async def metrics(self) -> dict[tuple[str, ...], float]:
        text = (await self.client.get("/metrics")).text
        return {
            (sample.name.removeprefix("nearfar_model_"), *(sample.labels[label] for label in sorted(sample.labels))): (
                sample.value
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("nearfar_model_")
        }


@asynccontextmanager
async def serving(
    folders: dict[str, Path], names: str, clock: Clock | None = None, *, pinned: str = "", **settings: Any
) -> AsyncIterator[Several]:
    """Serve the models of these one-letter names, none of them loaded yet, each with its own gated engine."""
    models = tuple(ModelSettings(name=str(folders[name]), pin=name in pinned) for name in names)
    app = create_app(Settings(models=models, engine="fake", verify=False, load="demand", **settings))
    fleet: Fleet = app.state.fleet
    if clock:
        fleet._clock = fleet._loader._clock = clock
    there: list[FakeEngine] = []
    kinds = {name: GatedKind(there) for name in names}
    async with asyncio.timeout(60), app.lifespan(), calling(app) as client:
        await fleet.opened()
        for slot in fleet._slots:
            choices = [EngineChoice(name="fake", kind=kinds[slot.name], reason="requested")]
            slot.discovered = msgspec.structs.replace(slot.discovered, choices=choices)
        yield Several(app, client, kinds)
        for kind in kinds.values():
            kind.gate.set()
    assert all(engine.closed for engine in there)


async def test_a_model_on_demand_is_listed_before_its_first_request_loads_it(
    folders: dict[str, Path], size: int
) -> None:
    async with serving(folders, "ab") as several:
        listed = (await several.client.get("/v1/models")).json()["data"]
        one = await several.client.get("/v1/models/b")
        before = (await several.client.get("/info")).json()["models"]
        ready = await several.client.get("/health/ready")
        answer = await several.ask("b")
        after = (await several.client.get("/info")).json()["models"]

    assert ["a", "b"] == [model["id"] for model in listed]
    assert [200, 200, 200] == [one.status_code, ready.status_code, answer.status_code]
    assert [("a", "unloaded"), ("b", "unloaded")] == [(model["name"], model["state"]) for model in before]
    assert ["unloaded", "loaded"] == [model["state"] for model in after]
    assert ["not loaded yet", "requested"] == [model["dtype_reason"] for model in after]
    assert all(0.9 * size < model["bytes"] <= size for model in before)  # the file has a header as well


async def test_errors_and_descriptions_need_no_loaded_model(folders: dict[str, Path]) -> None:
    async with serving(folders, "ab") as several:
        unknown = await several.ask("nobody")
        no_prompt = await several.ask("a:web")
        asked = [
            await several.client.get("/v1/models/text-embedding-3-small"),
            await several.client.get("/v1/models/x"),
        ]

        assert "" == several.states()

    assert [404, 404] == [unknown.status_code, no_prompt.status_code]
    assert [200, 404] == [answer.status_code for answer in asked]


@pytest.mark.parametrize(
    ("asked", "there"),
    [("ab", "ab"), ("abc", "bc"), ("abac", "ac"), ("abca", "ac"), ("abcabc", "bc"), ("abcd", "cd"), ("abbbac", "ac")],
)
async def test_the_least_recently_used_model_is_evicted(
    asked: str, there: str, folders: dict[str, Path], size: int
) -> None:
    async with serving(folders, "abcd", memory_budget=2 * size) as several:
        statuses = await several.ask_all(asked)

        assert there == several.states()
        assert 2 == several.most_there()

    assert [200] * len(asked) == statuses


async def test_a_pinned_model_is_never_evicted(folders: dict[str, Path], size: int) -> None:
    async with serving(folders, "abc", pinned="a", memory_budget=2 * size) as several:
        await several.ask_all("abcbcb")

        assert "ab" == several.states()
        assert 1 == len(several.kinds["a"].requests)


async def test_a_model_in_use_is_unloaded_only_after_its_request_was_answered(
    folders: dict[str, Path], size: int
) -> None:
    async with serving(folders, "ab", memory_budget=size) as several:
        await several.ask("a")
        async with several.in_use("a"):
            waiting = several.asking("b")
            await until(several.is_in("a", "unloading"))  # after a second; the request still runs
            assert not several.engine("a").closed
        answer = await waiting

        assert several.kinds["a"].engines[0].closed
        assert "b" == several.states()

    assert (200, "b") == (answer.status_code, answer.json()["model"])


async def test_a_model_that_is_always_in_use_is_evicted_and_loaded_again(folders: dict[str, Path], size: int) -> None:
    """New requests for it wait meanwhile: if each overlapped with the next, the other would never get its turn."""
    async with serving(folders, "ab", memory_budget=size) as several:
        await several.ask("a")
        async with several.in_use("a"):
            other = several.asking("b")
            await until(several.is_in("a", "unloading"))
            late = several.asking("a", "late")
            await until(lambda: several.slot("a").waiting == 1)
        answers = [await other, await late]

        assert ["b", "a"] == [answer.json()["model"] for answer in answers]
        assert 2 == len(several.kinds["a"].requests)
        assert "a" == several.states()


async def test_an_idle_model_is_evicted_rather_than_one_in_use(folders: dict[str, Path], size: int) -> None:
    async with serving(folders, "abc", memory_budget=2 * size) as several:
        await several.ask_all("ab")
        async with several.in_use("a"):
            await several.ask("b")  # more recently than the other one
            answer = await several.ask("c")

            assert "ac" == several.states()

    assert 200 == answer.status_code


async def test_no_model_is_evicted_for_a_cancelled_request(folders: dict[str, Path], size: int) -> None:
    async with serving(folders, "ab", memory_budget=size) as several:
        await several.ask("a")
        async with several.in_use("a"):
            waiting = several.asking("b")
            await until(several.is_in("a", "unloading"))
            waiting.cancel()
            await until(several.is_in("a", "loaded"))

        assert (await several.metrics()).get(("evictions_total", "a", "memory")) is None
        assert not several.kinds["b"].requests


async def test_a_wait_for_memory_ends_at_the_request_timeout_with_retry_after(
    folders: dict[str, Path], size: int
) -> None:
    async with serving(folders, "ab", memory_budget=size, request_timeout_s=0.2) as several:
        await several.ask("a")
        leased, _ = await several.fleet.lease("a", ("embed",))
        late = await several.ask("b")
        several.fleet.end_lease(leased)

        assert "a" == several.states()

    assert 503 == late.status_code
    assert "1" == late.headers["retry-after"]


@pytest.mark.parametrize(
    ("pinned", "share", "says"),
    [
        ("", 0.5, r"^memory_budget: a needs [\d,]+ bytes in auto precision, and the budget is [\d,]+; raise it,"),
        ("ab", 1.5, r"^memory_budget: a needs [\d,]+ bytes beside the pinned models in auto"),
        ("b", 1.5, r"^memory_budget: a needs [\d,]+ bytes beside the pinned models in auto"),
    ],
)
async def test_a_model_that_could_never_be_loaded_is_refused_at_the_start(
    pinned: str, share: float, says: str, folders: dict[str, Path], size: int
) -> None:
    models = tuple(ModelSettings(name=str(folders[name]), pin=name in pinned) for name in "ab")
    fleet = Fleet(
        Settings(models=models, engine="fake", verify=False, memory_budget=int(share * size)),
        VendorNames({}, {}),
        ignore,
    )
    fleet.start()

    with pytest.raises(SettingsError, match=says):
        await asyncio.wait_for(fleet.opened(), 30)
    await fleet.close()


async def test_every_model_is_loaded_once_at_the_start_whatever_the_budget(folders: dict[str, Path], size: int) -> None:
    """So that a damaged one is found at the start, and not by its first caller."""
    models = tuple(ModelSettings(name=str(folders[name])) for name in "abc")
    app = create_app(Settings(models=models, engine="fake", verify=False, memory_budget=2 * size))

    async with app.lifespan(), calling(app) as client:
        await app.state.fleet.opened()
        ready = await client.get("/health/ready")
        states = [state.state for state in app.state.fleet.states()]
        again = await client.post(OPENAI, json={"model": "text-embedding-3-small", "input": "fox"})

    assert ["unloaded", "loaded", "loaded"] == states
    assert [200, 200] == [ready.status_code, again.status_code]
    assert "a" == again.json()["model"]


async def test_a_vendors_name_loads_the_default_model_that_was_evicted(folders: dict[str, Path], size: int) -> None:
    async with serving(folders, "ab", memory_budget=size) as several:
        answers = [await several.ask(name) for name in ("text-embedding-3-small", "b", "text-embedding-3-small")]

    assert ["a", "b", "a"] == [answer.json()["model"] for answer in answers]


async def test_a_model_is_unloaded_after_its_idle_timeout(folders: dict[str, Path]) -> None:
    clock = Clock()
    async with serving(folders, "abcd", clock, pinned="c", idle_timeout_s=60) as several:
        await several.ask_all("abc")
        clock.now_s += 40
        await several.ask("b")
        early = await several.fleet._loader.unload_idle()
        there = several.states()
        clock.now_s += 20
        due = await several.fleet._loader.unload_idle()

        assert ("abc", 20) == (there, early)
        assert [None, 40, None, None] == [state.closes_in_s for state in several.fleet.states()]
        assert ("bc", 40) == (several.states(), due)
        assert (await several.metrics())["evictions_total", "a", "idle"] == 1
        assert 200 == (await several.ask("a")).status_code


async def test_a_model_in_use_is_not_idle_however_long_its_request_takes(folders: dict[str, Path]) -> None:
    clock = Clock()
    async with serving(folders, "a", clock, idle_timeout_s=60) as several:
        await several.ask("a")
        async with several.in_use("a"):
            clock.now_s += 1000
            due = await several.fleet._loader.unload_idle()
        clock.now_s += 59
        after = await several.fleet._loader.unload_idle()

        assert (60, 1) == (due, after)
        assert "a" == several.states()


async def test_the_server_unloads_idle_models(folders: dict[str, Path]) -> None:
    async with serving(folders, "a", idle_timeout_s=0.01) as several:
        await several.ask("a")
        await until(several.is_in("a", "unloaded"))

        assert 200 == (await several.ask("a")).status_code
        assert 200 == (await several.client.get("/health/ready")).status_code


async def test_all_waiting_requests_share_one_load(folders: dict[str, Path]) -> None:
    async with serving(folders, "ab") as several:
        several.kinds["a"].gate.clear()
        waiting = [several.asking("a", f"text {number}") for number in range(20)]
        await until(lambda: several.slot("a").waiting == 20)
        state = several.slot("a").state
        several.kinds["a"].gate.set()
        answers = await asyncio.gather(*waiting)

        assert "loading" == state
        assert 1 == len(several.kinds["a"].requests)
        assert 0 == several.slot("a").describe(0).requests

    assert [200] * 20 == [answer.status_code for answer in answers]


async def test_other_models_answer_during_a_load(folders: dict[str, Path]) -> None:
    async with serving(folders, "ab") as several:
        await several.ask("b")
        several.kinds["a"].gate.clear()
        waiting = several.asking("a")
        await until(lambda: bool(several.kinds["a"].requests))
        answer = await several.ask("b")
        several.kinds["a"].gate.set()
        await waiting

    assert 200 == answer.status_code


async def test_a_request_that_is_cancelled_during_a_load_leaves_it_to_the_others(folders: dict[str, Path]) -> None:
    async with serving(folders, "a") as several:
        several.kinds["a"].gate.clear()
        leaving, staying = several.asking("a"), several.asking("a")
        await until(lambda: several.slot("a").waiting == 2 and bool(several.kinds["a"].requests))
        leaving.cancel()
        await until(lambda: several.slot("a").waiting == 1)
        several.kinds["a"].gate.set()
        answer = await staying

        assert 1 == len(several.kinds["a"].requests)

    assert 200 == answer.status_code


async def test_a_load_that_has_begun_ends_even_without_waiting_requests(folders: dict[str, Path]) -> None:
    async with serving(folders, "a") as several:
        several.kinds["a"].gate.clear()
        leaving = several.asking("a")
        await until(lambda: bool(several.kinds["a"].requests))
        leaving.cancel()
        await until(lambda: several.slot("a").waiting == 0)
        several.kinds["a"].gate.set()
        await until(several.is_in("a", "loaded"))


async def test_a_load_requested_while_another_is_being_cancelled_starts_again(
    folders: dict[str, Path], size: int
) -> None:
    """The cancelled load has not ended yet: neither it nor an older failure counts."""
    async with serving(folders, "ab", Clock(), memory_budget=size) as several:
        loader, b = several.fleet._loader, several.slot("b")
        several.kinds["b"].failures = [RuntimeError()]
        failed = await several.ask("b")
        b.reset_backoff()
        leased, _ = await several.fleet.lease("a", ("embed",))
        leaving = asyncio.create_task(loader.wait_until_loaded(b))
        await until(lambda: b.waiting == 1)
        dying = b.loading
        leaving.cancel()
        await asyncio.sleep(0)
        assert dying
        assert (0, 1, False) == (b.waiting, dying.cancelling(), dying.done())
        loading = asyncio.create_task(several.fleet.load("b"))
        await asyncio.sleep(0)
        several.fleet.end_lease(leased)
        state = await loading

        assert dying.cancelled()
        assert 2 == len(several.kinds["b"].requests)

    assert (503, "loaded") == (failed.status_code, state.state)


async def test_with_while_loading_refuse_a_request_gets_retry_after(
    folders: dict[str, Path],
) -> None:
    """It is what remains of the time that the last load took."""
    clock = Clock()
    async with serving(folders, "a", clock, while_loading="refuse") as several:
        kind = several.kinds["a"]
        kind.gate.clear()
        first = await several.ask("a")
        await until(lambda: len(kind.requests) == 1)
        clock.now_s += 30
        kind.gate.set()
        await until(several.is_in("a", "loaded"))
        loaded = await several.ask("a")
        await several.order("unload", "a")
        kind.gate.clear()
        second = await several.ask("a")
        await until(lambda: len(kind.requests) == 2)
        clock.now_s += 18
        third = await several.ask("a")
        kind.gate.set()
        await until(several.is_in("a", "loaded"))

    assert [503, 200, 503, 503] == [answer.status_code for answer in (first, loaded, second, third)]
    assert ["1", "30", "12"] == [answer.headers["retry-after"] for answer in (first, second, third)]


@pytest.mark.parametrize(
    "failure", [CheckpointError("a private path"), RuntimeError("a private path"), MemoryError(), StopIteration()]
)
async def test_a_failed_load_fails_all_waiting_requests_and_a_later_one_may_succeed(
    failure: Exception, folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with serving(folders, "ab", clock) as several:
        kind = several.kinds["a"]
        await several.ask("b")
        kind.gate.clear()
        kind.failures = [failure]
        waiting = [several.asking("a") for _ in range(5)]
        await until(lambda: several.slot("a").waiting == 5)
        kind.gate.set()
        failed = await asyncio.gather(*waiting)
        soon = await several.ask("a")
        other = await several.ask("b")
        ready = await several.client.get("/health/ready")
        clock.now_s += 1
        later = await several.ask("a")
        counted = await several.metrics()

    assert [503] * 6 == [answer.status_code for answer in (*failed, soon)]
    assert ["1"] * 6 == [answer.headers["retry-after"] for answer in (*failed, soon)]
    assert "private" not in "".join(answer.text for answer in failed)
    assert [200, 200, 200] == [answer.status_code for answer in (other, ready, later)]
    assert 1 == sum("model a failed to load" in message for message in caplog.messages)
    assert [1, 1] == [counted["load_duration_seconds_count", failed, "a"] for failed in ("true", "false")]


async def test_the_backoff_after_failed_loads_grows_and_an_explicit_load_skips_it(
    folders: dict[str, Path],
) -> None:
    clock = Clock()
    async with serving(folders, "a", clock) as several:
        several.kinds["a"].failures = [RuntimeError() for _ in range(9)]
        pauses = []
        for _ in range(8):
            pauses.append(int((await several.ask("a")).headers["retry-after"]))
            clock.now_s += pauses[-1]
        clock.now_s -= 1
        ordered = [await several.order("load", "a"), await several.order("load", "a")]

    assert [1, 2, 4, 8, 16, 32, 60, 60] == pauses
    assert [503, 200] == [answer.status_code for answer in ordered]


async def test_a_model_that_fails_at_the_start_is_logged_once_and_prevents_readiness(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = write_transformer(tmp_path / "damaged", "bert")
    (damaged / "tokenizer.json").write_text("{")
    models = tuple(ModelSettings(name=str(folder)) for folder in (folders["a"], damaged))
    app = create_app(Settings(models=models, engine="fake", verify=False))

    async with app.lifespan(), calling(app) as client:
        with pytest.raises(CheckpointError):
            await app.state.fleet.opened()
        ready = await client.get("/health/ready")

    assert 503 == ready.status_code
    assert 1 == sum("damaged" in record.getMessage() for record in caplog.records if record.levelname == "ERROR")


async def test_a_model_is_unloaded_once_its_request_has_ended_and_the_next_request_loads_it(
    folders: dict[str, Path],
) -> None:
    async with serving(folders, "a") as several:
        await several.order("load", "a")
        async with several.in_use("a"):
            unloading = asyncio.create_task(several.order("unload", "a"))
            await until(several.is_in("a", "unloading"))
            late = several.asking("a")
            await until(lambda: several.slot("a").waiting == 1)
            loading = several.slot("a").loading
            for _ in range(10):
                await asyncio.sleep(0)
            assert loading is several.slot("a").loading  # one that waits, not one after another
            assert not several.engine("a").closed
        unloaded, after = await unloading, await late

        assert [200, 200] == [unloaded.status_code, after.status_code]
        assert [True, False] == [engine.closed for engine in several.kinds["a"].engines]
        assert (await several.metrics())["evictions_total", "a", "asked"] == 1


async def test_a_cancelled_unload_leaves_the_model_loaded(folders: dict[str, Path]) -> None:
    async with serving(folders, "a") as several:
        await several.ask("a")
        async with several.in_use("a"):
            unloading = asyncio.create_task(several.order("unload", "a"))
            await until(several.is_in("a", "unloading"))
            late = several.asking("a")
            await until(lambda: several.slot("a").waiting == 1)
            unloading.cancel()
            await until(several.is_in("a", "loaded"))
        answer = await late

        assert 200 == answer.status_code
        assert 1 == len(several.kinds["a"].requests)


async def test_an_unload_waits_for_a_model_that_loads(folders: dict[str, Path]) -> None:
    async with serving(folders, "a") as several:
        several.kinds["a"].gate.clear()
        asking = several.asking("a")
        await until(lambda: bool(several.kinds["a"].requests))
        unloading = asyncio.create_task(several.order("unload", "a"))
        await until(several.is_in("a", "loading"))
        several.kinds["a"].gate.set()
        answer, unloaded = await asking, await unloading

    assert 200 == answer.status_code
    assert "unloaded" == unloaded.json()["state"]


async def test_an_unload_that_waits_for_a_failing_load_ends(folders: dict[str, Path]) -> None:
    """The waiting request is cancelled by then, so only the load itself can end the wait."""
    async with serving(folders, "a") as several:
        several.kinds["a"].gate.clear()
        several.kinds["a"].failures = [RuntimeError()]
        asking = several.asking("a")
        await until(lambda: bool(several.kinds["a"].requests))
        asking.cancel()
        await until(lambda: several.slot("a").waiting == 0)
        unloading = asyncio.create_task(several.order("unload", "a"))
        await until(lambda: bool(several.fleet._loader.changed.waiters))
        several.kinds["a"].gate.set()
        unloaded = await unloading

    assert "unloaded" == unloaded.json()["state"]


@pytest.mark.parametrize("then", ["comes back", "server ends"])
async def test_a_model_that_is_half_closed_is_closed_although_the_unload_was_cancelled(
    then: str, folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """And only once, whatever else closes it."""
    async with serving(folders, "a") as several:
        await several.ask("a")
        engine = several.engine("a")
        engine.way_out.clear()
        unloading = asyncio.create_task(several.order("unload", "a"))
        await until(lambda: bool(several.fleet._loader._closing))
        await asyncio.sleep(0)
        unloading.cancel()
        await asyncio.wait({unloading})
        state = several.slot("a").state
        later = several.asking("a") if then == "comes back" else asyncio.create_task(several.fleet.close())
        await asyncio.sleep(0)
        engine.way_out.set()
        await later

        assert "unloading" == state
        assert engine.closed
        assert [] == [record.exc_info for record in caplog.records if record.exc_info]
        assert ("a" if then == "comes back" else "") == several.states()


async def test_models_are_loaded_and_unloaded_by_admin_requests(folders: dict[str, Path]) -> None:
    async with serving(folders, "ab", pinned="b") as several:
        done = [
            (await several.order(what, name)).json()
            for what, name in [("load", "a"), ("load", "b"), ("load", "a"), ("unload", "b"), ("unload", "b")]
        ]

    assert [
        ("a", "loaded", False),
        ("b", "loaded", True),
        ("a", "loaded", False),
        ("b", "unloaded", True),
        ("b", "unloaded", True),
    ] == [(state["name"], state["state"], state["pin"]) for state in done]
    assert {"name", "state", "bytes", "pin", "requests", "closes_in_s"} == done[0].keys()
    assert {0} == {state["requests"] for state in done}


@pytest.mark.parametrize("what", ["load", "unload"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "nobody"}, 404),
        ({"model": "text-embedding-3-small"}, 404),
        ({}, 400),
        ({"model": 5}, 400),
        ([], 400),
    ],
)
async def test_an_admin_request_for_an_unknown_model_is_refused(
    what: str, body: object, status: int, faked: httpx.AsyncClient
) -> None:
    answer = await faked.post(f"/admin/models/{what}", json=body)

    assert status == answer.status_code
    assert {"error", "message"} == answer.json().keys()


async def test_a_model_is_loaded_again_with_the_same_engine_and_dtype(folders: dict[str, Path]) -> None:
    """The automatic choice is measured, and might be another the next time; vectors that are stored would not fit."""
    async with serving(folders, "a") as several:
        slot = several.slot("a")
        slot.discovered = msgspec.structs.replace(
            slot.discovered,
            choices=[*slot.discovered.choices, EngineChoice(name="other", kind=GatedKind(), reason="next")],
        )
        await several.ask("a")
        created = several.fleet.infos()[0].created
        await several.order("unload", "a")
        await several.ask("a")

        assert ["auto", "float32"] == [order.dtype for order in several.kinds["a"].requests]
        assert ["fake"] == [choice.name for choice in slot.discovered.choices]
        assert created == several.fleet.infos()[0].created


async def test_shutting_down_during_a_load_answers_the_waiting_requests(folders: dict[str, Path]) -> None:
    async with serving(folders, "ab") as several:
        several.kinds["a"].gate.clear()
        waiting = [several.asking("a"), several.asking("b")]
        await until(lambda: bool(several.kinds["a"].requests) and several.slot("b").waiting == 1)
        await several.fleet.close()
        answers = await asyncio.gather(*waiting)
        still_opening = several.fleet.is_opening
        several.kinds["a"].gate.set()
        await until(lambda: not several.fleet.is_opening)
        late = await several.ask("a")
        several.engine("a").close()  # what no one was left to do

        assert still_opening
        assert not several.kinds["b"].requests

    assert [503, 503, 503] == [answer.status_code for answer in (*answers, late)]


async def test_loads_evictions_and_weights_are_counted(folders: dict[str, Path], size: int) -> None:
    async with serving(folders, "abc", memory_budget=2 * size) as several:
        await several.ask_all("abca")
        counted = await several.metrics()
        sizes = {state.name: state.bytes for state in several.fleet.states()}

    assert {("evictions_total", "a", "memory"): 1, ("evictions_total", "b", "memory"): 1} == {
        key: value for key, value in counted.items() if key[0] == "evictions_total"
    }
    assert {"a": 2, "b": 1, "c": 1} == {
        key[-1]: value for key, value in counted.items() if key[0] == "load_duration_seconds_count"
    }
    assert {"a": sizes["a"], "c": sizes["c"]} == {
        key[-1]: value for key, value in counted.items() if key[0] == "weights_bytes"
    }


@pytest.mark.parametrize("seed", range(5))
async def test_random_loads_cancellations_and_unloads_lose_nothing_and_keep_the_budget(
    seed: int, folders: dict[str, Path], size: int
) -> None:
    """Requests cancelled at any moment, failing loads, unloads: afterwards every count is zero."""
    chance = random.Random(seed)  # noqa: S311 — only has to be different
    async with serving(folders, "abcd", Clock(), memory_budget=2 * size) as several:
        for kind in several.kinds.values():
            kind.failures = [RuntimeError() for _ in range(chance.randrange(2))]
        asked: list[tuple[str, asyncio.Task[httpx.Response]]] = []
        for number in range(300):
            name = chance.choice("abcd")
            asked.append((name, several.asking(name, f"text {number}")))
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                chance.choice(asked)[1].cancel()
            if chance.random() < 0.05:
                asked.append(("", asyncio.create_task(several.order("unload", name))))
            if chance.random() < 0.1:
                several.fleet._clock.now_s += 5  # type: ignore[attr-defined]  # the pause after a failure passes
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(task for _, task in asked), return_exceptions=True)

        assert {0} == {state.requests for state in several.fleet.states()}
        assert several.most_there() <= 2
        for (name, _), answer in zip(asked, answers, strict=True):
            if not isinstance(answer, asyncio.CancelledError):
                assert not isinstance(answer, BaseException)
                assert answer.status_code in {200, 503}
                assert not name or answer.status_code == 503 or name == answer.json()["model"]


async def test_a_load_during_shutdown_is_refused_as_such(folders: dict[str, Path]) -> None:
    async with serving(folders, "a") as several:
        await several.fleet.close()

        with pytest.raises(ModelNotReady, match="shutting down"):
            await several.fleet.load("a")
