"""Make vLLM's tests import here, and run them against nearfar.

Of vLLM's source only the forms of answers and the encoding of arrays are loaded; other modules of it are empty. Each
``RemoteOpenAIServer`` runs ``nearfar serve`` with the stand-in of the model, in the folder of the models.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import os
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import openai
import pytest
from huggingface_hub import hf_hub_download
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoTokenizer

FOLDER = Path(os.environ["SUITE_FOLDER"])
SOURCE = FOLDER / "source"
START_TIMEOUT_S = 300
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")} | {
    "NEARFAR_CACHE_DIR": str(FOLDER / "cache")
}
_SETTINGS = ("verify = false", "offline = true", "rerank_documents = true")
_PROTOCOLS = {f"vllm.entrypoints.pooling.{kind}.protocol" for kind in ("classify", "embed", "pooling", "scoring")}
_LOADED = _PROTOCOLS | {
    "vllm.entrypoints.pooling.base.protocol",
    "vllm.entrypoints.pooling.scoring.typing",
    "vllm.entrypoints.pooling.scoring.utils",
    "vllm.entrypoints.pooling.token_embed.late_chunking",
    "vllm.entrypoints.pooling.token_embed.protocol",
    "vllm.entrypoints.pooling.utils",
    "vllm.entrypoints.serve.engine.protocol",
    "vllm.utils.serial_utils",
}


class _Empty(types.ModuleType):
    """A module with ``Any`` under every name, which stands for types alone."""

    __path__: Sequence[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Any


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what of vLLM is loaded from its source, and empty modules for the rest."""

    def find_spec(self, fullname: str, *_: object) -> Any:
        if fullname.partition(".")[0] != "vllm":
            return None
        if fullname in _LOADED:
            file = SOURCE / f"{fullname.replace('.', '/')}.py"
            return importlib.util.spec_from_file_location(fullname, file)
        return importlib.util.spec_from_loader(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Leave it empty."""


class RemoteOpenAIServer:
    """``nearfar serve`` with one model, under the options of vLLM that change what requests mean."""

    def __init__(self, model: str, args: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url_root = f"http://127.0.0.1:{port}"
        options = dict(pairwise(args))
        lines = [f"name = '{model}'", "token_ids = 'model'", "on_overflow = 'error'", "dtype = 'float32'"]
        lines += [f"max_tokens = {options[name]}" for name in ("--max-model-len",) if name in options]
        settings = FOLDER / "nearfar.toml"
        settings.write_text("\n".join((*_SETTINGS, "[[models]]", *lines)))
        command = [os.environ["SUITE_PYTHON"], "-m", "nearfar", "serve", "--port", str(port)]
        with (FOLDER / "server.log").open("ab") as log:
            self._process = subprocess.Popen([*command, "--config", str(settings)], stderr=log, env=_ENVIRONMENT)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url_root}/health/ready", timeout=5):
                    return self
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        self.__exit__()
        raise RuntimeError("the server isn't ready; see server.log")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def url_for(self, *parts: str) -> str:
        return "/".join((self.url_root, *(part.strip("/") for part in parts if part)))

    def get_async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url_for("v1"), api_key="unused", max_retries=0)


class HfRunner:
    """The same stand-in in sentence-transformers, for the expected numbers."""

    def __init__(self, model: str, *, is_cross_encoder: bool = False, **_: object) -> None:
        kind = CrossEncoder if is_cross_encoder else SentenceTransformer
        self._model = kind(model, device="cpu")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Keep the model for the next test."""

    def encode(self, prompts: Sequence[str]) -> Any:
        return self._model.encode(prompts)

    def predict(self, prompts: Sequence[Sequence[str]]) -> Any:
        return self._model.predict(prompts)


class EmbedModelInfo(NamedTuple):
    """A model of vLLM's tests of dimensions."""

    name: str
    is_matryoshka: bool = False
    matryoshka_dimensions: Sequence[int] | None = None


def _module(name: str, **names: object) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(names)
    sys.modules[name] = module


def _functions(file: str, *names: str) -> dict[str, Any]:
    """Return functions of a file. Its other parts need vLLM."""
    tree = ast.parse((SOURCE / file).read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    found: dict[str, Any] = {}
    exec("import torch\nimport torch.nn.functional as F\nfrom collections.abc import Sequence", found)  # noqa: S102
    exec(compile(tree, file, "exec"), found)  # noqa: S102
    return {name: found[name] for name in names}


class _Hub:
    """The cache, in place of the hub."""

    def hf_hub_download(self, model: str, filename: str) -> str:
        return hf_hub_download(model, filename)


def pytest_configure() -> None:
    """Provide the modules that the tests import."""
    sys.path.insert(0, str(SOURCE))
    sys.meta_path.insert(0, _Finder())
    platform = types.SimpleNamespace(is_rocm=lambda: False)
    _module("vllm.platforms", current_platform=platform)
    _module("vllm.logger", init_logger=lambda _: types.SimpleNamespace(warning_once=print, debug=lambda *_: None))
    _module("vllm.utils", random_uuid=lambda: "0", __path__=[])
    _module("vllm.tokenizers", get_tokenizer=lambda tokenizer_name, **_: AutoTokenizer.from_pretrained(tokenizer_name))
    _module("vllm.transformers_utils.repo_utils", hf_api=_Hub)
    _module("tests.utils", RemoteOpenAIServer=RemoteOpenAIServer, ROCM_EXTRA_ARGS=[])
    _module("tests.conftest", HfRunner=HfRunner)
    compared = _functions("tests/models/utils.py", "check_embeddings_close", "matryoshka_fy")
    _module("tests.models.utils", EmbedModelInfo=EmbedModelInfo, **compared)


@pytest.fixture(scope="session")
def hf_runner() -> Iterator[type[HfRunner]]:
    return HfRunner
