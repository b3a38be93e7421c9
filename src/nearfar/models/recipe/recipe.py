"""How a checkpoint is to be run: everything between a text and its vector, or a pair and its score. Reads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from nearfar.models.recipe.dense import Dense, Pooling
from nearfar.models.recipe.llm_reranker import Judge
from nearfar.models.recipe.multi_vector import MultiVector
from nearfar.models.recipe.sparse import Sparse

if TYPE_CHECKING:
    from nearfar.core.types import Output


class Recipe(Struct, frozen=True, kw_only=True):
    """How a checkpoint is to be run. The same on every engine.

    ``task`` says whether texts are embedded, or they or pairs of them scored, a logit for each of the ``labels``; of
    ``independent_labels`` each has a probability of its own, else all of them together sum to 1.
    ``pooling`` has one mode, or several whose results are joined in order; it is empty where a text has no one vector.
    ``multi_vector`` and ``sparse`` are there where it has, or has as well, one a token, or weights of the vocabulary.
    ``max_tokens`` counts special tokens. ``prompts`` are prefixes by name; ``default_prompt`` names the one, or the
    role whose one is put before a text whose caller chose none. ``type_ids`` says whether the second text of a pair is
    marked as such. ``judge`` is there for a reranker that is a language model; ``quantized`` tells of weights in MLX's
    own way.
    """

    architecture: str
    model_type: str
    task: Literal["embed", "score"]
    max_tokens: int
    hidden_size: int
    pooling: tuple[Pooling, ...] = ()
    pooling_source: str = ""
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    lower_case: bool = False
    pad_token_id: int | None = None
    type_ids: bool = False
    labels: tuple[str, ...] = ()
    independent_labels: bool = False
    multi_vector: MultiVector | None = None
    sparse: Sparse | None = None
    judge: Judge | None = None
    quantized: bool = False
    prompts_source: str = ""

    @property
    def speaks(self) -> bool:
        """Tell whether a language model answers: yes or no, as the next token."""
        return self.judge is not None and self.judge.answer is not None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Name what a text becomes, in the order in which engines give it; nothing for a classifier."""
        there: dict[Output, object] = {"dense": self.pooling, "multi_vector": self.multi_vector, "sparse": self.sparse}
        return tuple(output for output, how in there.items() if how)

    @property
    def linears(self) -> tuple[Dense, ...]:
        """List the linear layers, whatever they are for, that have files of their own."""
        tokens = self.multi_vector.dense if self.multi_vector else ()
        weigh = (self.sparse.head,) if self.sparse and self.sparse.head else ()
        return (*self.dense, *tokens, *weigh)

    @property
    def dim(self) -> int:
        """Length of a text's one vector, after pooling and any Dense layers; 0 where it has none."""
        if not self.pooling:
            return 0
        return self.dense[-1].out_features if self.dense else self.hidden_size * len(self.pooling)
