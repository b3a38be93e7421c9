"""One batch through the engine: an answer for each row, or why it has none. On a thread; knows no queue, no futures.

An engine that raises says nothing of which row it was. So the batch runs again in halves, and those in halves, until
the row stands alone that it can't do: everybody else's are answered. Each row then fails by itself or not at all.

That must end where it isn't the rows: an engine that failed so many times on end as it takes to find two rows of the
batch is broken, and what hasn't run by then fails without another attempt.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, NamedTuple

from nearfar.core.errors import DeviceOutOfMemory, EngineError, ServingError
from nearfar.engines.base import RowsTooLarge
from nearfar.engines.common.oom import is_out_of_memory
from nearfar.serving.queue.thread_boundary import contained
from nearfar.serving.queue.validation import checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.types import FloatArray, Representation
    from nearfar.engines.base import Engine, EngineOutput
    from nearfar.models.tokenization.row import Row
    from nearfar.serving.queue.scheduler import Call


_WHY: dict[type[ServingError], str] = {
    EngineError: "the model gave no finite, non-zero answer for text {text}",
    DeviceOutOfMemory: "text {text} has {tokens} tokens, for which the model's device doesn't have the memory",
}
_RAISED = "the engine failed on text {text}"


class Failure(NamedTuple):
    """Why a row has no answer: what kind of error that is, and what the engine raised, where it raised."""

    kind: type[ServingError]
    cause: Exception | None = None

    def told(self, text: int, tokens: int) -> ServingError:
        """Make the error for the caller, who learns which of the texts it was, and nothing of what was raised."""
        why = _RAISED if self.cause and self.kind is EngineError else _WHY[self.kind]
        error = self.kind(why.format(text=text, tokens=tokens))
        error.__cause__ = self.cause
        return error


class Forward:
    """What becomes of one batch's rows: a place that isn't in ``failed`` is in ``results``.

    ``raised`` is the first that the engine raised. ``calls`` counts the times the engine was called; another thread may
    look at it to see that there is progress.
    """

    def __init__(self, engine: Engine, call: Call, rows: Sequence[Row]) -> None:
        self._engine = engine
        self._call = call
        self._rows = rows
        self.results: dict[int, FloatArray | Representation] = {}
        self.failed: dict[int, Failure] = {}
        self.raised: Exception | None = None
        self.calls = 0
        self._failures = 0  # on end
        self._most_failures = 2 * len(rows).bit_length()

    def run(self) -> None:
        """Fill ``results`` and ``failed``."""
        self._run(range(len(self._rows)))

    def _run(self, places: range) -> None:
        if self._failures >= self._most_failures:
            self.failed |= dict.fromkeys(places, Failure(EngineError, self.raised))
            return
        failure: Exception | None = None
        try:
            self._once(places)
        except Exception as error:  # noqa: BLE001 — whatever an engine raises, its callers must hear of it
            failure = error
        if failure is None:
            self._failures = 0
            return
        self.raised = self.raised or failure
        self._failures += 1
        _let_go(failure)
        self._halve(places, failure)

    def _halve(self, places: range, error: Exception) -> None:
        if len(places) == 1:
            self.failed[places[0]] = Failure(DeviceOutOfMemory if is_out_of_memory(error) else EngineError, error)
            return
        half = len(places) // 2
        self._run(places[:half])
        self._run(places[half:])

    def _once(self, places: range) -> None:
        """Call the engine, check its answer, and note which rows have none."""
        rows = [self._rows[at] for at in places]
        too_large: Sequence[int] = ()
        self.calls += 1
        try:
            given: EngineOutput = contained(lambda: getattr(self._engine, self._call)(rows))
        except RowsTooLarge as some:
            given, too_large = some.results, some.indices
        results, broken = checked(given, [len(row.ids) for row in rows], self._call, self._engine.info)
        self.results |= zip(places, results, strict=True)
        self.failed |= {places[at]: Failure(EngineError) for at in broken}
        self.failed |= {places[at]: Failure(DeviceOutOfMemory) for at in too_large}


def _let_go(error: BaseException | None) -> None:
    """Drop what the frames of a traceback hold: the arrays of a forward for which there was no memory, for one."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
