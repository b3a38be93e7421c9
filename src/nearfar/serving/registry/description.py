"""What is true of a model, told to whoever asks: its tasks, how it scores, on what it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nearfar.core.types import TASK_OF, ModelInfo
from nearfar.serving.postprocess.quantization import usual_range

if TYPE_CHECKING:
    from nearfar.core.settings import ModelSettings
    from nearfar.core.types import Output, Task
    from nearfar.engines.base import EngineInfo
    from nearfar.models.files.safetensors import WeightSizes
    from nearfar.models.hub.checkpoint import Checkpoint
    from nearfar.models.recipe.recipe import Recipe
    from nearfar.serving.queue.scheduler import Call

SCORE_OF_VECTORS = "(1 + cosine) / 2 of the query's and the document's vectors"
SCORE_OF_TOKENS = "(1 + MaxSim / n) / 2 of the query's n vectors and the document's"
SCORE_OF_WEIGHTS = "cosine of the query's and the document's sparse vectors"
SCORE_OF_PAIRS = "sigmoid of the logit the model gives the pair"


def usual_call(recipe: Recipe) -> Call:
    """Say what is asked of the engine unless a request wants more."""
    if recipe.task == "score":
        return "score"
    return "embed" if recipe.pooling else "represent"


def _tasks(recipe: Recipe) -> tuple[Task, ...]:
    """List what the model may be asked for."""
    if recipe.task == "score":
        if recipe.llm_reranker:
            return ("rank",)
        return ("rank", "classify") if len(recipe.labels) == 1 else ("classify",)
    return (*(TASK_OF[output] for output in recipe.outputs), "rank")


def _score(recipe: Recipe) -> str:
    """Say how the model's scores come about."""
    if recipe.task == "score":
        return SCORE_OF_PAIRS if len(recipe.labels) <= 1 else ""
    ways: dict[Output, str] = {"dense": SCORE_OF_VECTORS, "multi_vector": SCORE_OF_TOKENS, "sparse": SCORE_OF_WEIGHTS}
    return ways[recipe.outputs[0]]


def describe(
    checkpoint: Checkpoint, recipe: Recipe, engine: EngineInfo, wanted: ModelSettings, weights: WeightSizes
) -> ModelInfo:
    """Say all that is true of a model on this engine."""
    return ModelInfo(
        name=checkpoint.name,
        aliases=wanted.aliases,
        tasks=_tasks(recipe),
        source=checkpoint.source,
        revision=checkpoint.revision,
        architecture=recipe.architecture,
        engine=engine.name,
        device=engine.device,
        dtype=engine.dtype,
        dtype_reason=engine.dtype_reason,
        dim=recipe.dim,
        token_dim=recipe.multi_vector.dim(recipe.hidden_size) if recipe.multi_vector else 0,
        vocabulary=recipe.sparse.size if recipe.sparse else 0,
        labels=recipe.labels,
        max_tokens=recipe.max_tokens,
        pooling="+".join(recipe.pooling),
        pooling_source=recipe.pooling_source,
        normalized=recipe.normalize,
        prompts=recipe.prompts,
        prompts_source=recipe.prompts_source,
        default_prompt=recipe.default_prompt,
        score=_score(recipe),
        score_is_probability=recipe.task == "score",
        int8_range=_int8_range(recipe, wanted.int8_range),
        parameters=None if weights.quantized else weights.parameters,
        file_bytes=weights.file_bytes,
        created=int(time.time()),
    )


def _int8_range(recipe: Recipe, wanted: float | None) -> float | None:
    """Give the R that the operator wants, else the usual one of unit vectors. It depends on no engine and no dtype."""
    if not recipe.pooling:
        return None
    return wanted or (usual_range(recipe.dim) if recipe.normalize else None)
