"""Tiny models with token vectors or sparse vectors; written by sentence-transformers where it can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from checkpoints import HIDDEN, write_transformer
from safetensors.torch import save_file
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from checkpoints import Words


def write_colbert(folder: Path, family: str, skip: Sequence[str] = (",", "?", "!"), **knobs: Any) -> MultiVectorEncoder:
    """Write one with sentence-transformers, and return its model."""
    words: Words | None = "pieces-colbert" if family == "bert" else None
    window = {"local_attention": knobs.pop("window", 48)} if family == "modernbert" else {}
    transformer = write_transformer(folder.parent / "trunk", family, words=words, **window)
    torch.manual_seed(1)
    linear = Dense(
        HIDDEN, 16, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
    )
    modules = [
        Transformer(str(transformer), **knobs),
        linear,
        MultiVectorMask(skiplist_words=list(skip)),
        Normalize(module_input_name="token_embeddings"),
    ]
    model = MultiVectorEncoder(modules=modules, device="cpu", prompts={"query": "a query, ", "document": ""})
    model.eval().save(str(folder))
    return model


def write_m3(folder: Path) -> Path:
    """Write BGE-M3's three heads: CLS pooling, and two linear layers in separate files."""
    write_transformer(folder, "xlm-roberta")
    seeded = torch.Generator().manual_seed(2)
    heads = {
        name: {
            "weight": torch.randn(size, HIDDEN, generator=seeded) / 4,
            "bias": torch.randn(size, generator=seeded) / 4,
        }
        for name, size in (("colbert_linear", HIDDEN), ("sparse_linear", 1))
    }
    for name, weights in heads.items():
        save_file(weights, folder / f"{name}.safetensors")
    return folder


def write_splade(folder: Path, family: str, **pooling: Any) -> SparseEncoder:
    """Write one with sentence-transformers, and return its model."""
    trunk = write_transformer(folder.parent / "trunk", family, masked=True)
    modules = [Transformer(str(trunk), transformer_task="fill-mask"), SpladePooling(**pooling)]
    model = SparseEncoder(modules=modules, device="cpu")
    model.eval().save(str(folder))
    return model
