"""Description of a model: its tasks, how it scores, and what it runs on, as ``/info`` shows it."""

from __future__ import annotations

import time

import msgspec

from nearfar.core.settings import ModelSettings
from nearfar.core.types import TASK_OF, EngineMethod, ModelInfo, Task
from nearfar.engines.base import EngineInfo
from nearfar.models.files.safetensors import WeightSizes
from nearfar.models.hub.checkpoint import Checkpoint
from nearfar.models.recipe.recipe import Recipe, Similarity
from nearfar.serving.postprocess.quantization import default_range

NOT_LOADED = "not loaded yet"
SCORE_OF_VECTORS = "(1 + cosine) / 2 of the query's and the document's vectors"
SCORE_OF_TOKENS = "(1 + MaxSim / n) / 2 of the query's n vectors and the document's"
# Of the query's and the document's vectors, for a model with another similarity than the cosine.
_SCORES: dict[Similarity, str] = {
    "dot": "(1 + dot / (1 + |dot|)) / 2 of the query's and the document's vectors",
    "euclidean": "1 / (1 + distance) of the query's and the document's vectors",
    "manhattan": "1 / (1 + Manhattan distance) of the query's and the document's vectors",
}
SCORE_OF_WEIGHTS = "dot / (1 + dot) of the query's and the document's sparse vectors"
_SCORE_OF_COSINES = "cosine of the query's and the document's sparse vectors"
SCORE_OF_PAIRS = "sigmoid of the model's logit for the pair"
SCORE_BY_TANH = "(1 + tanh) / 2 of the model's logit for the pair"


def default_method(recipe: Recipe) -> EngineMethod:
    """Return the engine's method that a request calls unless it needs another."""
    if recipe.task == "score":
        return "score"
    return "embed" if recipe.pooling else "represent"


def describe_checkpoint(
    checkpoint: Checkpoint, recipe: Recipe, settings: ModelSettings, weights: WeightSizes
) -> ModelInfo:
    """Describe a model by its files, before an engine has loaded it."""
    return ModelInfo(
        name=checkpoint.name,
        aliases=settings.aliases,
        tasks=_tasks(recipe),
        source=checkpoint.source,
        revision=checkpoint.revision,
        architecture=recipe.architecture,
        engine="auto",
        device="auto",
        dtype="auto",
        dtype_reason=NOT_LOADED,
        batching=NOT_LOADED,
        verified=NOT_LOADED,
        dim=recipe.dim,
        token_dim=recipe.multi_vector.dim(recipe.hidden_size) if recipe.multi_vector else 0,
        vocabulary=recipe.sparse.size if recipe.sparse else 0,
        labels=recipe.labels,
        max_tokens=recipe.max_tokens,
        pooling="+".join(recipe.pooling),
        pooling_source=recipe.pooling_source,
        normalized=recipe.normalize,
        tokenizer_source="",
        prompts=recipe.prompts,
        prompts_source=recipe.prompts_source,
        default_prompt=recipe.default_prompt,
        token_ids=settings.token_ids,
        openai_limits=settings.openai_limits,
        score=_score(recipe),
        score_is_probability=recipe.task == "score",
        int8_range=_int8_range(recipe, settings.int8_range),
        parameters=None if weights.quantized else weights.parameters,
        file_bytes=weights.file_bytes,
        created=int(time.time()),
    )


def describe_loaded(info: ModelInfo, engine: EngineInfo, tokenizer_source: str, verified: str) -> ModelInfo:
    """Return the description with what the engine reports, where its tokenizer is from, and how it was verified.

    The reason for the dtype stays that of the first load, which later ones repeat.
    """
    reason = engine.dtype_reason if info.dtype_reason == NOT_LOADED else info.dtype_reason
    return msgspec.structs.replace(
        info,
        engine=engine.name,
        device=engine.device,
        dtype=engine.dtype,
        dtype_reason=reason,
        tokenizer_source=tokenizer_source,
        batching=engine.batching or "mixed lengths",
        verified=verified,
    )


def _tasks(recipe: Recipe) -> tuple[Task, ...]:
    if recipe.task == "score":
        if recipe.llm_reranker:
            return ("rank",)
        return ("rank", "classify") if len(recipe.labels) == 1 else ("classify",)
    return (*(TASK_OF[output] for output in recipe.outputs), "rank")


def _score(recipe: Recipe) -> str:
    """Return how relevance scores are computed; empty for a model that doesn't rank."""
    if recipe.task == "score":
        by_activation = SCORE_BY_TANH if recipe.activation == "Tanh" else SCORE_OF_PAIRS
        return by_activation if len(recipe.labels) <= 1 else ""
    kind = recipe.outputs[0]
    if kind == "multi_vector":
        return SCORE_OF_TOKENS
    if kind == "dense":
        return _SCORES.get(recipe.similarity, SCORE_OF_VECTORS)
    sparse: dict[Similarity, str] = {**_SCORES, "dot": SCORE_OF_WEIGHTS, "cosine": _SCORE_OF_COSINES}
    return sparse[recipe.similarity]


def _int8_range(recipe: Recipe, setting: float | None) -> float | None:
    """Return the R of the settings, else the usual one of unit vectors. It depends on no engine and no dtype."""
    if not recipe.dim:
        return None
    return setting or (default_range(recipe.dim) if recipe.normalize else None)
