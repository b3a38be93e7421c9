"""Tiny LLM rerankers, and their prompts and scores as the families' own pages compute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoints import FAMILIES, MORE_FAMILIES, make_tokenizer, write_cached, write_files
from texts import varied_texts

from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nearfar.core.types import FloatArray
    from nearfar.engines.base import Engine
    from nearfar.models.tokenization.row import Row

LIMIT = 400
QUERY = "a question? {document} the fox"
DOCUMENTS = [*varied_texts(12), "x", "{query}"]
INSTRUCTION = "Find what says {query} the same in other words"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
    {
        "idx": 1,
        "name": "1",
        "path": "1_LogitScore",
        "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
    },
]
GENERATES = {
    "transformer_task": "text-generation",
    "modality_config": {
        "text": {"method": "forward", "method_output_name": "logits"},
        "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
    },
    "module_output_name": "causal_logits",
    "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
}
LOGIT_SCORE: dict[str, object] = {
    "modules.json": MODULES,
    "sentence_bert_config.json": GENERATES,
    "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
}
_PART = '{{ messages | selectattr("role", "eq", "%s") | map(attribute="content") | first }}'
PLAIN_CHAT = f"Q: {_PART % 'query'} D: {_PART % 'document'}\nAnswer:"
# Pattern of the name → name, model_type.
RERANKERS = {
    "qwen3-reranker": ("Qwen3-Reranker-tiny", "qwen3"),
    "mxbai-rerank-v2": ("mxbai-rerank-tiny-v2", "qwen2"),
    "bge-reranker-v2-gemma": ("bge-reranker-v2-gemma", "gemma"),
}
_OTHERS = {"minicpm3": {"num_key_value_heads": 4, "dim_model_base": 8}}
# Line ends as in Qwen's and Gemma's vocabularies: one token with the character before.
_ADDED = ["?\n", "\n\n", "yes", "no", "Yes", "<bos>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


class Opened(NamedTuple):
    request: OpenRequest
    tokens: TextEncoder
    engine: Engine | None

    def rows(self, documents: Sequence[str], instruction: str | None = None) -> list[Row]:
        return self.tokens.encode_pairs(QUERY, documents, None, instruction)

    def scores(self, documents: Sequence[str], instruction: str | None = None) -> FloatArray:
        assert self.engine
        return self.engine.score(self.rows(documents, instruction))


def open_llm_reranker(folder: Path, engine: str | None, name: str = "") -> Opened:
    """Open the folder on the engine of this name, or its files alone."""
    recipe = read_recipe(folder, name=name)
    tokens = TextEncoder(folder, recipe)
    request = OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=tokens.sample_rows())
    return Opened(request, tokens, installed_engines()[engine].open(request) if engine else None)


def write_llm_reranker(place: Path, family: str, *, tied: bool = True) -> Path:
    """Write a seeded language model and its tokenizer into a folder with a name of the family's."""
    name, kind = RERANKERS.get(family, (f"{family}-tiny", family))

    def write(folder: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        tokenizer = make_tokenizer("bytes", "left")
        tokenizer.add_tokens(_ADDED)
        tokenizer.model_max_length = LIMIT
        options = (FAMILIES | MORE_FAMILIES).get(kind, FAMILIES["llama"]).config
        options = options | {"max_position_embeddings": LIMIT, "tie_word_embeddings": tied, "pad_token_id": 1}
        with torch.random.fork_rng():
            torch.manual_seed(3)
            config = AutoConfig.for_model(kind, **options | _OTHERS.get(kind, {}), vocab_size=len(tokenizer))
            model = AutoModelForCausalLM.from_config(config)
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return write_cached(place / name, ("family", kind, tied), write)


def write_converted_classifier(folder: Path, family: str) -> Path:
    """Write the classifier that it is converted to: its one row is that of yes minus that of no."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    made = folder.parent / f"{folder.name}-seq-cls"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.num_labels = 1
    classifier: Any = AutoModelForSequenceClassification.from_config(model.config)
    classifier.model.load_state_dict(model.model.state_dict())
    yes, no = _words(folder, family)
    rows = model.lm_head.weight.detach()
    classifier.score.weight = torch.nn.Parameter((rows[yes] if no is None else rows[yes] - rows[no])[None])
    classifier.save_pretrained(made)
    _tokenizer_of(folder).save_pretrained(made)
    return made


def reference_scores(folder: Path, family: str, instruction: str | None = None, *, no: bool = True) -> list[float]:
    """Compute the scores from the last position's logits, one pair at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    yes, other = _words(folder, family)
    scores = []
    for document in DOCUMENTS:
        ids = reference_prompt(folder, family, QUERY, document, instruction)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        scores.append((logits[yes] - (logits[other] if no and other is not None else 0)).item())
    return scores


def reference_prompt(folder: Path, family: str, query: str, document: str, instruction: str | None = None) -> list[int]:
    """Encode a pair as the family's page does, truncated to ``LIMIT`` tokens."""
    tokenizer = _tokenizer_of(folder)
    return _PAGES[family](tokenizer, query, document, instruction)


def _tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _words(folder: Path, family: str) -> tuple[int, int | None]:
    tokenizer = _tokenizer_of(folder)
    words = {"mxbai-rerank-v2": ("1", "0"), "bge-reranker-v2-gemma": ("Yes",)}.get(family, ("yes", "no"))
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    return ids[0], ids[1] if len(ids) > 1 else None


def _ids(tokenizer: Any, text: str, limit: int | None = None) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids[:limit]


def _qwen3(tokenizer: Any, query: str, document: str, instruction: str | None) -> list[int]:
    """Source: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B, its usage with transformers."""
    before = _ids(
        tokenizer,
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
    )
    after = _ids(tokenizer, "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    task = instruction or "Given a web search query, retrieve relevant passages that answer the query"
    text = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}"
    return before + _ids(tokenizer, text, LIMIT - len(before) - len(after)) + after


def _mxbai(tokenizer: Any, query: str, document: str, instruction: str | None) -> list[int]:
    """Source: https://github.com/mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py, prepare_inputs."""
    before = _ids(
        tokenizer,
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n",
    )
    line = _ids(tokenizer, "\n")
    task = _ids(
        tokenizer,
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
    )
    after = [*line, *task, *_ids(tokenizer, "<|im_end|>\n<|im_start|>assistant\n")]
    asked = f"instruction: {instruction}\nquery: {query}" if instruction else f"query: {query}"
    pair = [*_ids(tokenizer, asked, LIMIT * 3 // 4), *line, *_ids(tokenizer, f"document: {document}")]
    return before + pair[: LIMIT - len(before) - len(after)] + after


def _gemma(tokenizer: Any, query: str, document: str, instruction: str | None) -> list[int]:
    """Source: https://huggingface.co/BAAI/bge-reranker-v2-gemma, get_inputs; an instruction is its ``prompt``."""
    task = instruction or (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    )
    line = _ids(tokenizer, "\n")
    after = [*line, *_ids(tokenizer, task)]
    start = tokenizer.convert_tokens_to_ids("<bos>")
    pair = [start, *_ids(tokenizer, f"A: {query}", LIMIT * 3 // 4), *line, *_ids(tokenizer, f"B: {document}")]
    return pair[: LIMIT - len(after)] + after


def _plain(tokenizer: Any, query: str, document: str, _instruction: str | None) -> list[int]:
    """Encode a pair as the tests' own chat template does."""
    end = _ids(tokenizer, "\nAnswer:")
    ids = _ids(tokenizer, f"Q: {query} D: {document}\nAnswer:")
    return ids if len(ids) <= LIMIT else ids[: LIMIT - len(end)] + end


_PAGES = {
    "qwen3-reranker": _qwen3,
    "mxbai-rerank-v2": _mxbai,
    "bge-reranker-v2-gemma": _gemma,
    "gemma2": _plain,
}


_PART = '{{ messages | selectattr("role", "eq", "%s") | map(attribute="content") | first%s }}'
# Like published ones: an instruction with a default, and a part for add_generation_prompt.
CHATS = {
    "with an instruction": (
        "<|im_start|>system\n"
        + _PART % ("system", ' | default("Retrieve what answers")')
        + "<|im_end|>\n<|im_start|>user\n"
        + _PART % ("query", "")
        + "\n"
        + _PART % ("document", "")
        + "<|im_end|>\n{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
    ),
    "in turns": (
        "{% for message in messages %}{% set role = 'system' if message.role == 'query' else 'user' %}"
        "<|im_start|>{{ role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    ),
    "with an end of line behind the document": PLAIN_CHAT,
}

_TOKENIZER = {"tokenizer_class": "TokenizersBackend", "pad_token": "<pad>", "padding_side": "left"}


def write_chat_reranker(folder: Path, chat: str | None, place: str = "chat_template.jinja", **score: object) -> Path:
    """Write a reranker of sentence-transformers with this chat template; ``score`` is for its LogitScore."""
    made = write_llm_reranker(folder, "qwen3")
    files: dict[str, object] = {"1_LogitScore/config.json": {"true_token_id": 300, "false_token_id": 301} | score}
    if chat is not None:
        is_template = place.endswith("jinja")
        files[place] = chat if is_template else {"model_max_length": LIMIT, "chat_template": chat} | _TOKENIZER
    return write_files(made, LOGIT_SCORE | files)
