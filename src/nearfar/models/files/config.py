"""The configuration files of a checkpoint, as transformers and sentence-transformers write them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

# The names under which sentence-transformers looks for its transformer's options, in this order.
SENTENCE_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
PROMPTS_FILE = "config_sentence_transformers.json"

# The output that sentence-transformers takes from the transformer, by task.
_OUTPUTS = {"feature-extraction": "last_hidden_state", "fill-mask": "logits"}


class ModelConfig(Struct, rename={"labels": "num_labels", "name": "_name_or_path"}):
    """config.json. GPT-2, T5 and DistilBERT use other names for hidden_size and max_position_embeddings."""

    model_type: str
    architectures: list[str] | None = None
    hidden_size: int | None = None
    n_embd: int | None = None
    d_model: int | None = None
    dim: int | None = None
    max_position_embeddings: int | None = None
    n_positions: int | None = None
    pad_token_id: int | list[int] | None = None
    type_vocab_size: int | None = None
    vocab_size: int | None = None
    local_attention: int | None = None
    sliding_window: int | None = None
    problem_type: str | None = None
    labels: int | None = None
    name: str | None = None
    id2label: dict[str, str] | None = None
    quantization: dict[str, Any] | None = None
    position_embedding_type: str | None = None
    use_bidirectional_attention: bool | str | None = None
    sentence_transformers: dict[str, Any] = {}
    sbert_ce_default_activation_function: str | None = None
    auto_map: dict[str, Any] | None = None
    is_encoder_decoder: bool | None = None
    is_causal: bool | None = None

    @property
    def padding(self) -> int | None:
        """The padding token's id, None if there is none."""
        return self.pad_token_id if isinstance(self.pad_token_id, int) and self.pad_token_id >= 0 else None


class SentenceConfig(Struct):
    """sentence_bert_config.json. The first two options are supported; the others only at their defaults."""

    max_seq_length: int | None = None
    do_lower_case: bool = False
    transformer_task: str = "feature-extraction"
    modality_config: dict[str, dict[str, Any]] = {}
    processing_kwargs: dict[str, Any] = {}

    @property
    def unsupported(self) -> str | None:
        """The first option that isn't at its default, None if all are."""
        text = self.modality_config.get("text", {})
        if self.transformer_task not in _OUTPUTS:
            return f"transformer_task = {self.transformer_task}"
        output = _OUTPUTS[self.transformer_task]
        if text.get("method_output_name", output) != output:
            return f"the output {text['method_output_name']}"
        return "processing_kwargs" if self.processing_kwargs else None


class TokenizerConfig(Struct):
    """tokenizer_config.json. A special token is its text, or an object with it as ``content``."""

    model_max_length: float | None = None
    model_input_names: list[str] | None = None
    padding_side: str | None = "right"
    add_eos_token: Any = None
    bos_token: Any = None
    eos_token: Any = None
    mask_token: Any = None

    def special_token(self, name: Literal["bos", "eos", "mask"]) -> str:
        """Return the token's text, "" if there is none."""
        token = getattr(self, f"{name}_token")
        return str((token.get("content") if isinstance(token, dict) else token) or "")


class PromptsConfig(Struct):
    """config_sentence_transformers.json."""

    activation_fn: str | None = None
    prompts: dict[str, str] | None = None
    default_prompt_name: str | None = None
