"""Rerankers and classifiers: cross-encoders as each library saves them, and language models asked for yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpoints import HIDDEN, write_files
from llm_reranker_models import write_llm_reranker

from parity_cases.decoders import WIDTHS
from parity_cases.parts import (
    GONE,
    Checkpoint,
    Edit,
    checkpoint,
    config_json,
    edit_json,
    remove,
    rewrite,
    saved,
    sbert,
    st_config,
    tokenizer_config,
)

_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _ends_with(token: str, at: int) -> Edit:
    """Return an edit that appends a token to every text and every pair."""
    end = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    special = {token: {"id": token, "ids": [at], "tokens": [token]}}
    template = {"type": "TemplateProcessing", "single": [first, end], "pair": [first, second, end]}
    return rewrite(
        "tokenizer.json", lambda content: content | {"post_processor": template | {"special_tokens": special}}
    )


def _types(start: str, end: str) -> Edit:
    """Return an edit to a tokenizer.json that states types, as BERT's does."""
    marks = {token: {"id": token, "ids": [at], "tokens": [token]} for token, at in ((start, 0), (end, 2))}
    cls, sep = ({"SpecialToken": {"id": token, "type_id": 0}} for token in (start, end))
    first = [cls, {"Sequence": {"id": "A", "type_id": 0}}, sep]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": end, "type_id": 1}}]
    template = {"type": "TemplateProcessing", "single": first, "pair": first + second, "special_tokens": marks}
    return rewrite("tokenizer.json", lambda content: content | {"post_processor": template})


def _saved_with(activation: str, edits: Sequence[Edit] = (), **options: Any) -> Checkpoint:
    def build(folder: str) -> Any:
        import torch
        from sentence_transformers import CrossEncoder

        return CrossEncoder(folder, device="cpu", activation_fn=getattr(torch.nn, activation)(), **options)

    return saved("rank", checkpoint("bert", labels=1), build, *edits)


def _of_steps(folder: str) -> Any:
    """Build a cross-encoder of sentence-transformers 6 that scores with Pooling and Dense."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    torch.manual_seed(4)
    head = Dense(HIDDEN, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    return CrossEncoder(modules=[Transformer(folder), Pooling(HIDDEN, "cls"), head], device="cpu")


def _judge(folder: str) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(folder, device="cpu")


def _add_tokens(*tokens: str) -> Edit:
    def edit(place: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(place)
        tokenizer.add_tokens([*tokens])
        tokenizer.save_pretrained(place)

    return edit


def _qwen3_reranker(*edits: Edit, folder: str) -> Checkpoint:
    def write(place: Path) -> None:
        with_name = write_llm_reranker(place / "unnamed", "qwen3-reranker")
        for part in with_name.iterdir():
            part.rename(place / part.name)
        with_name.rmdir()
        with_name.parent.rmdir()
        for edit in edits:
            edit(place)

    return Checkpoint(kind="judge", write=write, folder=folder, task="rank")


def _of_chat(*edits: Edit) -> Checkpoint:
    """Return a language model that sentence-transformers 6 made a reranker, with its chat template and LogitScore."""
    source = checkpoint(
        "qwen3",
        _add_tokens("yes", "no"),
        lambda place: write_files(place, {"chat_template.jinja": _CHAT}),
        tokenizer="qwen2-left",
        head="causal",
        steps=None,
        head_dim=8,
        vocab_size=370,
        tie_word_embeddings=True,
    )
    return saved("rank", source, _judge, *edits)


_TEXT_ALONE = {"text": {"method": "forward", "method_output_name": "logits"}}
_ST_MARKS = {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.0.1"}
_INTS = {str(label): label for label in range(3)}
CASES: dict[str, Checkpoint] = {
    "rank_no_architectures": checkpoint(
        "bert", config_json(architectures=GONE, sentence_transformers=_ST_MARKS), labels=1
    ),
    "rank_activation_null": checkpoint(
        "bert",
        config_json(
            sentence_transformers={"activation_fn": None},
            sbert_ce_default_activation_function="torch.nn.modules.activation.Tanh",
        ),
        labels=1,
    ),
    "rank_prompts_without_steps": checkpoint(
        "bert", st_config(prompts={"query": "a query: "}, default_prompt_name="query"), labels=1
    ),
    "rank_without_labels": checkpoint(
        "bert",
        config_json(architectures=GONE, id2label=GONE, label2id=GONE, sentence_transformers=_ST_MARKS),
        labels=1,
    ),
    "rank_options_without_steps": checkpoint(
        "bert", sbert(max_seq_length=60, do_lower_case=True), tokenizer="bert-cased", labels=1
    ),
    "rank_types_of_roberta_class": checkpoint("bert", _types("<s>", "</s>"), tokenizer="roberta", labels=1),
    "rank_types_unnamed": checkpoint("bert", tokenizer_config(tokenizer_class="PreTrainedTokenizerFast"), labels=1),
    "rank_types_unstated": checkpoint("nomic_bert", config_json(type_vocab_size=GONE), labels=1),
    "rank_types_unstated_bert": checkpoint("bert", config_json(type_vocab_size=GONE), labels=1),
    "rank_without_tokenizer_config": checkpoint("bert", remove("tokenizer_config.json"), labels=1),
    "rank_saved_by_6": _saved_with("Identity", max_length=100),
    "rank_saved_by_6_tanh": _saved_with("Tanh"),
    "rank_saved_by_6_of_steps": saved("rank", checkpoint("bert", steps=None), _of_steps),
    "rank_saved_by_6_of_chat": _of_chat(),
    "rank_logit_score_text_alone": _of_chat(sbert(modality_config=_TEXT_ALONE)),
    "rank_logit_score_without_template": _of_chat(
        sbert(modality_config=GONE, module_output_name=GONE), remove("chat_template.jinja")
    ),
    "rank_logit_score_unknown_key": _of_chat(edit_json("1_LogitScore/config.json", scale=2.0)),
    "rank_saved_by_6_query_length": _saved_with("Identity", max_length=100, edits=[sbert(query_length=8)]),
    "rank_qwen2_padding_is_end": checkpoint("qwen2", _ends_with("<|endoftext|>", 0), labels=1),
    "rank_llama_no_padding_id": checkpoint("llama", labels=1, head_dim=8, pad_token_id=None),
    "labels_gpt2_left": checkpoint("gpt2", tokenizer="start-left", labels=3),
    "labels_integers": checkpoint("bert", config_json(id2label=_INTS, label2id=_INTS), labels=3),
    "labels_mismatch": checkpoint("bert", config_json(num_labels=2), labels=3),
    "labels_multilabel_of_3": checkpoint(
        "bert",
        config_json(
            problem_type="multi_label_classification",
            sbert_ce_default_activation_function="torch.nn.modules.linear.Identity",
        ),
        labels=4,
    ),
    "labels_regression": checkpoint("bert", config_json(problem_type="regression"), labels=3),
    "judge_by_name": _qwen3_reranker(folder="Qwen3-Reranker-tiny"),
    "judge_renamed": _qwen3_reranker(folder="my-ranker"),
    "judge_renamed_with_origin": _qwen3_reranker(
        config_json(_name_or_path="Qwen/Qwen3-Reranker-0.6B"), folder="my-ranker"
    ),
    "judge_without_architectures": _qwen3_reranker(config_json(architectures=GONE), folder="my-ranker"),
    "gemma3_rank": checkpoint("gemma3_text", labels=1),
}
CASES |= {f"{family}_rank": checkpoint(family, labels=1, limit=1024, **width) for family, width in WIDTHS.items()}
# Pairs that lose their start, each family with other special tokens.
CASES |= {
    f"rank_truncated_left_{family}": checkpoint(
        family, tokenizer_config(truncation_side="left", model_max_length=60), labels=1
    )
    for family in ("bert", "llama")
}
CASES |= {
    "rank_truncated_left_by_6": _saved_with(
        "Identity", max_length=60, edits=[sbert(processor_kwargs={"truncation_side": "left", "model_max_length": 60})]
    ),
    "labels_truncated_left": checkpoint(
        "bert", tokenizer_config(truncation_side="left", model_max_length=60), labels=3
    ),
    "rank_llama_over_positions": checkpoint("llama", labels=1, max_position_embeddings=64, limit=1024),
}
CASES |= {
    f"rank_unmarked_{family}": checkpoint(family, config_json(architectures=GONE), labels=1)
    for family in ("bert", "roberta", "llama")
}
CASES |= {f"{family}_3_labels": checkpoint(family, labels=3, limit=1024, **width) for family, width in WIDTHS.items()}
