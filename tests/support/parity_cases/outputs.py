"""Models with other outputs than one vector: SPLADE and ColBERT, as sentence-transformers saves them."""

from __future__ import annotations

from typing import Any

from checkpoints import HIDDEN

from parity_cases.parts import Checkpoint, Edit, Kind, checkpoint, edit_json, file, saved, sbert, st_config

_SPARSE = "sentence_transformers.sparse_encoder.models"
_SPLADE = [
    {"idx": 0, "name": "0", "path": "", "type": f"{_SPARSE}.MLMTransformer"},
    {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": f"{_SPARSE}.SpladePooling"},
]


def _splade(family: str, *edits: Edit, **pooling: Any) -> Checkpoint:
    def build(folder: str) -> Any:
        from sentence_transformers import SparseEncoder
        from sentence_transformers.sentence_transformer.modules import Transformer
        from sentence_transformers.sparse_encoder.modules import SpladePooling

        modules = [Transformer(folder, transformer_task="fill-mask"), SpladePooling(**pooling)]
        return SparseEncoder(modules=modules, device="cpu")

    return saved("sparse", checkpoint(family, head="masked", steps=None), build, *edits)


def _colbert(family: str, *edits: Edit, **options: Any) -> Checkpoint:
    def build(folder: str) -> Any:
        import torch
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
        from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Transformer

        torch.manual_seed(1)
        knobs = dict(options)
        more, tasks = knobs.pop("more", False), knobs.pop("tasks", None)
        unit = knobs.pop("unit", True)
        on_tokens = {"module_input_name": "token_embeddings"}
        modules: list[Any] = [Transformer(folder, **knobs)]
        modules.append(Dense(HIDDEN, 16, bias=False, activation_function=torch.nn.Identity(), **on_tokens))
        if more:
            modules.append(Dense(16, 8, activation_function=torch.nn.GELU(), **on_tokens))
        skipped = {"skiplist_tasks": tasks} if tasks else {}
        modules.append(MultiVectorMask(skiplist_words=[",", "?", "!"], **skipped))
        if unit:
            modules.append(Normalize(**on_tokens))
        return MultiVectorEncoder(modules=modules, device="cpu", prompts={"query": "q: ", "document": "d: "})

    return saved("multi_vector", checkpoint(family, steps=None), build, *edits)


def _untied(kind: Kind = "sparse", **config: object) -> Checkpoint:
    """Return SPLADE with output weights that aren't the embeddings; sentence-transformers 5 wrote such a folder."""
    pooling = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": None}
    return checkpoint(
        "bert",
        file("modules.json", _SPLADE),
        file("1_SpladePooling/config.json", pooling),
        st_config(**config),
        head="masked",
        steps=None,
        kind=kind,
        tie_word_embeddings=False,
    )


def _expansion(strategy: str, length: int, *, attend: bool) -> dict[str, Any]:
    return {"query_expansion": {"strategy": strategy, "length": length, "attend": attend}}


CASES = {
    "splade": _splade("bert"),
    "splade_log1p": _splade("bert", activation_function="log1p_relu"),
    "splade_modernbert": _splade("modernbert", pooling_strategy="sum"),
    "splade_query_length": _splade("bert", sbert(query_length=8)),
    "splade_unknown_key": _splade("bert", edit_json("1_SpladePooling/config.json", layers=2)),
    "splade_sum": _splade("bert", pooling_strategy="sum"),
    "splade_untied": _untied(model_type="SparseEncoder", prompts={"query": "", "document": ""}),
    "splade_untied_unmarked": _untied(prompts={}),
    "splade_xlm_roberta": _splade("xlm-roberta"),
    "colbert": _colbert("bert"),
    "colbert_2_dense": _colbert("bert", more=True),
    "colbert_expansion": _colbert("bert", **_expansion("fixed", 32, attend=False)),
    "colbert_expansion_attended": _colbert(
        "bert", **_expansion("min", 24, attend=True), query_length=48, document_length=100
    ),
    "colbert_expansion_modernbert": _colbert("modernbert", **_expansion("fixed", 64, attend=False)),
    "colbert_expansion_xlm_roberta": _colbert("xlm-roberta", **_expansion("min", 40, attend=False)),
    "colbert_modernbert": _colbert("modernbert", query_length=24, document_length=300),
    "colbert_not_normalized": _colbert("bert", unit=False),
    "colbert_lengths_contradict": _colbert("bert", sbert(query_length=8), **_expansion("fixed", 32, attend=False)),
    "colbert_pylate_length": _colbert("bert", st_config(query_length=16)),
    "colbert_pylate_prefix": _colbert("bert", st_config(query_prefix="q: ")),
    "colbert_unknown_key": _colbert("bert", edit_json("2_MultiVectorMask/config.json", layers=2)),
    "colbert_tasks": _colbert("bert", tasks=["query", "document"]),
    "colbert_xlm_roberta": _colbert("xlm-roberta"),
}
