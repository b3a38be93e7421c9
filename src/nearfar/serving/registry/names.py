"""Which model a request means. Knows names and tasks; whether the model is in memory is nothing to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nearfar.core.errors import InputError, ModelNotFound, ModelNotReady, SettingsError, WrongTask
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.models.tokenization.prompts import find_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nearfar.core.settings import ModelSettings
    from nearfar.core.types import Task
    from nearfar.serving.registry.slot import Slot

_LOST_S = 60  # until an operator may have seen to it; clients don't wait any longer


class VendorNames(NamedTuple):
    """The vendors' names of models.

    ``defaults`` mean the default model of their task. ``open_models`` are names of models with public weights, each
    with the last parts of that model's other names on the hub: such a name means that model only.
    """

    defaults: Mapping[str, Task]
    open_models: Mapping[str, Sequence[str]]


class Lost(NamedTuple):
    """The names of a model that can't be served, and how many that can come before it in the settings."""

    names: tuple[str, ...]
    before: int


class Names:
    """The names of ``slots``, a list that its owner fills, and the vendors' names."""

    def __init__(self, slots: Sequence[Slot], vendors: VendorNames) -> None:
        self._slots = slots
        self._vendor_names = vendors.defaults
        self._open_models = vendors.open_models
        self._lost: list[Lost] = []

    def lose(self, wanted: ModelSettings) -> None:
        """Note that the next of the models can't be served, nor anybody else in its place."""
        names = (wanted.name, wanted.name.rstrip("/").rpartition("/")[2], *wanted.aliases)
        self._lost.append(Lost(names, len(self._slots)))

    def own(self, name: str) -> Slot | None:
        """Find a model by its name, an alias, the last part of either, or a vendor's name of this very model.

        Ollama's clients put ``:latest`` behind a name that has no tag, so that means the name alone, unless a model is
        called just so. Raises InputError for a name of several models, and ModelNotReady where one of them was lost.
        """
        bare = name.removesuffix(":latest")
        return self._called(name) or self._called(bare) or self._published_as(bare)

    def _called(self, name: str) -> Slot | None:
        return next((slot for slot in self._slots if slot.goes_by(name)), None)

    def _published_as(self, name: str) -> Slot | None:
        """Find the one model that is published under this name, with any owner and in any case."""
        served = [(slot, [slot.name, *slot.info.aliases]) for slot in self._slots]
        found = {slot: full for slot, names in served if (full := self._full_name(name, names))}
        if len(found) > 1:
            raise InputError(f"model {name[:200]!r} could be {' or '.join(found.values())}; use the full name", "model")
        if found and self._is_lost(name):
            raise _lost_one(name)
        return next(iter(found), None)

    def _full_name(self, asked: str, names: Iterable[str]) -> str | None:
        """Return the first of a model's names that ``asked`` means, the whole name or its last part."""
        meant = {name.lower() for name in (asked, *self._open_models.get(asked.lower(), ()))}
        return next((name for name in names if meant & {name.lower(), name.lower().rpartition("/")[2]}), None)

    def _vendors(self, name: str) -> Task | None:
        """Return the task whose default model a vendor's name means.

        The name of an open model means a default only where the built-in model is all that is served, so that the
        vendor's clients can be tried without a download.
        """
        bare = name.removesuffix(":latest")
        is_built_in_alone = [slot.name for slot in self._slots] == [BUILTIN_MODEL] and not self._lost
        if bare in self._open_models and not is_built_in_alone:
            return None
        return self._vendor_names.get(name) or self._vendor_names.get(bare)

    def refuse_taken(self, *names: str) -> None:
        """Raise SettingsError where a model goes by one of these names already."""
        for name in names:
            if self._called(name):
                raise SettingsError(f"models: two of them are called {name!r}; rename a folder or an alias")

    def meant(self, name: str | None, task: Task) -> tuple[Slot, str | None]:
        """Find the model a request means, and the name of the prompt that came with the model's name.

        Where the name is nobody's and ends in a colon and the name of a prompt, that prompt comes with the model.
        Raises ModelNotFound or WrongTask, or ModelNotReady for a model that was lost.
        """
        try:
            return self.find(name, task), None
        except ModelNotFound:
            start, _, prompt = (name or "").rpartition(":")
            if not start:
                raise
            slot = self.find(start, task)
            if find_prompt(slot.found.recipe.prompts, prompt) is None:
                raise
            return slot, prompt

    def find(self, name: str | None, task: Task) -> Slot:
        """Find a model by name, by alias, or as the default of the task. Raises as ``meant`` does."""
        if name is not None and (found := self.own(name)):
            if task not in found.info.tasks:
                raise WrongTask(name, task)
            return found
        self._refuse_lost(name)
        if name is not None and self._vendors(name) is None:
            raise ModelNotFound(name)
        if name is not None and self._vendors(name) != task:
            raise WrongTask(name, task)
        return self._default(name, task)

    def listed(self, name: str) -> Slot:
        """Find the model that a caller only asks about. Raises as ``meant`` does."""
        if found := self.own(name):
            return found
        self._refuse_lost(name)
        if (task := self._vendors(name)) is None:
            raise ModelNotFound(name, listing=True)
        return self._default(name, task)

    def _default(self, name: str | None, task: Task) -> Slot:
        """Take the first model made for the task, else the first that can do it."""
        made_for = "score" if task in {"rank", "classify"} else "embed"
        able = [slot for slot in self._slots if task in slot.info.tasks]
        if not able and self._lost:
            raise _lost_one(name or task)
        if not able:
            raise WrongTask(name or "the served model", task)
        best = next((slot for slot in able if slot.found.recipe.task == made_for), able[0])
        if any(lost.before <= self._slots.index(best) or best.found.recipe.task != made_for for lost in self._lost):
            raise _lost_one(name or task)  # it may have been the default, and another model's vectors are no answer
        return best

    def _refuse_lost(self, name: str | None) -> None:
        """Raise ModelNotReady for the name of a model that was lost, alone or with a tag or a prompt behind it."""
        for each in (name or "", (name or "").rpartition(":")[0]):
            if each and self._is_lost(each):
                raise _lost_one(each)

    def _is_lost(self, name: str) -> bool:
        return any(self._full_name(name, lost.names) for lost in self._lost)


def _lost_one(name: str) -> ModelNotReady:
    return ModelNotReady(f"{name} can't be served just now; the server's log says why", retry_after_s=_LOST_S)
