"""API keys: names, hashes, scopes and limits, and a file that may change while the server runs."""

from __future__ import annotations

import hashlib
import logging
import os
from typing import TYPE_CHECKING

import pytest
from conftest import calling, running

from nearfar import Settings
from nearfar.core.errors import SettingsError
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.http.gate.auth import KeyRing
from nearfar.http.gate.keys import make_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio

EMBED = ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a cat"})
RERANK = ("/v1/rerank", {"query": "cat", "documents": ["a cat"]})
UNLOAD = ("/admin/models/unload", {"model": BUILTIN_MODEL})


def entry(name: str, key: str, more: str = "") -> str:
    return f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n{more}\n'


def write_keys(file: Path, text: str) -> None:
    file.write_text(text)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_new_key_is_found_by_its_entry_which_does_not_contain_it(file: Path) -> None:
    key, made = make_key("app", ("embed",))
    file.write_text(made)

    found = KeyRing(None, file).find(key.encode())

    assert found
    assert ("app", ("embed",)) == (found.entry.name, found.entry.scopes)
    assert key not in made
    assert 256 <= 8 * len(key.removeprefix("nf-")) * 3 / 4


def test_the_keys_of_the_setting_and_the_file_are_valid_and_no_others(file: Path) -> None:
    file.write_text(entry("one", "k1") + entry("two", "k2"))
    ring = KeyRing("own", file)

    names = [found and found.entry.name for found in map(ring.find, (b"own", b"k1", b"k2", b"k3", b""))]

    assert ["default", "one", "two", None, None] == names


def test_a_changed_file_is_read_within_a_second_and_unchanged_keys_keep_their_limits(file: Path) -> None:
    clock = Clock()
    file.write_text(entry("one", "k1", "max_concurrent = 1"))
    ring = KeyRing(None, file, clock)
    first = ring.find(b"k1")

    file.write_text(entry("one", "k1", "max_concurrent = 1") + entry("new", "k2"))
    before = ring.find(b"k2")
    clock.now += 1.1
    after = ring.find(b"k2")

    assert before is None
    assert after
    assert first is ring.find(b"k1")


def test_a_key_removed_from_the_file_is_invalid(file: Path) -> None:
    clock = Clock()
    file.write_text(entry("one", "k1") + entry("two", "k2"))
    ring = KeyRing(None, file, clock)

    file.write_text(entry("two", "k2"))
    clock.now += 1.1

    assert ring.find(b"k1") is None
    assert ring.find(b"k2")


def test_a_changed_file_is_read_although_its_size_and_time_are_the_same(file: Path) -> None:
    """As after a restore of a backup, or on a file system with coarse times."""
    clock = Clock()
    file.write_text(entry("one", "k1"))
    before = file.stat()
    ring = KeyRing(None, file, clock)

    file.write_text(entry("one", "k2"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now += 1.1

    assert ring.find(b"k1") is None
    assert ring.find(b"k2")
    assert (before.st_size, before.st_mtime_ns) == (file.stat().st_size, file.stat().st_mtime_ns)


@pytest.mark.parametrize("broken", ["[[keys", '[[keys]]\nname = "one"', "", None])
def test_an_invalid_file_while_running_keeps_the_keys_and_is_logged(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    file.write_text(entry("one", "k1"))
    ring = KeyRing(None, file, clock)

    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    clock.now += 1.1

    with caplog.at_level(logging.ERROR):
        assert ring.find(b"k1")
    assert "keeping the current ones" in caplog.text


def write_sparse(file: Path) -> None:
    file.touch()
    os.truncate(file, 2_000_000_000)


@pytest.mark.parametrize(
    "replace",
    [
        os.mkfifo,
        lambda file: file.symlink_to("/dev/zero"),
        write_sparse,
    ],
    ids=["a pipe", "an endless device", "2 GB"],
)
def test_a_file_that_takes_forever_to_read_keeps_the_keys(
    file: Path, replace: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    file.write_text(entry("one", "k1"))
    ring = KeyRing(None, file, clock)

    file.unlink()
    replace(file)
    clock.now += 1.1

    with caplog.at_level(logging.ERROR):
        assert ring.find(b"k1")
    assert "is not a regular file of at most 10,000,000 bytes" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "keys"),
        ('[[keys]]\nname = "a"\nsha256 = "short"', "sha256"),
        ('[[keys]]\nname = "a b"\nsha256 = "' + "0" * 64 + '"', "name"),
        (entry("a", "k", 'scopes = ["fly"]'), "scopes"),
        (entry("a", "k", "color = 1"), "color"),
        (entry("a", "k1") + entry("a", "k2"), "two keys are named 'a'"),
    ],
)
def test_an_invalid_file_at_startup_is_refused_with_its_path(file: Path, text: str, message: str) -> None:
    file.write_text(text)

    with pytest.raises(SettingsError, match=message) as refused:
        KeyRing(None, file)
    assert str(file) in str(refused.value)


async def test_only_a_bearer_key_is_accepted() -> None:
    expected = {"Bearer k": 200, "bearer  k ": 200, "Basic k": 401, "k": 401, "Bearer": 401, "Bearer k2": 401, "": 401}

    async with running(Settings(engine="fake", api_key="k")) as app, calling(app) as client:
        found = {
            header: (await client.post(EMBED[0], json=EMBED[1], headers={"authorization": header})).status_code
            for header in expected
        }

    assert expected == found


async def test_a_key_is_valid_for_its_scopes_only(file: Path) -> None:
    write_keys(
        file,
        entry("e", "k-e", 'scopes = ["embed"]')
        + entry("r", "k-r", 'scopes = ["rerank"]')
        + entry("a", "k-a", 'scopes = ["admin"]')
        + entry("usual", "k-u"),
    )
    keep_alive = {"model": BUILTIN_MODEL, "keep_alive": 0}
    unloads = (UNLOAD, ("/api/generate", keep_alive), ("/api/chat", keep_alive), ("/api/embed", keep_alive))
    expected = {
        "k-e": (200, 403, *[403] * 4),
        "k-r": (403, 200, *[403] * 4),
        "k-u": (200, 200, *[403] * 4),
        "k-a": (403, 403, *[200] * 4),
    }

    async with running(Settings(engine="fake", api_keys_file=str(file))) as app, calling(app) as client:
        found = {
            key: tuple(
                [
                    (await client.post(path, json=body, headers=bearer(key))).status_code
                    for path, body in (EMBED, RERANK, *unloads)
                ]
            )
            for key in expected
        }
        refused = await client.post(*RERANK[:1], json=RERANK[1], headers=bearer("k-e"))

    assert expected == found
    assert "the key 'e' has no scope 'rerank'" == refused.json()["message"]


async def test_a_key_over_its_limit_gets_a_429_and_other_keys_do_not(file: Path) -> None:
    write_keys(file, entry("slow", "k-s", "tokens_per_minute = 4") + entry("free", "k-f"))

    async with running(Settings(engine="fake", api_keys_file=str(file))) as app, calling(app) as client:
        first = await client.post(EMBED[0], json=EMBED[1], headers=bearer("k-s"))
        second = await client.post(EMBED[0], json=EMBED[1], headers=bearer("k-s"))
        other = await client.post(EMBED[0], json=EMBED[1], headers=bearer("k-f"))

    assert (200, 429, 200) == (first.status_code, second.status_code, other.status_code)
    assert "rate_limit_exceeded" == second.json()["error"]["code"]
    assert 0 < int(second.headers["retry-after"]) <= 60


async def test_a_file_of_keys_allows_a_public_bind(file: Path) -> None:
    key, made = make_key("app")
    write_keys(file, made)

    async with running(Settings(engine="fake", api_keys_file=str(file), host="0.0.0.0")) as app, calling(app) as client:  # noqa: S104
        without = await client.get("/info")
        within = await client.get("/info", headers=bearer(key))

    assert (401, 200) == (without.status_code, within.status_code)


async def test_headers_for_priority_and_timeout_are_validated(faked: httpx.AsyncClient) -> None:
    expected = {
        ("x-nearfar-priority", "5"): 200,
        ("x-nearfar-priority", "1000"): 400,
        ("x-nearfar-priority", "high"): 400,
        ("x-nearfar-timeout-s", "30"): 200,
        ("x-nearfar-timeout-s", "0"): 400,
        ("x-nearfar-timeout-s", "nan"): 400,
    }

    found = {header: (await faked.post(EMBED[0], json=EMBED[1], headers=[header])).status_code for header in expected}

    assert expected == found


async def test_a_caller_s_own_timeout_is_a_504_and_drops_the_request_from_the_queue() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        answer = await client.post(EMBED[0], json=EMBED[1], headers={"x-nearfar-timeout-s": "0.05"})
        left = app.state.fleet.depths()[0].rows
        engine.gate.set()

    assert 504 == answer.status_code
    assert 0 == left
