"""What a folder leaves unsaid: its family's steps and limit, or what is usual of its kind.

Where modules.json is missing, the folders that it would name may still be there: then the pooling's own file counts,
and a step that nobody says the place of is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import SENTENCE_FILES
from nearfar.models.reading.modules import Steps, read_pooling

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.reading.families import FamilyDefaults
    from nearfar.models.recipe.dense import Pooling

_AGAIN = "download the model again with all its files"
_HARMLESS = {"Transformer", "Pooling", "Normalize"}


def default_steps(folder: Path, hidden_size: int, known: FamilyDefaults | None, *, decodes: bool) -> Steps:
    """Give the steps and say how each is known. Raises CheckpointError where more than a pooling is needed."""
    left = {file.parent.name.partition("_")[2]: file.parent for file in sorted(folder.glob("[0-9]_*/config.json"))}
    more = next((step.name for kind, step in left.items() if kind not in _HARMLESS), None)
    if more:
        raise CheckpointError(f"{folder}: has no modules.json to say when its {more} runs; {_AGAIN}")
    if known and known.has_dense_layers:
        raise CheckpointError(
            f"{folder}: has no modules.json, and {known.source} has more layers than its pooling; {_AGAIN}"
        )
    normalize = known.normalize if known else True
    if step := left.get("Pooling"):
        source = f"{step.name}/config.json; the folder has no modules.json"
        pooling = read_pooling(step / "config.json", hidden_size)
        return Steps(pooling=pooling, source=source, dense=(), normalize=normalize)
    usual, known_as = _usual_pooling(known, decodes=decodes)
    source = f"{known_as}; the folder has no modules.json"
    return Steps(pooling=(usual,), source=source, dense=(), normalize=normalize)


def default_max_tokens(folder: Path, known: FamilyDefaults | None, tokenizer_says: float | None) -> float | None:
    """Give the limit in tokens where no file of sentence-transformers is there to state one."""
    if known is None or any((folder / name).is_file() for name in SENTENCE_FILES):
        return tokenizer_says
    return min((limit for limit in (known.max_tokens, tokenizer_says) if limit), default=None)


def _usual_pooling(known: FamilyDefaults | None, *, decodes: bool) -> tuple[Pooling, str]:
    if known:
        return known.pooling, f"as {known.source}, by its name"
    return ("lasttoken", "default for decoders") if decodes else ("mean", "default for encoders")
