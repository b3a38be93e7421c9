"""The numbers that each parity case is compared with: sentence-transformers' or transformers', one text at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from llm_reranker_models import reference_prompt
from msgspec import Struct
from texts import ODD, varied_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from parity_cases.parts import Checkpoint, Kind

# One entry a text or pair; None where the library fails on it.
Numbers = dict[str, list["np.ndarray[Any, Any] | None"]]

_VARIED = " ".join(text for text in varied_texts(200)[len(ODD) :]).split()


def _sentence(words: int, start: int = 0) -> str:
    return " ".join(_VARIED[start : start + words])


class Sample(Struct, frozen=True):
    """What is sent to each case: texts, and each query with each document."""

    texts: tuple[str, ...]
    queries: tuple[str, ...]
    documents: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(query, document) for query in self.queries for document in self.documents]


_MARKS = "<s> of </s> <pad> <mask> <unk> <|endoftext|>"
SAMPLES = {
    "all": Sample(
        (
            *("a", ".", " leading space", "trailing space  ", "Hello, World!", "\n\n", "line\nand line\r\n", _MARKS),
            *(
                "the fox, fox; Fox! don't",
                "Der schnelle Fuchs springt über die Straße",
                "быстрая лиса прыгает через собаку",
            ),
            *(text for text in ODD if len(text) < 2_000 and text.strip()),
            *(_sentence(count, count) for count in (2, 8, 20, 60, 130, 300, 700)),
            _sentence(3000),
        ),
        ("a question? the fox", "x", _sentence(40, 5), _sentence(300, 9)),
        (
            *(
                "the quick brown fox jumps over the lazy dog",
                ".",
                "안녕하세요, 세계",
                "🙂 emoji",
                " leading",
                "ALL CAPS",
            ),
            *("[SEP] a </s> b", "line\nbreak\t", *(_sentence(count, count) for count in (30, 90, 250, 600))),
        ),
    ),
    "few": Sample(
        (
            ".",
            "Hello, World!",
            _MARKS,
            "[CLS] a [SEP]",
            "e\u0301 ﬁ 🙂 한국어",
            *(_sentence(count, count) for count in (2, 20, 700)),
        ),
        ("a question? the fox", _sentence(300, 9)),
        ("the quick brown fox", "[SEP] a </s> b", _sentence(600, 600)),
    ),
}


def reference(folder: Path, case: Checkpoint, sample: Sample) -> Numbers:
    """Compute a case's numbers. Raises whatever the library raises where it can't open the folder."""
    return _OF_KIND[case.kind](folder, sample)


def _each(compute: Callable[[Any], Any], items: Sequence[Any]) -> list[np.ndarray[Any, Any] | None]:
    found: list[np.ndarray[Any, Any] | None] = []
    for item in items:
        try:
            with torch.no_grad():
                found.append(np.asarray(compute(item), dtype=np.float32))
        except Exception:  # noqa: BLE001 — whatever the library raises, it has no numbers for this one
            found.append(None)
    return found


def _embedder(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).float().eval()


def _embed(folder: Path, sample: Sample) -> Numbers:
    model = _embedder(folder)
    prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None

    def count(text: str) -> Any:
        if hasattr(model, "preprocess"):
            return model.preprocess([text], prompt=prompt)["input_ids"].shape[1]
        return model.tokenize([(prompt or "") + text])["input_ids"].shape[1]

    config = folder / "config.json"
    # With such rotary positions a text changes the numbers of those after it.
    is_changed = config.is_file() and "dynamic" in config.read_text(encoding="utf-8-sig")

    def encode(text: str) -> Any:
        return (_embedder(folder) if is_changed else model).encode([text], batch_size=1)[0]

    return {
        "vectors": _each(encode, sample.texts),
        "tokens": _each(count, sample.texts),
    }


def _roles(folder: Path, sample: Sample) -> Numbers:
    model = _embedder(folder)
    sides = {"query": model.encode_query, "document": model.encode_document}
    return _embed(folder, sample) | {
        role: _each(lambda text, encode=encode: encode([text], batch_size=1)[0], sample.texts)  # type: ignore[misc]
        for role, encode in sides.items()
    }


def _default(folder: Path, sample: Sample) -> Numbers:
    """Compute the hidden states of the last token, of unit length."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).float().eval()

    def last(text: str) -> Any:
        encoded = tokenizer(text, truncation=True, return_tensors="pt")
        return torch.nn.functional.normalize(model(input_ids=encoded["input_ids"]).last_hidden_state[0, -1], dim=0)

    return {"vectors": _each(last, sample.texts)}


def _rank(folder: Path, sample: Sample) -> Numbers:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True).float()
    raw = torch.nn.Identity()
    return {
        "logits": _each(lambda pair: model.predict([pair], activation_fn=raw, batch_size=1)[0], sample.pairs),
        "scores": _each(lambda pair: model.predict([pair], batch_size=1)[0], sample.pairs),
    }


def _judge(folder: Path, sample: Sample) -> Numbers:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    first, second = (reference_token(folder, word) for word in ("yes", "no"))

    def score(pair: tuple[str, str]) -> Any:
        logits = model(torch.tensor([reference_prompt(folder, "qwen3-reranker", *pair)])).logits[0, -1]
        return logits[first] - logits[second]

    return {"logits": _each(score, sample.pairs)}


def reference_token(folder: Path, word: str) -> int:
    """Return the id of a word of the vocabulary."""
    from transformers import AutoTokenizer

    found: int = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(word)
    return found


def _classify(folder: Path, sample: Sample) -> Numbers:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).float().eval()
    limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 10**9) or 10**9)

    def logits(item: str | tuple[str, str]) -> Any:
        parts = [item] if isinstance(item, str) else item
        return model(**tokenizer(*parts, truncation=True, max_length=limit, return_tensors="pt")).logits[0]

    return {"texts": _each(logits, sample.texts), "pairs": _each(logits, sample.pairs)}


def _multi_vector(folder: Path, sample: Sample) -> Numbers:
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True).eval()
    return {
        "query": _each(lambda text: model.encode_query([text], batch_size=1)[0], sample.texts),
        "document": _each(lambda text: model.encode_document([text], batch_size=1)[0], sample.texts),
    }


def _sparse(folder: Path, sample: Sample) -> Numbers:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(folder), device="cpu", local_files_only=True).eval()
    return {
        "sparse": _each(
            lambda text: model.encode([text], batch_size=1, convert_to_sparse_tensor=False)[0], sample.texts
        )
    }


def _similarity(folder: Path, sample: Sample) -> Numbers:
    model = _embedder(folder)

    def compare(text: str) -> Any:
        return model.similarity(model.encode([sample.queries[0]]), model.encode([text], batch_size=1))[0, 0]

    return {"similarities": _each(compare, sample.texts)}


_OF_KIND: dict[Kind, Callable[[Path, Sample], Numbers]] = {
    "embed": _embed,
    "roles": _roles,
    "default": _default,
    "rank": _rank,
    "judge": _judge,
    "classify": _classify,
    "multi_vector": _multi_vector,
    "sparse": _sparse,
    "similarity": _similarity,
}
