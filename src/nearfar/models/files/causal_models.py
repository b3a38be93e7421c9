"""Asks the installed transformers which models are decoders: only their last token attends to the whole text."""

from __future__ import annotations

from functools import cache

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import ModelConfig

# They generate text, but without is_decoder each token attends to the whole text.
_BOTH_WAYS = {"bert-generation", "xlnet"}


def has_causal_mask(config: ModelConfig) -> bool:
    """Return whether the model has a causal mask. Raises CheckpointError without transformers, if that must decide."""
    if config.is_decoder:
        return True
    if config.is_causal is False or config.use_bidirectional_attention in (True, "all"):
        return False
    if config.type_vocab_size is not None:  # only encoders have token types
        return False
    return config.model_type in _causal_types()


@cache
def _causal_types() -> frozenset[str]:
    """Return the model types that transformers has for text generation, but not for masked words."""
    try:
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        )
    except ImportError as error:
        raise CheckpointError(
            "a folder without modules.json needs transformers, which knows what kind of model it is; pip install "
            "transformers"
        ) from error
    return frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES) - _BOTH_WAYS
