"""Model access: leases the model of a request within its timeout, checks the caller and reports the outcome.

No dialect, no HTTP, no tokenization.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct

from nearfar.core.caller import ALL_SCOPES, AnswerKind, Caller, RateLimit
from nearfar.core.errors import AnswerTooLarge, DeadlineExceeded, ModelNotReady, Overloaded, ServingError, TooManyItems
from nearfar.core.jobs import Result
from nearfar.core.settings import Settings
from nearfar.core.types import EngineMethod, Task
from nearfar.models.tokenization.row import Row
from nearfar.serving.answers import LARGE_ANSWER, UnreadAnswers
from nearfar.serving.queue.batch import Results
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.registry.opening import Model
from nearfar.serving.timeouts import CancelScope, Timeouts
from nearfar.telemetry.events import JobDone, Observer
from nearfar.telemetry.stopwatch import Stopwatch

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Result = TypeVar("_Result", bound=Result)
_BYTES_PER_NUMBER = 12  # of a vector in JSON, with its comma
ANY_TASK: tuple[Task, ...] = ("embed", "rank", "classify")


class RequestContext(Struct):
    """State of one request. Made once, when its model is leased; nothing shared is copied for it."""

    caller: Caller
    stopwatch: Stopwatch
    model: Model
    # The prompt that came with the model's name, as in "model:prompt".
    prompt_name: str | None
    max_answer_bytes: int
    unread: UnreadAnswers
    # Bytes of its results that are reserved there.
    reserved_bytes: int = 0

    def check_answer(self, numbers: int) -> None:
        """Raise AnswerTooLarge if an answer with so many numbers is too large as text, Overloaded without room."""
        size = numbers * _BYTES_PER_NUMBER
        if shared := self.caller.answer:
            shared.total += size
        self.check_size(shared.total if shared else size)
        if numbers > LARGE_ANSWER:
            self.reserved_bytes += self.unread.reserve(numbers)

    def check_size(self, size: int) -> None:
        """Raise AnswerTooLarge if an answer of so many bytes is too large."""
        if size > self.max_answer_bytes:
            raise AnswerTooLarge(size, self.max_answer_bytes)

    def submit(self, rows: Sequence[Row], method: EngineMethod | None = None) -> Coroutine[Any, Any, Results]:
        """Run the rows in the model's lane. Returns and raises what ``Lane.submit`` does.

        Raises Overloaded as well when the caller has no tokens left.
        """
        if limit := self.caller.rate_limit:
            return self._submit_within(limit, rows, method)
        return self.model.lane.submit(rows, method, self.stopwatch, self.caller)

    async def _submit_within(self, limit: RateLimit, rows: Sequence[Row], method: EngineMethod | None) -> Results:
        tokens = sum([len(row.ids) for row in rows])
        limit.spend(tokens)
        try:
            return await self.model.lane.submit(rows, method, self.stopwatch, self.caller)
        except Overloaded:
            limit.refund(tokens)
            raise


class ModelAccess:
    """Leases models to requests."""

    def __init__(
        self, fleet: Fleet, observe: Observer, settings: Settings, timeouts: Timeouts, unread: UnreadAnswers
    ) -> None:
        self._fleet = fleet
        self._observe = observe
        self._timeout_s = settings.request_timeout_s
        self._max_inputs = settings.max_inputs
        self._max_answer_bytes = settings.max_answer_bytes
        self._timeouts = timeouts
        self._unread = unread
        self._warned: set[str] = set()  # models that cut a text at their own limit

    async def run(
        self,
        caller: Caller,
        name: str | None,
        tasks: tuple[Task, ...],
        work: Callable[[RequestContext], Awaitable[_T]],
        *,
        answers: AnswerKind,
    ) -> _T:
        """Run ``work`` with the model of this name, or the default one, for the first of ``tasks`` that it supports.

        Raises Forbidden without a scope for such ``answers``, Overloaded at the caller's limit,
        DeadlineExceeded, or ModelNotReady where the model isn't loaded in time, and what ``Fleet.lease`` does.
        """
        if caller.scopes != ALL_SCOPES:
            caller.require_scope_for(answers)
        limit = None if answers == "tokens" else caller.rate_limit  # a request may tokenize many texts at once
        if limit:
            limit.acquire()
        timeout_s = min(self._timeout_s, caller.timeout_s or self._timeout_s)
        context: RequestContext | None = None
        requested = time.perf_counter()
        try:
            with CancelScope(self._timeouts, timeout_s):
                slot, prompt = await self._fleet.lease(name, tasks)
                stopwatch = Stopwatch(requested, timeout_s)
                try:
                    model = cast("Model", slot.model)
                    context = RequestContext(caller, stopwatch, model, prompt, self._max_answer_bytes, self._unread)
                    return await work(context)
                finally:
                    self._fleet.end_lease(slot)
        except TimeoutError as error:
            raise _late(context, timeout_s) from error
        finally:
            if limit:
                limit.release()
            if context and context.reserved_bytes:
                self._unread.release(context.reserved_bytes)

    async def run_job(  # noqa: PLR0913 — each is another property of the job
        self,
        caller: Caller,
        name: str | None,
        tasks: tuple[Task, ...],
        work: Callable[[RequestContext], Awaitable[_Result]],
        *,
        answers: AnswerKind,
        inputs: int,
    ) -> _Result:
        """Run ``work`` with the model of a job that has so many inputs, and report how the job ended.

        Raises as ``run`` and ``work`` do, and TooManyItems for more inputs than the settings allow.
        """
        context: RequestContext | None = None

        def run_admitted(leased: RequestContext) -> Awaitable[_Result]:
            nonlocal context
            context = leased
            leased.model.lane.admission.refuse_if_full(caller)
            return work(leased)

        try:
            self._check_inputs(inputs)
            result = await self.run(caller, name, tasks, run_admitted, answers=answers)
        except BaseException as error:
            self._observe(_failed(error, context, tasks[0], inputs))
            raise
        if result.usage.truncated_tokens and result.info.name not in self._warned:
            self._warn_if_cut(result)
        self._observe(_succeeded(result, context, tasks[0], inputs))
        return result

    def _warn_if_cut(self, result: Result) -> None:
        """Warn once for each model that cuts texts at its own limit, not at a client's."""
        info = result.info
        if any(truncated and tokens >= info.max_tokens for tokens, truncated in result.usage.each):
            self._warned.add(info.name)
            _log.warning(
                "model %s: a text was cut at the model's limit of %d tokens; x-nearfar-truncated-tokens counts what "
                'is cut, and on_overflow = "error" refuses such texts (logged once)',
                info.name,
                info.max_tokens,
            )

    def _check_inputs(self, inputs: int) -> None:
        if inputs > self._max_inputs:
            raise TooManyItems("input", inputs, self._max_inputs)


def _late(context: RequestContext | None, timeout_s: float) -> ServingError:
    """Return the error for a request that wasn't answered in time: how far it came, and what to change."""
    if context is None:
        return ModelNotReady(f"the model wasn't ready within {timeout_s:g} s", retry_after_s=1)
    watch = context.stopwatch
    came = f"{watch.rows_run:,} of {watch.rows:,} texts had run" if watch.rows else "its texts weren't tokenized yet"
    return DeadlineExceeded(
        f"no answer within {timeout_s:g} s: {came}; send fewer texts at once, or raise the limit "
        "(request_timeout_s, or the header x-nearfar-timeout-s)",
        retry_after_s=1,
    )


def _succeeded(result: Result, context: RequestContext | None, task: Task, inputs: int) -> JobDone:
    return JobDone(
        task=task,
        inputs=inputs,
        model=result.info.name,
        timings=result.timings,
        stopwatch=context.stopwatch if context else None,
        tokens=result.usage.tokens,
        truncated_tokens=result.usage.truncated_tokens,
    )


def _failed(error: BaseException, context: RequestContext | None, task: Task, inputs: int) -> JobDone:
    event = JobDone(task=task, inputs=inputs, error_type=type(error))
    if context is None:
        return event
    return msgspec.structs.replace(
        event, model=context.model.info.name, timings=context.stopwatch.timings(), stopwatch=context.stopwatch
    )
