"""Downloads a hub model once and pins its commit.

When all files are there, the commit is written to huggingface_hub's cache as the ref ``nearfar``. From then on that
commit is served without asking the network, so that stored vectors stay comparable.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from msgspec import Struct

from nearfar.core.errors import CheckpointError, SetupError
from nearfar.models.files.safetensors import PICKLES
from nearfar.models.hub.failures import explain_failure

_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "artifact.metadata")
_IGNORED = ["onnx/*", "openvino/*", "coreml/*", "*/onnx/*"]
_PIN = "nearfar"
_log = logging.getLogger(__name__)


class Hub(Struct, frozen=True, kw_only=True):
    """How to reach a model hub. None means huggingface_hub's own default."""

    endpoint: str | None = None
    cache_dir: Path | None = None
    offline: bool = False
    include_pickles: bool = False


def find_or_download(repository: str, revision: str | None, hub: Hub) -> Path:
    """Return the folder of the pinned commit; download and pin the revision if there is none.

    Raises CheckpointError for an invalid or unknown name, and if the files can't be downloaded.
    """
    from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its __all__

    cache = hub.cache_dir or Path(HF_HUB_CACHE)
    if cache.parts[0].startswith("~"):  # huggingface_hub would create a folder of that name
        raise CheckpointError(f"{repository}: there is no home folder to download to; set HF_HOME to a folder")
    try:
        validate_repo_id(repository)
        return _find_or_download(repository, revision, hub)
    except SetupError:
        raise
    except HFValidationError as error:
        raise CheckpointError(f"{repository}: {error}") from error
    except Exception as error:  # each library on the way raises its own
        endpoint = re.sub("//[^/]*@", "//", hub.endpoint or ENDPOINT)  # without a password
        raise CheckpointError(f"{repository}: {explain_failure(error, endpoint, cache)}") from error


def _find_or_download(repository: str, revision: str | None, hub: Hub) -> Path:
    pin = f"{_PIN}@{revision.replace('/', '--')}" if revision else _PIN
    folder = _find_cached(repository, pin, hub)
    if folder is None and hub.offline:
        folder = _find_cached(repository, revision, hub)  # downloaded by another program; read_recipe checks it
        if folder is None:
            reason = f"{repository}: not on this disk, and --offline forbids downloading it"
            raise CheckpointError(f"{reason}; without it, nearfar pull {repository} does")
    if folder is None:
        folder = _download(repository, revision, hub)
        if not hub.include_pickles:  # a pinned commit must be complete for serving, which needs no pickles
            _write_pin(repository, folder, pin)
    return folder


def _write_pin(repository: str, folder: Path, pin: str) -> None:
    refs = folder.parent.parent / "refs"
    try:
        refs.mkdir(exist_ok=True)
        (refs / pin).write_text(folder.name)
    except OSError as error:
        advice = f"to stay at this commit, serve {repository}@{folder.name}"
        _log.warning("%s: %s can't be written (%s); %s", repository, refs, error.strerror, advice)


def _find_cached(repository: str, revision: str | None, hub: Hub) -> Path | None:
    """Return the folder of a revision or pin, if all its files are on this disk."""
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        return _snapshot(repository, revision, hub, local_files_only=True)
    except (IncompleteSnapshotError, LocalEntryNotFoundError):
        return None


def _snapshot(repository: str, revision: str | None, hub: Hub, *, local_files_only: bool = False) -> Path:
    from huggingface_hub import snapshot_download  # takes 0.2 s, and only hub names need it

    folder = snapshot_download(
        repository,
        revision=revision,
        cache_dir=hub.cache_dir,
        endpoint=hub.endpoint,
        local_files_only=local_files_only,
        allow_patterns=[*_FILES, *(f"*{suffix}" for suffix in PICKLES if hub.include_pickles)],
        ignore_patterns=_IGNORED,
    )
    return Path(folder)


def _download(repository: str, revision: str | None, hub: Hub) -> Path:
    """Download with huggingface_hub's progress bars, resume and size checks; then verify the hashes."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    _log.info("downloading %s, once", repository)
    try:
        folder = _snapshot(repository, revision, hub)
    except GatedRepoError as error:
        raise CheckpointError(f"{repository}: accept its license on the hub first, then set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{repository}: the hub has no such model, or it is private and HF_TOKEN isn't set"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repository}: the hub has no revision {revision!r} of it") from error
    _remove_corrupt_files(repository, folder)
    return folder


def _remove_corrupt_files(repository: str, folder: Path) -> None:
    """Remove files with content that doesn't match their hash. Raises CheckpointError if there are any.

    huggingface_hub compares sizes only, and would serve a byte that changed on the way or on a bad disk.
    """
    corrupt = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _matches_name(file.resolve())]
    for file in corrupt:
        file.resolve().unlink()
        file.unlink()
    if corrupt:
        names = ", ".join(file.name for file in corrupt)
        raise CheckpointError(f"{repository}: corrupted in transit: {names}; try again, the other files are kept")


def _matches_name(blob: Path) -> bool:
    """Compare with the SHA-256 of large files, or the SHA-1 of others, git's or plain.

    Other names, which mirrors may use, are accepted.
    """
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name == _digest(blob, hashlib.sha256())
    if re.fullmatch("[0-9a-f]{40}", blob.name):
        header = f"blob {blob.stat().st_size}\0".encode()
        plain, git = hashlib.sha1(usedforsecurity=False), hashlib.sha1(header, usedforsecurity=False)
        return blob.name in {_digest(blob, git), _digest(blob, plain)}
    return True


def _digest(file: Path, digest: hashlib._Hash) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: digest).hexdigest()
