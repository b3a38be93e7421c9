"""Verifies a model at its first load: which models can be, with what, and when it was done before.

The reference is computed in another process, beside the opening of a small model, and before that of a large one, so
that both are never in memory at once. Its sample texts get fewer with the model's size.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
from msgspec import Struct

from nearfar.core.settings import usable_cores
from nearfar.engines.base import Engine
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization import sample_texts
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.verification.comparison import Served, compare
from nearfar.serving.verification.fingerprint import VerifiedFolders
from nearfar.serving.verification.reference import Answer, Task, Texts

# In float32. Above the first, the reference is computed before the model is opened; above the second, not at all.
_LARGE_BYTES, _TOO_LARGE_BYTES = 10**9, 10 * 10**9
_TIMEOUT_S = 120.0
_HINT = "set verify = false (--no-verify) to serve it all the same"
_log = logging.getLogger(__name__)


class VerifyRequest(Struct, frozen=True, kw_only=True):
    """A model to verify."""

    name: str
    folder: Path
    recipe: Recipe
    parameters: int
    # The settings: whether to verify at all, and their limit in tokens.
    enabled: bool
    max_tokens: int | None
    # Its files have published hashes.
    is_builtin: bool
    # The engine that will be tried first.
    first_engine: str
    cache_dir: Path | None

    @property
    def bytes(self) -> int:
        """Return the size of the weights in float32."""
        return self.parameters * 4


class Verifier:
    """Verifies one model. ``result`` is a sentence for logs and ``/info``."""

    def __init__(self, request: VerifyRequest, tokens: TextEncoder) -> None:
        self._request = request
        self._tokens = tokens
        self.result = _reason_against(request)
        self._reference: Future[Answer | str] | None = None
        self._items: list[Texts] = []
        if self.result:
            return
        self._folders = VerifiedFolders(request.cache_dir, request.folder, (request.recipe, request.max_tokens))
        if any(key.startswith(f"{request.first_engine} ") for key in self._folders.read()):
            return
        reference = self._start()
        if request.bytes > _LARGE_BYTES:
            reference.result()

    def check(self, engine: Engine) -> None:
        """Raise CheckpointError or EngineUnavailable if the engine's numbers aren't the library's."""
        if self.result and not self._reference:
            return
        key = f"{engine.info.name} {engine.info.dtype}"
        if self._reference is None:
            self.result = self._folders.read().get(key, "")
            if self.result:
                return
        started = time.perf_counter()
        answer = (self._reference or self._start()).result()
        if isinstance(answer, Answer):
            compare(Served(self._tokens, self._request.recipe, engine), self._items, answer, _HINT)
            count = len(self._items) - answer.numbers.count(None)
            self.result = f"verified against {answer.library} on {count} samples"
        else:
            self.result = f"not verified: {answer}"
        self._folders.add(key, self.result)
        _log.info("model %s %s (%.1f s)", self._request.name, self.result, time.perf_counter() - started)

    def _start(self) -> Future[Answer | str]:
        self._items = _samples(self._request)
        pool = ThreadPoolExecutor(1, thread_name_prefix="reference")
        self._reference = pool.submit(_run_reference, self._task())
        pool.shutdown(wait=False)
        return self._reference

    def _task(self) -> Task:
        recipe = self._request.recipe
        return Task(
            folder=str(self._request.folder),
            items=self._items,
            scores=recipe.task == "score",
            threads=max(usable_cores() // 2, 1),
            max_tokens=self._request.max_tokens,
            limit=recipe.max_tokens,
            lower_case=recipe.lower_case,
            pooling=recipe.pooling,
            dense=recipe.dense,
            normalize=recipe.normalize,
        )


def _reason_against(model: VerifyRequest) -> str:
    """Return why the model isn't compared; empty if it is."""
    recipe = model.recipe
    reasons = {
        "switched off (verify = false)": not model.enabled,
        "LLM rerankers have no reference in sentence-transformers": recipe.llm_reranker is not None,
        "only pooled vectors and logits have a reference": recipe.task == "embed" and recipe.outputs != ("dense",),
        "its weights are quantized, which no reference computes": recipe.quantized,
        f"its weights take over {_TOO_LARGE_BYTES / 1e9:g} GB in float32": model.bytes > _TOO_LARGE_BYTES,
    }
    if model.is_builtin:
        return "verified when it was built in: its files have the published hashes"
    return next((f"not verified: {reason}" for reason, applies in reasons.items() if applies), "")


def _samples(model: VerifyRequest) -> list[Texts]:
    """Return texts, or pairs for a model that takes them; fewer for a large model."""
    items: list[Texts] = [(text,) for text in (*sample_texts.TEXTS, sample_texts.LONG)]
    if model.recipe.task == "score":
        items = [*sample_texts.pairs()]
    budget = sample_texts.token_budget(model.parameters)
    chosen: list[Texts] = []
    for item in items:
        budget -= sum(map(len, item)) // 3
        if budget > 0 or len(chosen) < sample_texts.MIN_SAMPLES:
            chosen.append(item)
    return chosen


def _run_reference(task: Task) -> Answer | str:
    """Return what the other process computed, or in a phrase why it couldn't."""
    with tempfile.TemporaryDirectory(prefix="nearfar-", ignore_cleanup_errors=True) as folder:
        source, target = Path(folder) / "task.json", Path(folder) / "answer.json"
        source.write_bytes(msgspec.json.encode(task, enc_hook=str))
        command = [sys.executable, "-m", "nearfar.serving.verification.reference", str(source), str(target)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return f"the reference took over {_TIMEOUT_S:g} s"
        if not target.is_file():
            lines = ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"]
            return f"the library can't load it ({lines[-1][:200]})"
        answer = msgspec.json.decode(target.read_bytes(), type=Answer)
    if answer.numbers.count(None) * 2 > len(answer.numbers):
        return f"{answer.library} can't compute most of the samples"
    return answer
