"""The configuration files of a checkpoint, as transformers and sentence-transformers write them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

# The names under which sentence-transformers looks for its transformer's options, in this order.
SENTENCE_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
PROMPTS_FILE = "config_sentence_transformers.json"
SpecialToken = Literal["bos", "eos", "mask", "unk", "sep", "pad", "cls"]


class ModelConfig(Struct, rename={"labels": "num_labels", "name": "_name_or_path"}):
    """config.json. GPT-2, T5 and DistilBERT use other names for hidden_size and max_position_embeddings."""

    model_type: str
    architectures: list[str] | None = None
    hidden_size: int | None = None
    n_embd: int | None = None
    d_model: int | None = None
    dim: int | None = None
    emb_dim: int | None = None
    max_position_embeddings: int | UnsetType = UNSET  # transformers refuses null
    n_positions: int | None = None
    pad_token_id: int | None = None
    type_vocab_size: int | None = None
    vocab_size: int | None = None
    local_attention: int | None = None
    sliding_window: int | None = None
    problem_type: str | None = None
    labels: int | None = None
    name: str | None = None
    id2label: dict[str, Any] | None = None
    quantization: dict[str, Any] | None = None
    position_embedding_type: str | None = None
    use_bidirectional_attention: bool | str | None = None
    sentence_transformers: dict[str, Any] = {}
    sbert_ce_default_activation_function: str | None = None
    auto_map: dict[str, Any] | None = None
    is_encoder_decoder: bool | None = None
    is_causal: bool | None = None
    is_decoder: bool | None = None
    pooling_config: dict[str, Any] | None = None  # of conversions for MLX; neither library reads it

    @property
    def padding(self) -> int | None:
        """The padding token's id, None if there is none."""
        return self.pad_token_id if self.pad_token_id is not None and self.pad_token_id >= 0 else None


class SentenceConfig(Struct, forbid_unknown_fields=True):
    """sentence_bert_config.json: the options of sentence-transformers' Transformer, older names included.

    The last three change no numbers.
    """

    max_seq_length: int | None = None
    do_lower_case: bool | None = None
    transformer_task: str = "feature-extraction"
    modality_config: dict[str, dict[str, Any]] = {}
    module_output_name: str | None = None
    processing_kwargs: dict[str, dict[str, Any]] = {}
    model_kwargs: dict[str, Any] | None = None
    model_args: dict[str, Any] | None = None
    processor_kwargs: dict[str, Any] | None = None
    tokenizer_args: dict[str, Any] | None = None
    config_kwargs: dict[str, Any] | None = None
    config_args: dict[str, Any] | None = None
    tokenizer_name_or_path: str | None = None
    query_length: int | None = None
    document_length: int | None = None
    query_expansion: dict[str, Any] | None = None
    unpad_inputs: bool | None = None
    cache_dir: str | None = None
    backend: str | None = None

    @property
    def model_options(self) -> dict[str, Any]:
        """The arguments for AutoModel.from_pretrained; the older name wins, as in sentence-transformers."""
        return self.model_kwargs or {} if self.model_args is None else self.model_args

    @property
    def tokenizer_options(self) -> dict[str, Any]:
        """The arguments for AutoTokenizer.from_pretrained."""
        return self.processor_kwargs or {} if self.tokenizer_args is None else self.tokenizer_args

    @property
    def config_options(self) -> dict[str, Any]:
        """The arguments for AutoConfig.from_pretrained: values that override config.json's."""
        return self.config_kwargs or {} if self.config_args is None else self.config_args


class TokenizerConfig(Struct):
    """tokenizer_config.json. A special token is its text, or an object with it as ``content``."""

    model_max_length: float | None = None
    max_len: float | None = None  # its older name
    model_input_names: list[str] | None = None
    padding_side: str | None = "right"
    add_eos_token: Any = None
    bos_token: Any = None
    eos_token: Any = None
    mask_token: Any = None
    unk_token: Any = None
    sep_token: Any = None
    pad_token: Any = None
    cls_token: Any = None

    def special_token(self, name: SpecialToken) -> str:
        """Return the token's text, "" if there is none."""
        token = getattr(self, f"{name}_token")
        return str((token.get("content") if isinstance(token, dict) else token) or "")


class PromptsConfig(Struct):
    """config_sentence_transformers.json."""

    model_type: str | None = None
    activation_fn: str | None = None
    prompts: dict[str, str] | None = None
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: Annotated[int, Meta(ge=1)] | None = None
    max_active_dims: Annotated[int, Meta(ge=1)] | None = None


def find_sentence_file(folder: Path) -> Path:
    """Return the first of the names of sentence_bert_config.json that exists; the usual name if none does."""
    return next((folder / name for name in SENTENCE_FILES if (folder / name).is_file()), folder / SENTENCE_FILES[0])
