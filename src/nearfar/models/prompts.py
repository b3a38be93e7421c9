"""Which of a model's prompts a caller means: one by its name, or that of a text's role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nearfar.models.recipe import Recipe
    from nearfar.types import Role

# The names under which checkpoints keep the prompt of each role.
_ROLES = {"query": ("query",), "document": ("document", "passage", "corpus")}


def prompt_for(prompts: Mapping[str, str], wanted: str) -> str | None:
    """Give the prompt called ``wanted``, or that of the role of this name; None where it is neither.

    A role that the model has no prompt for has the empty one: the default prompt is for texts whose role isn't known.
    sentence-transformers 6.2 does the same, but knows no "passage" or "corpus".
    """
    if wanted in prompts:
        return prompts[wanted]
    names = _ROLES.get(wanted)
    return None if names is None else next((prompts[name] for name in names if name in prompts), "")


def names_of(prompts: Mapping[str, str]) -> list[str]:
    """List what may be wanted of a model."""
    return list(dict.fromkeys([*_ROLES, *prompts]))


def choose_prompt(recipe: Recipe, named: str | None, role: Role | None) -> str:
    """Give what is put before a text: the prompt called ``named``, else that of the role, else the model's default.

    The roles of classification and clustering are few models' own; the others' texts have the default prompt, as texts
    of no known role. Raises InputError for a name that is none of the model's.
    """
    wanted = named or _known(recipe, role) or recipe.default_prompt
    if not wanted:
        return ""
    prompt = prompt_for(recipe.prompts, wanted)
    if prompt is None:
        there = ", ".join(names_of(recipe.prompts))
        raise InputError(f"the model has no prompt {wanted[:50]!r}; there are: {there}")
    return prompt


def _known(recipe: Recipe, role: Role | None) -> str | None:
    """Give the name of the role's prompt, which may be written with a capital letter; None where there is none."""
    if role is None or role in _ROLES:
        return role
    return next((name for name in recipe.prompts if name.lower() == role), None)
