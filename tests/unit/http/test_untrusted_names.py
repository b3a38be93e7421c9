"""Names from requests never open a file, and requests' texts and keys appear nowhere else."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import write_transformer
from conftest import calling, running
from openapi_document import DOCUMENT, OPERATIONS, examples

from nearfar import ModelSettings, Settings
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.telemetry.logs import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio

NAMES = (
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "....//....//etc/passwd",
    ),
    *(
        "/etc/passwd\x00.json",
        "~root/.ssh/id_rsa",
        "file:///etc/passwd",
        "C:\\Windows\\win.ini",
        "@main",
        "a/b@../../x",
    ),
    *(f"{BUILTIN_MODEL}/../../../etc/passwd", "https://evil.example/model", "evil/model", "\r\nset-cookie: x=1"),
)
POSTS = [
    (path, body)
    for path, method in OPERATIONS
    if method == "post"
    for _, body in examples(DOCUMENT["paths"][path]["post"].get("requestBody", {"content": {}})["content"])
    if isinstance(body, dict) and "model" in body
]


class Opened:
    """Notes the files and folders that are opened, and the addresses that are called, anywhere in this process."""

    _EVENTS = frozenset(("open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo"))

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []
        self.listens = False
        sys.addaudithook(self._hear)  # which can never be taken off again

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listens and event in self._EVENTS:
            self.noted.append((event, str(arguments[:1])))


OPENED = Opened()


@pytest.mark.parametrize("name", NAMES)
async def test_a_models_name_is_never_a_path(name: str, faked: httpx.AsyncClient) -> None:
    calls: list[tuple[str, str, Any]] = [("POST", path, {**body, "model": name}) for path, body in POSTS]
    calls += [("GET", f"/v1/models/{name}".replace("\r\n", "%0d%0a").replace("\x00", "%00"), None)]

    OPENED.noted.clear()
    OPENED.listens = True
    answers = [await faked.request(method, path, json=body) for method, path, body in calls]
    OPENED.listens = False

    assert [] == [noted for noted in OPENED.noted if "passwd" in noted[1] or "evil" in noted[1] or "root" in noted[1]]
    for answer in answers:
        assert answer.status_code in {200, 307, 400, 404, 422, 501}, answer.text
        assert "root:x" not in answer.text
        assert "set-cookie" not in answer.headers


KEY, TEXT = "sk-very-secret-key", "very private sentence"


def with_text(body: Any) -> Any:
    """Replace every text of an example, except names of models and choices, by the private sentence."""
    texts = {"input", "inputs", "texts", "query", "documents", "text", "text_1", "text_2", "prompt", "sentences"}
    texts |= {"source_sentence", "queries", "passages"}
    if not isinstance(body, dict):
        return body
    return {name: [TEXT] if isinstance(value, list) and name in texts else value for name, value in body.items()} | {
        name: TEXT for name, value in body.items() if isinstance(value, str) and name in texts
    }


async def test_no_text_and_no_key_appears_anywhere_else(caplog: pytest.LogCaptureFixture) -> None:
    """In no log at any level, metric, error, repr or description; whatever the dialect, and whether it went well."""
    settings = Settings(engine="fake", api_key=KEY)
    headers = {"authorization": f"Bearer {KEY}"}
    wrong = {"authorization": f"Bearer {KEY}-{TEXT.replace(' ', '-')}"}
    with caplog.at_level(logging.DEBUG):
        async with running(settings) as app, calling(app) as client:
            refused, failed = [], []
            for path, body in POSTS:
                asked = with_text(body)
                await client.post(path, json=asked, headers=headers)
                failed.append(await client.post(path, json={**asked, "model": "nobody"}, headers=headers))
                failed.append(await client.post(path, content=json.dumps(asked)[:-1], headers=headers))
                refused.append(await client.post(path, json=asked, headers=wrong))
            about = [await client.get(path, headers=headers) for path in ("/info", "/metrics", "/v1/models")]
        shown = repr(settings) + str(settings) + repr(app.state._state.get("settings"))

    assert {401} == {answer.status_code for answer in refused}
    logged = "\n".join(JsonLines().format(record) for record in caplog.records)
    for place in (logged, shown, *(answer.text for answer in (*refused, *failed, *about))):
        assert KEY not in place
        assert TEXT not in place


@pytest.mark.parametrize("name", ["модель", "a\r\nset-cookie: x=1", "a\tb", "größe"])
async def test_a_served_models_own_name_breaks_no_header(name: str, tmp_path: Path) -> None:
    models = (ModelSettings(name=str(write_transformer(tmp_path / name, "bert"))),)
    async with running(Settings(models=models, engine="fake")) as app, calling(app) as client:
        answers = [
            await client.post(path, json=body | {"model": name}, headers={"accept": "application/json"})
            for path, body in POSTS
            if not path.startswith("/admin")
        ]

    assert 200 in {answer.status_code for answer in answers}
    for answer in answers:
        assert answer.status_code < 500 or answer.status_code == 501, answer.text
        assert "set-cookie" not in answer.headers
        for _, value in answer.headers.raw:
            assert b"\r" not in value
            assert b"\n" not in value
