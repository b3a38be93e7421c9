"""What a folder may hold that would run code, or that nobody would notice was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.configs import Config

# Families whose positions transformers takes for absolute, whatever config.json says: jina-embeddings-v2's aren't.
_ABSOLUTE = frozenset(("albert", "bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta", "xlm-roberta-xl"))
# Decoders that transformers lets look ahead where config.json says use_bidirectional_attention.
_LOOK_AHEAD = ("gemma", "t5gemma", "llama_bidirec")


def refuse_ignored(folder: Path, config: Config) -> None:
    """Refuse what the model was trained with and transformers 5 leaves out without a word, giving other numbers."""
    file = folder / "config.json"
    if config.model_type in _ABSOLUTE and (config.position_embedding_type or "absolute") != "absolute":
        raise CheckpointError(f"{file}: position_embedding_type = {config.position_embedding_type} isn't supported")
    if config.use_bidirectional_attention and not config.model_type.startswith(_LOOK_AHEAD):
        raise CheckpointError(f"{file}: use_bidirectional_attention isn't supported for {config.model_type}")


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose only weights are pickled."""
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise CheckpointError(f"{folder}: has only pickled weights, which can run code; convert them to safetensors")
    raise CheckpointError(f"{folder}: has no *.safetensors")
