"""Verifies a model at its first load: which models can be, with what, and when it was done before.

The reference is computed in another process, beside the opening of a small model, and before that of a large one, so
that both are never in memory at once. Its sample texts get fewer with the model's size.
"""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from nearfar.core.environment import usable_cores
from nearfar.engines.base import Engine
from nearfar.models.recipe.recipe import LlmReranker, Recipe
from nearfar.models.tokenization import sample_texts
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.verification.comparison import Served, compare
from nearfar.serving.verification.fingerprint import VerifiedFolders
from nearfar.serving.verification.reference import Task, Texts
from nearfar.serving.verification.reference_process import ReferenceProcess

# In float32. Above the first, the reference is computed before the model is opened; above the second, not at all.
_LARGE_BYTES, _TOO_LARGE_BYTES = 10**9, 10 * 10**9
_MIN_PROMPTS = 4  # samples of a large LLM reranker: each costs its whole prompt
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

    def __init__(self, request: VerifyRequest, encoder: TextEncoder) -> None:
        self._request = request
        self._encoder = encoder
        self._items = _samples(request)
        self._reference: ReferenceProcess | None = None
        self.result = _reason_against(request)
        if self.result:
            return
        self._folders = VerifiedFolders(request.cache_dir, request.folder, (request.recipe, request.max_tokens))
        if any(key.startswith(f"{request.first_engine} ") for key in self._folders.read()):
            return
        self._reference = ReferenceProcess(self._task())
        if request.bytes > _LARGE_BYTES:
            self._reference.wait()

    def check(self, engine: Engine) -> None:
        """Raise CheckpointError or EngineUnavailable if the engine's numbers aren't the library's."""
        if self.result:
            return
        key = f"{engine.info.name} {engine.info.dtype}"
        self.result = self._folders.read().get(key, "")
        if self.result:
            return
        started = time.perf_counter()
        _log.info("comparing model %s with the library that it is from, once", self._request.name)
        self._reference = self._reference or ReferenceProcess(self._task())
        answer = self._reference.wait()
        if answer:
            served = Served(self._encoder, self._request.recipe, engine, _prompt(self._request.recipe))
            compare(served, self._items, answer, _HINT)
            count = len(self._items) - answer.numbers.count(None)
            self.result = f"verified against {answer.library} on {count} samples"
        else:
            self.result = f"not verified: {self._reference.failure}"
        if answer or self._reference.is_final:
            self._folders.add(key, self.result)
        _log.info("model %s %s (%.1f s)", self._request.name, self.result, time.perf_counter() - started)

    def close(self) -> None:
        """End the reference's process, if it still runs."""
        if self._reference:
            self._reference.close()

    def _task(self) -> Task:
        recipe, reranker = self._request.recipe, self._request.recipe.llm_reranker
        return Task(
            folder=str(self._request.folder),
            items=self._items,
            scores=recipe.task == "score",
            output=next(iter(recipe.outputs), "dense"),
            prompt=_prompt(recipe),
            threads=max(usable_cores() // 2, 1),
            max_tokens=self._request.max_tokens,
            limit=recipe.max_tokens,
            lower_case=recipe.lower_case,
            pooling=recipe.pooling,
            layers=recipe.layers,
            normalize=recipe.normalize,
            truncate_dim=recipe.truncate_dim,
            subfolder=recipe.subfolder,
            segments=reranker.prompt.segments if reranker else (),
            query_ratio=reranker.prompt.query_ratio if reranker else 1.0,
            answers=_answers(reranker),
        )


def _reason_against(model: VerifyRequest) -> str:
    """Return why the model isn't compared; empty if it is."""
    recipe = model.recipe
    reasons = {
        "switched off (verify = false)": not model.enabled,
        "a model with several outputs has no reference": recipe.task == "embed" and len(recipe.outputs) > 1,
        "its files have no modules.json, which sentence-transformers needs for this output": recipe.task == "embed"
        and recipe.outputs != ("dense",)
        and not (model.folder / "modules.json").is_file(),
        "max_tokens is one limit, and the library has one for queries and one for documents": recipe.multi_vector
        is not None
        and model.max_tokens is not None,
        "only sentence-transformers runs its head on a pooled vector": recipe.task == "score"
        and bool(recipe.pooling)
        and find_spec("sentence_transformers") is None,
        "its weights are quantized, which no reference computes": recipe.quantized,
        f"its weights take over {_TOO_LARGE_BYTES / 1e9:g} GB in float32": model.bytes > _TOO_LARGE_BYTES,
    }
    if model.is_builtin:
        return "verified when it was built in: its files have the published hashes"
    return next((f"not verified: {reason}" for reason, applies in reasons.items() if applies), "")


def _prompt(recipe: Recipe) -> str:
    """Return a prompt of the model, if pooling leaves it out."""
    return next(filter(None, recipe.prompts.values())) if recipe.leaves_out_prompt else ""


def _answers(reranker: LlmReranker | None) -> tuple[int, ...]:
    tokens = reranker.answer_tokens if reranker else None
    return tuple(each for each in (tokens.yes, tokens.no) if each is not None) if tokens else ()


def _samples(model: VerifyRequest) -> list[Texts]:
    """Return texts, or pairs for a model that takes them; fewer for a large model."""
    items: list[Texts] = [(text,) for text in (*sample_texts.TEXTS, sample_texts.LONG)]
    if model.recipe.task == "score" or model.recipe.multi_vector:
        items = [*sample_texts.pairs()]
    reranker = model.recipe.llm_reranker
    prompt, minimum = (reranker.prompt.segments, _MIN_PROMPTS) if reranker else ((), sample_texts.MIN_SAMPLES)
    budget = sample_texts.token_budget(model.parameters)
    chosen: list[Texts] = []
    for item in items:
        budget -= sum(map(len, (*prompt, *item))) // 3
        if budget > 0 or len(chosen) < minimum:
            chosen.append(item)
    return chosen
