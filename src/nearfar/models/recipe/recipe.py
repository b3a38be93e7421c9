"""How a checkpoint is run: everything between a text and its vector, or a pair and its score. Reads no files."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from nearfar.core.types import Output, Role
from nearfar.models.recipe.dense import Dense, Layer, LayerNorm, Pooling, width_after

# How the model's vectors are compared, by sentence-transformers' names; distances are negative.
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
# Encoders with a decoder that embed by the encoder alone: model_type → transformers' class for it.
ENCODERS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
}
DOCUMENT, QUERY, INSTRUCTION = "{document}", "{query}", "{instruction}"


class QueryExpansion(Struct, frozen=True, kw_only=True):
    """Padding of short queries with a token, usually [MASK]; its vectors count like those of the query's own tokens."""

    token_id: int
    # Tokens of an expanded query, special tokens included.
    length: int
    # Whether longer queries are cut to ``length``.
    truncate: bool
    # Whether other tokens attend to the added ones.
    attended: bool


class MultiVector(Struct, frozen=True, kw_only=True):
    """How hidden states (T, H) become a text's vectors (n, M)."""

    # Applied to each token's hidden state.
    dense: tuple[Dense, ...]
    normalize: bool
    # Limits per role, special tokens included; None means the model's own.
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None
    expansion: QueryExpansion | None = None
    # Tokens without a vector: these ids in texts of these roles, and the first ones of every text.
    skip_ids: frozenset[int] = frozenset()
    skip_roles: tuple[Role, ...] = ()
    skip_first: int = 0
    # Prompts that are one token each, such as ``[Q] ``.
    markers: tuple[str, ...] = ()
    # The attention window in tokens, if it is so small that some expansion tokens would attend to nothing.
    window: int | None = None

    def dim(self, hidden_size: int) -> int:
        """Return the length M of a vector."""
        return self.dense[-1].out_features if self.dense else hidden_size

    def max_tokens(self, role: Role) -> int | None:
        """Return the limit for texts of this role, special tokens included; None means the model's own."""
        if role != "query":
            return self.max_document_tokens
        if self.expansion is None:
            return self.max_query_tokens
        if self.expansion.truncate:
            return self.expansion.length
        return max(self.max_query_tokens, self.expansion.length) if self.max_query_tokens else None


class Sparse(Struct, frozen=True, kw_only=True):
    """How a text's sparse vector is computed: (size,), no value below 0.

    ``splade`` takes log(1 + relu(logits)) of the masked-language-model head, pooled over the tokens; it may weigh any
    token of the vocabulary. ``lexical`` (BGE-M3) applies a linear layer to each token and keeps the largest value a
    token id; it weighs the text's own tokens alone.
    """

    method: Literal["splade", "lexical"]
    # The vocabulary's size.
    size: int
    # For ``splade``: pooling over tokens, and whether the logarithm is applied twice (log1p_relu).
    pooling: Literal["max", "sum"] = "max"
    log_twice: bool = False
    # How many of a text's largest weights are kept; None keeps all.
    max_active: int | None = None
    # For ``lexical``: the linear layer (H → 1), and the tokens that have no weight.
    head: Dense | None = None
    skip_ids: frozenset[int] = frozenset()


class PairPrompt(Struct, frozen=True, kw_only=True):
    """The prompt for a query and a document, as segments that are tokenized separately and then concatenated.

    Tokenizing the joined text instead would merge tokens across the segments. One segment contains ``{query}``; the
    same one, or a later one, contains ``{document}``.
    """

    segments: tuple[str, ...]
    # The segments for a request with an instruction, which has ``{instruction}`` in one of them; None: not supported.
    segments_with_instruction: tuple[str, ...] | None = None
    # The part of the limit that the query's segment may take; 1 means that only the pair's end is cut.
    query_ratio: float = 1.0


class ChatTemplate(Struct, frozen=True, kw_only=True):
    """A chat template that each text goes through, as the message of a user."""

    # The program in jinja2's language, and what it may refer to: special tokens and options.
    source: str
    variables: dict[str, Any]
    # Whether a message's content is a list of parts, the text one of them.
    structured: bool = False
    # Whether what follows the text in the template is kept if the text is truncated.
    keeps_suffix: bool = True


class AnswerTokens(Struct, frozen=True):
    """The token ids of the answers. A score is logit(yes) less logit(no), or logit(yes) where there is no ``no``."""

    yes: int
    no: int | None = None


class LlmReranker(Struct, frozen=True):
    """A causal language model that scores pairs."""

    prompt: PairPrompt
    # None for a checkpoint that was converted to a sequence classifier: its head computes the score.
    answer_tokens: AnswerTokens | None = None


class Recipe(Struct, frozen=True, kw_only=True):
    """How a checkpoint is run, the same on every engine."""

    # The folder's part with the transformer and its tokenizer; "" is the folder itself.
    subfolder: str = ""
    # config.json's first of ``architectures``, and its ``model_type``.
    architecture: str
    model_type: str
    # "score" covers rerankers (pairs) and classifiers (single texts).
    task: Literal["embed", "score"]
    # Special tokens included.
    max_tokens: int
    hidden_size: int
    # Several modes are concatenated; none means that a text has no single vector.
    pooling: tuple[Pooling, ...] = ()
    # The file, or the family's page, that states it.
    pooling_source: str = ""
    # Whether the prompt's tokens are pooled too.
    pools_prompt: bool = True
    # What follows pooling; then vectors are scaled to unit length if ``normalize``, or cut to ``truncate_dim``.
    layers: tuple[Layer, ...] = ()
    normalize: bool = False
    truncate_dim: int | None = None
    # Of pooled or of sparse vectors; token vectors are always compared by MaxSim.
    similarity: Similarity = "cosine"
    # Prefixes by name. ``default_prompt`` is one of the names or a role; it applies where a request chooses none.
    prompts: dict[str, str] = {}
    prompts_source: str = ""
    default_prompt: str | None = None
    # What single texts are rendered with; a prompt is the system's message in it.
    chat: ChatTemplate | None = None
    # Whether texts are lowercased before tokenization.
    lower_case: bool = False
    pad_token_id: int | None = None
    # Whether token_type_ids mark the second text of a pair.
    type_ids: bool = False
    # A classifier's labels, one logit each; ``multi_label`` means a sigmoid each in place of a softmax over all.
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    # What maps the logit of a single label to a score: a sigmoid, or (1 + tanh) / 2.
    activation: Literal["Sigmoid", "Tanh"] = "Sigmoid"
    # Precedes the first text of each pair.
    pair_prompt: str = ""
    # The outputs in addition to, or instead of, the pooled vector.
    multi_vector: MultiVector | None = None
    sparse: Sparse | None = None
    llm_reranker: LlmReranker | None = None
    # Whether the weights are stored quantized, in MLX's format.
    quantized: bool = False
    # What transformers rounds the weights to when it loads them; every engine does so too, whatever it computes in.
    rounds_to: Literal["float16", "bfloat16"] | None = None
    # sentence_bert_config.json's values that override config.json's.
    config_options: dict[str, Any] = {}

    @property
    def uses_lm_head(self) -> bool:
        """Whether a score is computed from the logits of the next token."""
        return self.llm_reranker is not None and self.llm_reranker.answer_tokens is not None

    @property
    def leaves_out_prompt(self) -> bool:
        """Whether pooling leaves out the tokens of a prompt; in a chat template they are pooled all the same."""
        return not self.pools_prompt and self.chat is None and any(self.prompts.values())

    @property
    def can_leave_out_prompt(self) -> bool:
        """Whether that is supported: for one vector a text, but not for a weighted mean."""
        return self.outputs == ("dense",) and "weightedmean" not in self.pooling

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What a text becomes, in the order in which engines return it; empty for rerankers and classifiers."""
        if self.task == "score":
            return ()
        parts: dict[Output, object] = {"dense": self.pooling, "multi_vector": self.multi_vector, "sparse": self.sparse}
        return tuple(output for output, part in parts.items() if part)

    @property
    def weighted_layers(self) -> tuple[Dense | LayerNorm, ...]:
        """All layers that have files of their own, for pooled vectors, token vectors and sparse weights."""
        pooled = [layer for layer in self.layers if isinstance(layer, Dense | LayerNorm)]
        tokens = self.multi_vector.dense if self.multi_vector else ()
        head = (self.sparse.head,) if self.sparse and self.sparse.head else ()
        return (*pooled, *tokens, *head)

    @property
    def dim(self) -> int:
        """The length of a text's pooled vector, after any layers; 0 where it has none."""
        if not self.pooling or self.task == "score":
            return 0
        width = width_after(self.layers, self.hidden_size * len(self.pooling))
        return width if self.truncate_dim is None else min(width, self.truncate_dim)
