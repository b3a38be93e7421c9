"""A program: what sentence-transformers, or else transformers, computes for sample texts, each alone, in float32.

Runs in a process of its own, so that neither its memory nor its threads stay with the server: ``python -m
nearfar.serving.verification.reference IN OUT``. sentence-transformers reads nothing of the recipe. It isn't used for an
embedding model without modules.json, because it would choose the pooling itself there.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from nearfar.core.types import Output
from nearfar.models.files.safetensors import find_layer_tensors
from nearfar.models.recipe.dense import Layer, LayerNorm, Normalize, Pooling
from nearfar.serving.verification.llm_reference import score_prompts
from nearfar.serving.verification.unused_libraries import replace_unused_libraries

Texts: TypeAlias = tuple[str, ...]  # one, or a query and a document
Compute: TypeAlias = Callable[[Texts], tuple[Any, list[int]]]  # → numbers of any shape, and token ids

_ALL = "--all-libraries"


class Task(Struct, kw_only=True):
    """What is to be computed."""

    folder: str
    items: list[Texts]
    scores: bool
    # The one output of an embedding model.
    output: Output
    # A prompt before each text of an embedding model.
    prompt: str
    threads: int
    # The server's own limit, where the settings have one below the model's.
    max_tokens: int | None
    # The recipe's steps, for transformers alone.
    limit: int
    lower_case: bool
    pooling: tuple[Pooling, ...]
    layers: tuple[Layer, ...]
    normalize: bool
    truncate_dim: int | None
    subfolder: str
    # Of an LLM reranker: its prompt's parts, how much of the limit the query's may take, and the ids of yes and no,
    # which one that was made a classifier hasn't.
    segments: tuple[str, ...] = ()
    query_ratio: float = 1.0
    answers: tuple[int, ...] = ()


class Answer(Struct, kw_only=True):
    """A library's name and version, and its numbers and ids; None for an item that it can't compute."""

    library: str
    numbers: list[list[float] | None]
    ids: list[list[int] | None]


def main(source: Path, target: Path, *, has_library: bool) -> bool:
    """Compute what ``source`` lists with sentence-transformers, or else with transformers; write it to ``target``.

    Return whether it could compute all of it.
    """
    import torch

    task = msgspec.json.decode(source.read_bytes(), type=Task, dec_hook=lambda kind, text: kind(text))  # of paths
    torch.set_num_threads(task.threads)
    has_modules = (Path(task.folder) / "modules.json").is_file()
    has_library = has_library and (has_modules or (task.scores and not task.segments))
    if task.output != "dense" and not has_library:
        raise NotImplementedError(f"transformers computes no {task.output} vectors")
    library = "sentence-transformers" if has_library else "transformers"
    compute = (_sentence_transformers if has_library else _transformers)(task)
    answer = Answer(library=f"{library} {version(library)}", numbers=[], ids=[])
    with torch.inference_mode():
        for item in task.items:
            try:
                numbers, ids = compute(item)
            except Exception:  # noqa: BLE001 — libraries break on texts over the limit of some models
                answer.numbers.append(None)
                answer.ids.append(None)
                continue
            answer.numbers.append(np.ravel(np.asarray(numbers, dtype=np.float64)).tolist())
            answer.ids.append([*ids])
    target.write_bytes(msgspec.json.encode(answer))
    return None not in answer.numbers


def _sentence_transformers(task: Task) -> Compute:
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from nearfar.engines.transformer.length_dependence import forget_earlier_texts

    if task.scores:
        reranker: Any = CrossEncoder(task.folder, device="cpu", local_files_only=True, trust_remote_code=False).float()
        forget_earlier_texts(reranker, task.limit)
        if task.max_tokens:
            reranker.max_length = task.max_tokens
        raw = torch.nn.Identity()
        return lambda item: (
            reranker.predict([item], activation_fn=raw, show_progress_bar=False)[0],
            _ids(reranker, item),
        )
    if task.output == "sparse":
        return _sparse(task)
    if task.output == "multi_vector":
        return _multi_vector(task)
    model: Any = SentenceTransformer(task.folder, device="cpu", local_files_only=True, trust_remote_code=False).float()
    forget_earlier_texts(model, task.limit)
    if task.max_tokens:
        model.max_seq_length = task.max_tokens
    return lambda item: (
        model.encode([item[0]], prompt=task.prompt, show_progress_bar=False)[0],
        _ids(model, task.prompt + item[0]),
    )


def _sparse(task: Task) -> Compute:
    from sentence_transformers import SparseEncoder

    model: Any = SparseEncoder(task.folder, device="cpu", local_files_only=True, trust_remote_code=False).float()
    if task.max_tokens:
        model.max_seq_length = task.max_tokens
    return lambda item: (
        model.encode([item[0]], prompt="", convert_to_sparse_tensor=False, show_progress_bar=False)[0],
        _ids(model, item[0]),
    )


def _multi_vector(task: Task) -> Compute:
    """Return the vectors of a query's tokens, followed by those of a document's."""
    from sentence_transformers import MultiVectorEncoder  # since version 6

    model: Any = MultiVectorEncoder(task.folder, device="cpu", local_files_only=True, trust_remote_code=False).float()

    def compute(item: Texts) -> tuple[Any, list[int]]:
        query, document = item
        vectors = [*model.encode_query([query], show_progress_bar=False)]
        vectors += model.encode_document([document], show_progress_bar=False)
        return np.concatenate([np.asarray(each) for each in vectors]), []

    return compute


def _ids(model: Any, item: str | Texts) -> list[int]:
    """Return the ids that the library makes; none where it doesn't show them."""
    try:
        features = (getattr(model, "preprocess", None) or model.tokenize)([item])
        found: list[int] = features["input_ids"][0].tolist()
    except Exception:  # noqa: BLE001 — only named in messages
        return []
    return found


def _transformers(task: Task) -> Compute:
    """Return transformers' own tokenizer and model, followed by the recipe's steps in numpy."""
    if task.segments:
        return score_prompts(task)
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    from nearfar.engines.transformer.length_dependence import forget_earlier_texts

    folder = Path(task.folder) / task.subfolder
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    auto: Any = AutoModelForSequenceClassification if task.scores else AutoModel
    model = auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False).float().eval()
    forget_earlier_texts(model, task.limit)
    layers = [_layer(layer) for layer in task.layers]
    unpooled = tokenizer(task.prompt)["input_ids"] if task.prompt else []
    if unpooled and unpooled[-1] in tokenizer.all_special_ids:
        unpooled.pop()

    def compute(item: Texts) -> tuple[Any, list[int]]:
        texts = [task.prompt + text for text in item]
        texts = [text.lower() for text in texts] if task.lower_case else texts
        inputs = tokenizer(*texts, truncation=True, max_length=task.limit, return_tensors="pt")
        output, ids = model(**inputs), inputs["input_ids"][0].tolist()
        if task.scores:
            return output.logits[0], ids
        hidden = output.last_hidden_state[0].numpy()[len(unpooled) :]
        vector = np.concatenate([_pool(mode, hidden) for mode in task.pooling])
        for layer in layers:
            vector = layer(vector)
        return (_unit(vector) if task.normalize else vector)[: task.truncate_dim], ids

    return compute


def _pool(mode: Pooling, hidden: Any) -> Any:
    """Pool one text's hidden states (T, H)."""
    if mode in {"cls", "lasttoken"}:
        return hidden[0 if mode == "cls" else -1]
    if mode == "max":
        return hidden.max(0)
    weights = np.arange(1, len(hidden) + 1) if mode == "weightedmean" else np.ones(len(hidden))
    total = weights.sum()
    return (hidden * weights[:, None]).sum(0) / (np.sqrt(total) if mode == "mean_sqrt_len_tokens" else total)


def _unit(vector: Any) -> Any:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _layer(layer: Layer) -> Callable[[Any], Any]:
    import torch
    from safetensors.numpy import load_file

    if isinstance(layer, Normalize):
        return _unit
    found, names = load_file(layer.file), find_layer_tensors(layer)
    tensors = {name: found[own].astype(np.float64) for name, own in names.items()}
    if isinstance(layer, LayerNorm):
        weight, bias = tensors["norm.weight"], tensors["norm.bias"]
        return lambda vector: (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5) * weight + bias
    activation: Any = getattr(torch.nn, layer.activation)().double()
    if "activation_function.weight" in tensors:
        activation.weight.data = torch.from_numpy(tensors["activation_function.weight"])

    def run(vector: Any) -> Any:
        projected = tensors["linear.weight"] @ vector + tensors.get("linear.bias", 0.0)
        output = activation(torch.from_numpy(projected)).detach().numpy()
        if not layer.residual:
            return output
        return output + (tensors["residual.weight"] @ vector if "residual.weight" in tensors else vector)

    return run


def run(source: Path, target: Path, *options: str) -> None:
    """Compute the reference without the libraries that it shouldn't need; if that fails, start anew with them."""
    gc.disable()  # a tenth of the time of importing libraries, in a process that ends soon
    has_library = find_spec("sentence_transformers") is not None
    if _ALL in options:
        main(source, target, has_library=has_library)
        return
    replace_unused_libraries()
    try:
        is_complete = main(source, target, has_library=has_library)
    except Exception:  # noqa: BLE001 — it may be due to an empty module
        is_complete = False
    if not is_complete:
        os.execv(sys.executable, [*sys.orig_argv, _ALL])  # noqa: S606 — our own program


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
