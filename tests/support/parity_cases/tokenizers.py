"""Tokenizers: what their files state beside tokenizer.json, files of older versions, and texts over the limit."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from checkpoints import CORPUS, write_files

from parity_cases.families import unigrams
from parity_cases.parts import (
    GONE,
    Checkpoint,
    Edit,
    checkpoint,
    files,
    remove,
    rewrite,
    sbert,
    tokenizer_config,
)

_ADDED = {"content": "Hello", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
_STRIPS = {"content": "[MASK]", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False}
_END = "<|endoftext|>"


def _llama(*edits: Edit, steps: str = "mean", tokenizer: str = "start", **options: Any) -> Checkpoint:
    return checkpoint(
        "llama", *edits, sbert(max_seq_length=256), steps=steps, tokenizer=tokenizer, limit=1024, **options
    )


def _json(change: Any) -> Edit:
    return rewrite("tokenizer.json", change)


def _ends_with(token: str) -> Edit:
    """Return an edit of tokenizer.json like Qwen3-Embedding's: a processor that appends this token."""
    end = {"SpecialToken": {"id": token, "type_id": 0}}
    single: list[object] = [{"Sequence": {"id": "A", "type_id": 0}}, end]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 0}}, end]
    special = {token: {"id": token, "ids": [0], "tokens": [token]}}
    template = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return _json(lambda content: content | {"post_processor": {"type": "Sequence", "processors": [bytes_, template]}})


def _add_word(place: Path) -> None:
    """Add a token to tokenizer.json with an id past the embedding table."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.add_tokens(["Hello"])
    tokenizer.save(str(place / "tokenizer.json"))


def _only(*names: str, **config: object) -> Edit:
    """Return an edit that leaves these files of the tokenizer, made of its tokenizer.json, and this configuration."""

    def edit(place: Path) -> None:
        model = json.loads((place / "tokenizer.json").read_text())["model"]
        contents = {
            "vocab.txt": "\n".join(model["vocab"]),
            "vocab.json": model["vocab"],
            "merges.txt": "\n".join(["#version: 0.2", *(" ".join(merge) for merge in model.get("merges", ()))]),
        }
        remove("tokenizer.json", "tokenizer_config.json")(place)
        (place / "special_tokens_map.json").unlink(missing_ok=True)
        write_files(place, {name: contents[name] for name in names} | {"tokenizer_config.json": config})

    return edit


@cache
def _charsmap() -> bytes:
    """Return SentencePiece's normalization as XLM-R has it."""
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as messages

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=trained, vocab_size=400, hard_vocab_limit=False, minloglevel=2
    )
    model = messages.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(trained.getvalue())
    found: bytes = model.normalizer_spec.precompiled_charsmap
    return found


def _sentencepiece(file: str, model_type: str = "UNIGRAM", **config: object) -> Edit:
    """Return an edit that leaves SentencePiece's own file in place of tokenizer.json."""

    def edit(place: Path) -> None:
        from sentencepiece import sentencepiece_model_pb2 as messages

        model = messages.ModelProto()  # type: ignore[attr-defined]
        for at, (piece, score) in enumerate(unigrams("<unk> <s> </s>")):
            model.pieces.add(piece=piece, score=score, type=(2, 3, 3)[at] if at < 3 else 1)
        if model_type == "BPE":
            for byte in range(256):
                model.pieces.add(piece=f"<0x{byte:02X}>", score=0, type=6)
            model.trainer_spec.byte_fallback = True
        model.trainer_spec.model_type = {"UNIGRAM": 1, "BPE": 2}[model_type]
        model.trainer_spec.vocab_size = len(model.pieces)
        model.normalizer_spec.name = "nmt_nfkc"
        model.normalizer_spec.precompiled_charsmap = _charsmap()
        remove("tokenizer.json")(place)
        (place / "special_tokens_map.json").unlink(missing_ok=True)
        write_files(
            place, {file: model.SerializeToString(), "tokenizer_config.json": {"model_max_length": 512} | config}
        )

    return edit


def _old_xlm_roberta(layout: str) -> Checkpoint:
    """Return XLM-R with a tokenizer.json of an older layout."""

    def edit(place: Path) -> None:
        from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

        charsmap = normalizers.Precompiled(_charsmap())
        spaces = normalizers.Replace(Regex(" {2,}"), " ")
        metaspace = pre_tokenizers.Metaspace()
        split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
        stripped = [charsmap, normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
        tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = {
            "hub": (normalizers.Sequence([charsmap, spaces]), tokenizer.pre_tokenizer),
            "charsmap_and_metaspace": (charsmap, metaspace),
            "transformers_3": (charsmap, split),
            "transformers_4": (normalizers.Sequence([charsmap, spaces]), metaspace),
            "transformers_4_40": (normalizers.Sequence(stripped), metaspace),
        }[layout]
        tokenizer.save(str(place / "tokenizer.json"))

    return checkpoint("xlm-roberta", edit)


_NORMALIZERS = [{"type": "NFKC"}, {"type": "Replace", "pattern": {"String": "e"}, "content": "a"}]
_LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
_XLMR_TOKENS = _LLAMA_TOKENS | {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
CASES: dict[str, Checkpoint] = {
    "tokens_added_decoder": checkpoint(
        "bert",
        lambda place: tokenizer_config(added_tokens_decoder={_size(place): _ADDED | {"special": False}})(place),
        vocab_size=400,
    ),
    "tokens_added_past_the_table": checkpoint("bert", _add_word),
    "tokens_additional_special": checkpoint(
        "bert", tokenizer_config(additional_special_tokens=["Hello", "fox"]), vocab_size=400
    ),
    "tokens_added_tokens_json": checkpoint(
        "bert",
        lambda place: write_files(place, {"added_tokens.json": {"Hello": int(_size(place))}}),
        tokenizer_config(added_tokens_decoder=GONE),
        vocab_size=400,
    ),
    "tokens_extra_special": checkpoint("bert", tokenizer_config(extra_special_tokens=["Hello"]), vocab_size=400),
    "tokens_mask_strips": checkpoint("bert", tokenizer_config(mask_token={"__type": "AddedToken", **_STRIPS})),
    "tokens_of_the_map": checkpoint(
        "bert",
        files(special_tokens_map={"additional_special_tokens": ["Hello", "fox"]}),
        tokenizer_config(added_tokens_decoder=GONE),
        vocab_size=400,
    ),
    "tokens_of_the_map_beside_the_decoder": checkpoint(
        "bert", files(special_tokens_map={"additional_special_tokens": ["Hello", "fox"]}), vocab_size=400
    ),
    "tokens_of_the_map_are_words": checkpoint(
        "llama",
        files(special_tokens_map={"eos_token": "fox", "unk_token": "Hello"}),
        tokenizer_config(added_tokens_decoder=GONE, eos_token=GONE, unk_token=GONE),
        tokenizer="start",
        steps="last",
        limit=1024,
        vocab_size=400,
    ),
    "tokens_at_random": _llama(_json(lambda content: content | {"model": content["model"] | {"dropout": 0.5}})),
    "tokens_split_special": checkpoint("bert", tokenizer_config(split_special_tokens=True)),
    "tokens_truncated_left": checkpoint("bert", tokenizer_config(truncation_side="left"), sbert(max_seq_length=64)),
    "tokens_case_contradicts": checkpoint("bert", tokenizer_config(do_lower_case=False)),
    "tokens_other_normalizer": checkpoint(
        "bert",
        _json(
            lambda content: (
                content | {"normalizer": {"type": "Sequence", "normalizers": [*_NORMALIZERS, content["normalizer"]]}}
            )
        ),
    ),
    "tokens_prefix_space": checkpoint("roberta", tokenizer="roberta-space"),
    "tokens_prefix_space_contradicts": checkpoint("roberta", tokenizer_config(add_prefix_space=True)),
    "tokens_without_padding": checkpoint("gpt2", tokenizer_config(pad_token=GONE), tokenizer="gpt2", steps="last"),
    "tokens_json_alone": checkpoint("bert", remove("tokenizer_config.json"), sbert(max_seq_length=128)),
    "tokens_japanese": checkpoint(
        "bert",
        _only(
            "vocab.txt",
            tokenizer_class="BertJapaneseTokenizer",
            word_tokenizer_type="mecab",
            subword_tokenizer_type="wordpiece",
            model_max_length=512,
        ),
    ),
    "tokens_vocab_txt": checkpoint("bert", _only("vocab.txt", do_lower_case=False, model_max_length=512)),
    "tokens_vocab_and_merges": checkpoint(
        "gpt2", _only("vocab.json", "merges.txt", model_max_length=512, pad_token=_END), tokenizer="gpt2"
    ),
    # a start and an end that other files than tokenizer.json state
    "tokens_add_eos_last": _llama(tokenizer_config(add_eos_token=True, add_bos_token=True), steps="last"),
    "tokens_add_eos_mean": _llama(tokenizer_config(add_eos_token=True, add_bos_token=True)),
    "tokens_add_no_bos": _llama(tokenizer_config(add_bos_token=False, add_eos_token=False)),
    "tokens_no_processor": _llama(
        _json(lambda content: content | {"post_processor": None}), tokenizer_config(add_bos_token=True)
    ),
    "tokens_qwen2": checkpoint("qwen2", tokenizer="qwen2-left", steps="last"),
    "tokens_qwen3_embedding": checkpoint(
        "qwen3",
        _ends_with(_END),
        tokenizer_config(add_bos_token=False, bos_token=None, add_prefix_space=False),
        tokenizer="qwen2-left",
        steps="last",
        head_dim=8,
    ),
    # SentencePiece's own files
    "tokens_sentencepiece_albert": checkpoint(
        "albert", _sentencepiece("spiece.model", tokenizer_class="AlbertTokenizer", do_lower_case=True), vocab_size=700
    ),
    "tokens_sentencepiece_llama": checkpoint(
        "llama",
        _sentencepiece(
            "tokenizer.model",
            "BPE",
            tokenizer_class="LlamaTokenizer",
            add_bos_token=True,
            add_eos_token=True,
            legacy=True,
            **_LLAMA_TOKENS,
        ),
        steps="last",
        vocab_size=700,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    ),
    "tokens_sentencepiece_xlm_roberta": checkpoint(
        "xlm-roberta",
        _sentencepiece("sentencepiece.bpe.model", tokenizer_class="XLMRobertaTokenizer", **_XLMR_TOKENS),
        vocab_size=700,
    ),
}
CASES |= {
    f"tokens_xlm_roberta_of_{layout}": _old_xlm_roberta(layout)
    for layout in ("hub", "charsmap_and_metaspace", "transformers_3", "transformers_4", "transformers_4_40")
}


def _size(place: Path) -> str:
    """Return the first id that tokenizer.json doesn't use."""
    content = json.loads((place / "tokenizer.json").read_text())
    return str(max([*content["model"]["vocab"].values(), *(token["id"] for token in content["added_tokens"])]) + 1)
