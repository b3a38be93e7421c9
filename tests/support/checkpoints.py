"""Tiny checkpoints on disk, real in everything but size.

Weights are seeded and written by transformers, and tokenizers know the words of a small corpus, so that a reference
library can open each folder and compute the expected numbers. A checkpoint is written once for each version of the
libraries and of this file, into a cache in the system's temporary folder, and copied from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedTokenizerFast

HIDDEN = 32
POSITIONS = 48  # the limit of every family here in tokens, however many rows its position table has
CORPUS = (
    "the quick brown fox jumps over the lazy dog while the slow turtle sleeps",
    "embeddings place a text among its neighbours and rerankers sort what was found",
    "a query, a document; a question? an answer! numbers 0 1 2 3 4 5 6 7 8 9",
    "Der schnelle Fuchs springt über den faulen Hund, und die Straße ist naß",
    "el zorro rápido salta sobre el perro perezoso en la mañana de otoño",
    "быстрая лиса прыгает через ленивую собаку",
    "素早い茶色の狐がのろまな犬を飛び越える",
)

# A tokenizer's model and special tokens: BERT's WordPiece, with its own or RoBERTa's special tokens, or with ColBERT's
# markers; byte-level BPE with none, RoBERTa's, a start or an end token; SentencePiece's Unigram with RoBERTa's.
Words = Literal[
    "pieces", "pieces-colbert", "pieces-roberta", "bytes", "bytes-roberta", "bytes-start", "bytes-end", "unigrams"
]


class Family(Struct, frozen=True, kw_only=True):
    """One kind of transformer: its tokenizer and configuration."""

    words: Words
    config: dict[str, Any]
    padding_side: Literal["left", "right"] = "right"


_ENCODER = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.4,  # with the default 0.02 all texts' vectors are nearly equal
}
_OFFSET = {**_ENCODER, "max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "head_dim": 8}
_DISTILBERT = {"dim": HIDDEN, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": POSITIONS}
_GPT2 = {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
_GEMMA3 = {
    **_DECODER,
    "sliding_window": 8,
    "query_pre_attn_scalar": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}
_GEMMA2 = {**_GEMMA3, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
_LFM2 = {**_DECODER, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}
_XLNET = {"d_model": HIDDEN, "n_layer": 2, "n_head": 4, "d_inner": 48, "initializer_range": 0.4}

# By model_type.
FAMILIES = {
    "bert": Family(words="pieces", config=_ENCODER),
    "distilbert": Family(words="pieces", config=_DISTILBERT | {"initializer_range": 0.4}),
    "mpnet": Family(words="pieces-roberta", config=_OFFSET),
    "roberta": Family(words="bytes-roberta", config=_OFFSET),
    "xlm-roberta": Family(words="unigrams", config=_OFFSET),
    "modernbert": Family(words="bytes-roberta", config=_ENCODER | {"local_attention": 8}),
    "qwen3": Family(words="bytes-end", config=_DECODER, padding_side="left"),
    "llama": Family(words="bytes-start", config=_DECODER),
    "mistral": Family(words="bytes-start", config=_DECODER | {"sliding_window": 8}),
    "gpt2": Family(words="bytes", config=_GPT2 | {"initializer_range": 0.4}),
}

# Not among those that every engine is tested with.
MORE_FAMILIES = {
    "deberta-v2": Family(
        words="unigrams", config=_ENCODER | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    ),
    "electra": Family(words="pieces", config=_ENCODER | {"embedding_size": HIDDEN}),
    "camembert": Family(words="unigrams", config=_OFFSET),
    "gemma": Family(words="bytes-start", config=_DECODER),
    "gemma2": Family(words="bytes-start", config=_GEMMA2),
    "gemma3_text": Family(words="bytes-start", config=_GEMMA3),
    "lfm2": Family(words="bytes-start", config=_LFM2),
    "qwen2": Family(words="bytes", config=_DECODER),
    "nomic_bert": Family(words="pieces", config=_ENCODER),
    "gte": Family(words="unigrams", config=_ENCODER),
    "eurobert": Family(words="bytes-start", config=_DECODER),
    "jina_embeddings_v3": Family(words="unigrams", config=_ENCODER),
}

# Not in the manual's table: their masks don't cover padding, or OpenVINO can't run them.
ODD_FAMILIES = {
    "convbert": Family(words="pieces", config=_ENCODER | {"embedding_size": HIDDEN, "conv_kernel_size": 3}),
    "falcon": Family(words="bytes-start", config=_ENCODER),
    "xlnet": Family(words="unigrams", config=_XLNET),
}


def write_files(folder: Path, files: Mapping[str, object]) -> Path:
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


def write_cached(folder: Path, key: object, write: Callable[[Path], None]) -> Path:
    """Copy what ``write`` writes for this key into the folder, writing it only if it isn't in the cache yet."""
    name = hashlib.sha256(repr((key, _versions())).encode()).hexdigest()[:24]
    cached = Path(tempfile.gettempdir()) / f"nearfar-checkpoints-{os.getuid()}" / name
    if not cached.is_dir():
        cached.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as unfinished:
            made = Path(unfinished) / name
            made.mkdir()
            write(made)
            try:
                made.rename(cached)
            except OSError:  # another process has just written the same
                assert cached.is_dir()
    shutil.copytree(cached, folder, dirs_exist_ok=True)
    return folder


@cache
def _versions() -> tuple[str, ...]:
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*models.py"))))
    sources.update(Path(__file__).read_bytes())
    return (sources.hexdigest(), *map(version, ("torch", "transformers", "tokenizers", "sentence-transformers")))


def write_transformer(
    folder: Path,
    family: str,
    *,
    labels: int | None = None,
    masked: bool = False,
    words: Words | None = None,
    **options: Any,
) -> Path:
    """Write a seeded transformer of the family and its tokenizer.

    It is a classifier with so many ``labels``, or a ``masked`` language model. ``options`` override the family's
    configuration.
    """

    def write(folder: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

        kind = (FAMILIES | MORE_FAMILIES | ODD_FAMILIES)[family]
        tokenizer = make_tokenizer(words or kind.words, kind.padding_side)
        roles = {role: getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos", "cls", "sep")}
        config = {f"{role}_token_id": at for role, at in roles.items()} | kind.config | {"vocab_size": len(tokenizer)}
        config |= options
        auto = AutoModelForMaskedLM if masked else AutoModel
        if labels is not None:
            config["num_labels"] = labels
            auto = AutoModelForSequenceClassification
        with torch.random.fork_rng():
            torch.manual_seed(20)
            model = auto.from_config(AutoConfig.for_model(family, **config))
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return write_cached(folder, (family, labels, masked, words, sorted(options.items())), write)


def write_steps(folder: Path, pooling: str) -> None:
    """Write modules.json and its steps: the pooling, a Dense layer of 12 with Tanh, and Normalize."""
    import torch
    from safetensors.torch import save_file

    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    paths = ("", "1_Pooling", "2_Dense", "3_Normalize")
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    dense = {"in_features": HIDDEN, "out_features": 12, "activation_function": "torch.nn.modules.activation.Tanh"}
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, "pooling_mode": pooling},
        "2_Dense/config.json": dense,
    }
    write_files(folder, files)
    weights = torch.randn(12, HIDDEN, generator=torch.Generator().manual_seed(1))
    save_file(
        {"linear.weight": weights, "linear.bias": weights[:, 0].contiguous()}, folder / "2_Dense/model.safetensors"
    )


def make_tokenizer(words: Words, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Build a tokenizer with the corpus's words; the same one every time."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = _CUTTERS[words]()
    bert = words in {"pieces", "pieces-colbert"}
    start, end, padding, unknown = ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if bert else _SPECIALS
    around = {
        "pieces": (f"{start} $A {end}", f"{start} $A {end} $B:1 {end}:1"),
        "pieces-colbert": (f"{start} $A {end}", f"{start} $A {end} $B:1 {end}:1"),
        "bytes-start": (f"{start} $A", f"{start} $A {start} $B"),
        "bytes-end": (f"$A {end}", f"$A {end} $B {end}"),
        "bytes": ("$A", "$A $B"),
    }
    single, pair = around.get(words, (f"{start} $A {end}", f"{start} $A {end} {end} $B {end}"))
    special = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    roles = {"cls_token": start, "sep_token": end}
    if words == "pieces-colbert":
        roles |= {"mask_token": "[MASK]"}
    if not bert:
        roles |= {"bos_token": start, "eos_token": end}
    types = ["token_type_ids"] if bert else []
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        model_input_names=["input_ids", *types, "attention_mask"],
        padding_side=padding_side,
        pad_token=padding,
        unk_token=unknown,
        **roles,
    )


MARKERS = ("[unused0]", "[unused1]", "[Q] ", "[D] ")
_SPECIALS = ("<s>", "</s>", "<pad>", "<unk>")
_IN_ORDER = ("<s>", "<pad>", "</s>", "<unk>")  # padding is 1: MPNet's modeling file takes no other


def _pieces(specials: tuple[str, ...], unknown: str) -> Tokenizer:
    """Build from the corpus's characters and longer words; the library's trainer is not deterministic."""
    text = " ".join(CORPUS).lower()
    characters = sorted(set(text) - {" "})
    longer = sorted({word for word in text.split() if len(word) > 3})
    known = [*specials, *characters, *(f"##{character}" for character in characters), *longer, "##ing", "##er"]
    numbered = {piece: at for at, piece in enumerate(dict.fromkeys(known))}
    tokenizer = Tokenizer(models.WordPiece(numbered, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=[*_IN_ORDER],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _unigrams() -> Tokenizer:
    """Build from the corpus's words and characters; the library's trainer is not deterministic."""
    words = sorted({f"▁{word}" for line in CORPUS for word in line.split()})
    characters = sorted(set("".join(words)))
    scored = [(special, 0.0) for special in _IN_ORDER]
    scored += [(word, -4.0) for word in words if len(word) > 2] + [(character, -6.0) for character in characters]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=_IN_ORDER.index("<unk>")))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*_IN_ORDER])
    return tokenizer


_CUTTERS = {
    "pieces": lambda: _pieces(("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "[UNK]"),
    "pieces-colbert": lambda: _pieces(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *MARKERS), "[UNK]"),
    "pieces-roberta": lambda: _pieces(_IN_ORDER, "<unk>"),
    "bytes": _bytes,
    "bytes-roberta": _bytes,
    "bytes-start": _bytes,
    "bytes-end": _bytes,
    "unigrams": _unigrams,
}
