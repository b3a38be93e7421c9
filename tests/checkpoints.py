"""Tiny checkpoints on disk, real in everything but size.

Weights are seeded and written by transformers, tokenizers are trained here, and the modules of sentence-transformers
are its own; so a reference library can open each folder and say what the numbers should be.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import torch
from msgspec import Struct
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HIDDEN = 32
POSITIONS = 48  # of every family, whatever the table is called and however many rows it hides
CORPUS = (
    "the quick brown fox jumps over the lazy dog while the slow turtle sleeps",
    "embeddings place a text among its neighbours and rerankers sort what was found",
    "a query, a document; a question? an answer! numbers 0 1 2 3 4 5 6 7 8 9",
    "Der schnelle Fuchs springt über den faulen Hund, und die Straße ist naß",
    "el zorro rápido salta sobre el perro perezoso en la mañana de otoño",
    "быстрая лиса прыгает через ленивую собаку",
    "素早い茶色の狐がのろまな犬を飛び越える",
)

Words = Literal["wordpiece", "bytes", "bytes-roberta", "bytes-bos", "bytes-eos", "unigram"]


class Family(Struct, frozen=True, kw_only=True):
    """One kind of transformer: how it splits words, and its configuration beyond the sizes they all share."""

    model_type: str
    words: Words
    config: dict[str, Any]
    padding_side: Literal["left", "right"] = "right"


_ENCODER = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.4,  # the usual 0.02 would make every text's vector nearly the same
}
_DECODER = {**_ENCODER, "num_key_value_heads": 2}
_OFFSET = {**_ENCODER, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1}

FAMILIES = {
    "bert": Family(model_type="bert", words="wordpiece", config=_ENCODER),
    "roberta": Family(model_type="roberta", words="bytes-roberta", config=_OFFSET | {"type_vocab_size": 1}),
    "xlm-roberta": Family(model_type="xlm-roberta", words="unigram", config=_OFFSET | {"type_vocab_size": 1}),
    "mpnet": Family(model_type="mpnet", words="wordpiece", config=_OFFSET),
    "distilbert": Family(
        model_type="distilbert",
        words="wordpiece",
        config={
            "dim": HIDDEN,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": POSITIONS,
            "initializer_range": 0.4,
        },
    ),
    "modernbert": Family(
        model_type="modernbert",
        words="bytes-roberta",
        config=_ENCODER | {"local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "qwen3": Family(model_type="qwen3", words="bytes-eos", config=_DECODER | {"head_dim": 8}, padding_side="left"),
    "llama": Family(model_type="llama", words="bytes-bos", config=_DECODER),
    "mistral": Family(model_type="mistral", words="bytes-bos", config=_DECODER | {"sliding_window": 8}),
    "gpt2": Family(
        model_type="gpt2",
        words="bytes",
        config={
            "n_embd": HIDDEN,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": POSITIONS,
            "initializer_range": 0.4,
        },
    ),
}


def lay(folder: Path, files: Mapping[str, object]) -> Path:
    """Write the files into the folder: bytes as they are, text as UTF-8, anything else as JSON."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case bytes():
                file.write_bytes(content)
            case str():
                file.write_text(content, encoding="utf-8")
            case _:
                file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def write_transformer(folder: Path, family: str, *, labels: int | None = None, **config: Any) -> Path:
    """Write a seeded transformer of the family with its tokenizer; a classifier where ``labels`` says so."""
    kind = FAMILIES[family]
    tokenizer = train_tokenizer(kind.words, padding_side=kind.padding_side)
    special = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name in ("pad", "bos", "eos", "cls", "sep")
        if (token := getattr(tokenizer, f"{name}_token")) is not None
    }
    whole = {"vocab_size": len(tokenizer), **special, **kind.config, **config}
    if labels is not None:
        whole["num_labels"] = labels
    torch.manual_seed(20)
    auto = AutoModel if labels is None else AutoModelForSequenceClassification
    auto.from_config(AutoConfig.for_model(kind.model_type, **whole)).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_tokenizer(words: Words, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Train the tokenizer on the corpus above, with the special tokens that such tokenizers put around a text."""
    if words == "wordpiece":
        return _wordpiece()
    if words == "unigram":
        return _unigram()
    return _bytes(words, padding_side)


def _wordpiece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _bytes(words: Words, padding_side: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    templates = {
        "bytes-roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
        "bytes-bos": ("<s> $A", "<s> $A <s> $B"),
        "bytes-eos": ("$A </s>", "$A $B </s>"),
    }
    if words in templates:
        single, pair = templates[words]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        padding_side=padding_side,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def _unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=280,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
