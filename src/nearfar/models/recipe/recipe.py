"""How a checkpoint is run: everything between a text and its vector, or a pair and its score. Reads no files."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from nearfar.core.types import Output
from nearfar.models.recipe.dense import Dense, Pooling
from nearfar.models.recipe.llm_reranker import LlmReranker
from nearfar.models.recipe.multi_vector import MultiVector
from nearfar.models.recipe.sparse import Sparse


class Recipe(Struct, frozen=True, kw_only=True):
    """How a checkpoint is run, the same on every engine."""

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
    # Linear layers after pooling.
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    # Prefixes by name. ``default_prompt`` is one of the names or a role; it applies where a request chooses none.
    prompts: dict[str, str] = {}
    prompts_source: str = ""
    default_prompt: str | None = None
    # Whether texts are lowercased before tokenization.
    lower_case: bool = False
    pad_token_id: int | None = None
    # Whether token_type_ids mark the second text of a pair.
    type_ids: bool = False
    # A classifier's labels, one logit each; ``multi_label`` means a sigmoid each in place of a softmax over all.
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    # The outputs in addition to, or instead of, the pooled vector.
    multi_vector: MultiVector | None = None
    sparse: Sparse | None = None
    llm_reranker: LlmReranker | None = None
    # Whether the weights are stored quantized, in MLX's format.
    quantized: bool = False

    @property
    def uses_lm_head(self) -> bool:
        """Whether a score is computed from the logits of the next token."""
        return self.llm_reranker is not None and self.llm_reranker.answer_tokens is not None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What a text becomes, in the order in which engines return it; empty for rerankers and classifiers."""
        parts: dict[Output, object] = {"dense": self.pooling, "multi_vector": self.multi_vector, "sparse": self.sparse}
        return tuple(output for output, part in parts.items() if part)

    @property
    def linear_layers(self) -> tuple[Dense, ...]:
        """All linear layers that have files of their own, for pooled vectors, token vectors and sparse weights."""
        tokens = self.multi_vector.dense if self.multi_vector else ()
        head = (self.sparse.head,) if self.sparse and self.sparse.head else ()
        return (*self.dense, *tokens, *head)

    @property
    def dim(self) -> int:
        """The length of a text's pooled vector, after any Dense layers; 0 where it has none."""
        if not self.pooling:
            return 0
        return self.dense[-1].out_features if self.dense else self.hidden_size * len(self.pooling)
