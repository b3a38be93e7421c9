"""Ollama's names of models, which the hub and the dialect each translate."""

from __future__ import annotations

from nearfar.dialects.ollama import dialect
from nearfar.models.hub.checkpoint import _OLLAMA_NAMES


def test_the_hint_at_the_command_line_names_the_model_that_the_dialect_means() -> None:
    hinted = {name: (repository.rpartition("/")[2],) for name, repository in _OLLAMA_NAMES.items()}

    assert hinted == {name: dialect.open_models.get(name, (name,)) for name in hinted}
