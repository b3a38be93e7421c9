"""What a case consists of: a transformer with random weights, a tokenizer, sentence-transformers' steps, and edits."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from checkpoints import HIDDEN, write_files
from msgspec import Struct

from parity_cases.families import FAMILIES, TOKENIZERS, Family

if TYPE_CHECKING:
    import torch

# What is compared: one vector a text, also by role, or where pooling is left to us; a score a pair, also of a language
# model; a score a label; vectors of tokens; sparse vectors; similarities of an embedding model.
Kind = Literal["embed", "roles", "default", "rank", "judge", "classify", "multi_vector", "sparse", "similarity"]
Edit = Callable[[Path], object]
Head = Literal["labels", "masked", "causal"]
GONE = object()  # a key to delete


class Checkpoint(Struct, frozen=True, kw_only=True):
    """One case: how its folder is written, and what is compared."""

    kind: Kind
    write: Edit
    folder: str = "model"  # some families are known by their folder's name
    task: Literal["rank"] | None = None  # as in the model's settings
    # What the reference is, where it isn't what sentence-transformers makes of the folder: another edit of it.
    reference: Sequence[Edit] = ()


class Step(Struct, frozen=True, kw_only=True):
    """One entry of modules.json, and the files in its folder."""

    name: str
    config: Mapping[str, object] | None = None
    weights: Mapping[str, torch.Tensor] | None = None


def checkpoint(  # noqa: PLR0913 — a case names what differs from the family's default, and nothing else
    family: str,
    *changes: Edit,
    edits: Sequence[Edit] = (),
    tokenizer: str | None = None,
    labels: int | None = None,
    head: Head | None = None,
    limit: int | None = 512,
    steps: Sequence[Step] | str | None = "mean",
    kind: Kind | None = None,
    base: Mapping[str, object] | None = None,
    folder: str = "model",
    task: Literal["rank"] | None = None,
    reference: Sequence[Edit] = (),
    **config: object,
) -> Checkpoint:
    """Return a case: a transformer of the family with ``config`` over its defaults, then each of the changes.

    ``steps`` are those after the transformer; a word is a pooling, then Normalize; None writes no modules.json.
    ``base`` replaces the family's defaults, and ``limit`` is the tokenizer's. With one of ``labels`` it is a reranker,
    with more a classifier.
    """
    if labels is not None:
        steps, head = None, "labels"
    kind = kind or ("embed" if labels is None else "rank" if labels == 1 else "classify")
    known = FAMILIES.get(family) or Family("start", {})
    known = Family(tokenizer or known.tokenizer, dict(base if base is not None else known.config) | config)
    extra = {} if labels is None else {"num_labels": labels}

    def write(place: Path) -> None:
        write_model(place, family, known, head, extra)
        edit_json("tokenizer_config.json", model_max_length=limit or GONE)(place)
        if steps is not None:
            write_steps(place, [pooling(steps), NORMALIZE] if isinstance(steps, str) else steps)
        for edit in (*changes, *edits):
            edit(place)

    return Checkpoint(kind=kind, write=write, folder=folder, task=task, reference=reference)


def write_model(
    place: Path, family: str, known: Family, head: Head | None = None, extra: Mapping[str, object] | None = None
) -> None:
    """Write a transformer with random weights, and its tokenizer."""
    import transformers

    tokenizer: Any = TOKENIZERS[known.tokenizer]()
    tokens = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos", "cls", "sep")
    }
    options = {"vocab_size": len(tokenizer)} | tokens | known.config | dict(extra or {})
    auto = {
        None: "AutoModel",
        "labels": "AutoModelForSequenceClassification",
        "masked": "AutoModelForMaskedLM",
        "causal": "AutoModelForCausalLM",
    }[head]
    named = options.pop("model_class", None)
    config = transformers.AutoConfig.for_model(family, **options)
    model = getattr(transformers, str(named))(config) if named else getattr(transformers, auto).from_config(config)
    randomize(model)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)


def randomize(model: torch.nn.Module) -> None:
    """Set every weight, biases and norms included, so that leaving any of them out changes the numbers."""
    import torch

    seeded = torch.Generator().manual_seed(20)
    model.float().eval()
    with torch.no_grad():
        for module in model.modules():
            for weight in module.parameters(recurse=False):
                noise = torch.randn(weight.shape, generator=seeded)
                if weight.ndim < 2:
                    weight.add_(noise / 5)
                elif isinstance(module, torch.nn.Embedding):
                    weight.copy_(noise * 0.7)
                else:
                    weight.copy_(noise / weight[0].numel() ** 0.5)


def write_steps(place: Path, steps: Sequence[Step], first: str = "") -> None:
    """Write modules.json and the folder of each step. ``first`` is the transformer's folder."""
    from safetensors.torch import save_file

    listed = [{"idx": 0, "name": "0", "path": first, "type": "sentence_transformers.models.Transformer"}]
    for at, step in enumerate(steps, start=1):
        path = f"{at}_{step.name}"
        listed.append({"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{step.name}"})
        if step.config is not None:
            write_files(place, {f"{path}/config.json": step.config})
        if step.weights is not None:
            save_file(dict(step.weights), place / path / "model.safetensors")
    write_files(place, {"modules.json": listed})


_FLAGS = {
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "msqrt": "mean_sqrt_len_tokens",
    "wmean": "weightedmean_tokens",
    "last": "lasttoken",
}
NORMALIZE = Step(name="Normalize")


def pooling(modes: str, **config: object) -> Step:
    """Return a Pooling step by its flags; several modes are separated by spaces."""
    flags = {f"pooling_mode_{flag}": mode in modes.split() for mode, flag in _FLAGS.items()}
    return Step(name="Pooling", config={"word_embedding_dimension": HIDDEN, **flags, **config})


def dense(size: int, activation: str = "torch.nn.Tanh", width: int = HIDDEN, *, bias: bool = True) -> Step:
    """Return a Dense step from ``width`` to ``size``."""
    import torch

    seeded = torch.Generator().manual_seed(size)
    weights = {"linear.weight": torch.randn(size, width, generator=seeded) / width**0.5}
    if bias:
        weights["linear.bias"] = torch.randn(size, generator=seeded) / 3
    config = {"in_features": width, "out_features": size, "bias": bias, "activation_function": activation}
    return Step(name="Dense", config=config, weights=weights)


def edit_json(file: str, **changes: object) -> Edit:
    """Return an edit that changes keys of a JSON file, which may not exist yet."""

    def edit(place: Path) -> None:
        path = place / file
        content = json.loads(path.read_text()) if path.exists() else {}
        content |= changes
        write_files(place, {file: {key: value for key, value in content.items() if value is not GONE}})

    return edit


config_json = partial(edit_json, "config.json")
tokenizer_config = partial(edit_json, "tokenizer_config.json")
sbert = partial(edit_json, "sentence_bert_config.json")
st_config = partial(edit_json, "config_sentence_transformers.json")


def files(**contents: object) -> Edit:
    """Return an edit that writes files, named without their ending: text as ``.txt``, all else as JSON."""
    named = {f"{name}.{'txt' if isinstance(text, str) else 'json'}": text for name, text in contents.items()}
    return partial(write_files, files=named)


def file(name: str, content: object) -> Edit:
    """Return an edit that writes one file."""
    return partial(write_files, files={name: content})


def remove(*names: str) -> Edit:
    """Return an edit that deletes files."""

    def edit(place: Path) -> None:
        for name in names:
            (place / name).unlink()

    return edit


def rewrite(file: str, change: Callable[[Any], Any]) -> Edit:
    """Return an edit that changes the content of a JSON file."""
    return lambda place: write_files(place, {file: change(json.loads((place / file).read_text()))})


def weights(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], file: str = "model.safetensors"
) -> Edit:
    """Return an edit that changes the tensors of a file."""

    def edit(place: Path) -> None:
        from safetensors.torch import load_file, save_file

        changed = change(load_file(place / file))
        save_file({name: tensor.contiguous() for name, tensor in changed.items()}, place / file, {"format": "pt"})

    return edit


def saved(kind: Kind, source: Checkpoint, build: Callable[[str], Any], *edits: Edit) -> Checkpoint:
    """Return a case that sentence-transformers saves itself: ``build`` makes its model of the source's folder."""

    def write(place: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            source.write(Path(temporary))
            build(temporary).save_pretrained(str(place))
        for edit in edits:
            edit(place)

    return Checkpoint(kind=kind, write=write)


def move(target: str, *names: str) -> Edit:
    """Return an edit that moves files into a folder."""

    def edit(place: Path) -> None:
        (place / target).mkdir(exist_ok=True)
        for name in names:
            shutil.move(place / name, place / target / name)

    return edit
