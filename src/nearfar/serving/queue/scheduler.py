"""What waits in a lane, and what of it runs next. Knows no clock, no threads and no engine.

A request is a ticket: its rows travel in as many batches as it takes, and one future answers for all of them. Each
turn belongs to the next ticket of the caller who has had least: its first row decides which lengths run, and rows of
like length from the other tickets fill the batch. So a short request passes a long one, and no ticket of a caller waits
longer than a round of theirs.

A ticket that fills a batch by itself is bulk. Small tickets don't wait for bulk rows to run along with them, and bulk
has a budget of its own, which the lane makes smaller while small tickets come, so that the next one is soon served.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np
from msgspec import Struct

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.types import Representation
from nearfar.engines.common.prefixes import token_costs
from nearfar.serving.queue.batching import pack, plan
from nearfar.serving.queue.fair_queue import Turns
from nearfar.telemetry.stopwatch import Stopwatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from typing import Any

    import numpy.typing as npt

    from nearfar.core.errors import ServingError
    from nearfar.core.types import FloatArray
    from nearfar.models.tokenization.row import Row

    Results = npt.NDArray[Any]  # (B, D) or (B,) float32, or (B,) objects

Call = Literal["embed", "score", "represent", "hidden_states"]  # what is asked of the engine
_WINDOW_ROWS = 256  # how many waiting rows, and tickets, are looked at to fill a batch: a guess; it takes 0.1 ms


class Budget(Struct, frozen=True, kw_only=True):
    """How much may run next, in tokens: ``full``, but ``bulk`` of a ticket that fills a batch by itself.

    ``max_padding`` is how much a batch may have, None where padding costs nothing. ``idle`` is how many batches could
    start now: what waits is shared among them, so that all cores begin together.
    """

    full: int
    bulk: int
    max_padding: int | None
    idle: int


class Ticket:
    """One request's rows, each once, what is to be done with them, and the array their results go to as they come.

    ``lengths`` are what its rows cost an engine, in tokens: with ``shares``, what they begin with alike counts once. A
    row that the request has several times is one object in ``rows``; it runs once, so that equal texts get equal
    answers to the last digit. ``watch`` is whom the lane tells when its rows ran.
    """

    def __init__(  # noqa: PLR0913 — whoever runs it wants to know each
        self,
        rows: Sequence[Row],
        future: asyncio.Future[Results],
        call: Call = "embed",
        watch: Stopwatch | None = None,
        *,
        shares: bool = False,
        caller: Caller = ANONYMOUS,
    ) -> None:
        self.call = call
        self.caller = caller.name
        self.weight = caller.token_weight
        self.watch = watch or Stopwatch()
        self.watch.submitted()
        places: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            places.setdefault(id(row), []).append(index)
        self._places = list(places.values())
        self._count = len(rows)
        self._results: Results | None = None
        self.rows = [rows[indices[0]] for indices in self._places]
        self.lengths = token_costs(self.rows) if shares else [len(row.ids) for row in self.rows]
        self.waiting = deque(range(len(self.rows)))
        self.waiting_tokens = sum(self.lengths)
        self._missing = len(self.rows)
        self.future = future

    @property
    def spent(self) -> bool:
        """Tell whether none of its rows will run any more: all have, or nobody waits for them."""
        return not self.waiting or self.future.done()

    def take(self, index: int) -> None:
        """Note that a row is about to run."""
        self.waiting.remove(index)
        self.waiting_tokens -= self.lengths[index]

    def ran(self, began: float, ended: float) -> None:
        """Note that a batch has run in which some of its rows were."""
        self.watch.ran(began, ended)

    def write(self, index: int, result: FloatArray | Representation) -> None:
        """Put a row's result wherever the request has that row; the last one resolves the future."""
        if self._results is None:
            unlike = isinstance(result, Representation) or self.call == "hidden_states"  # in shape, from row to row
            shape, kind = ((), object) if unlike else (np.asarray(result).shape, np.float32)
            self._results = np.empty((self._count, *shape), dtype=kind)
        for place in self._places[index]:
            self._results[place] = result
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result(self._results)

    def fail(self, error: ServingError, cause: Exception | None = None) -> None:
        """Give the caller an error instead."""
        if not self.future.done():
            error.__cause__ = cause
            self.future.set_exception(error)

    def first_index(self, index: int) -> int:
        """Give a row's first place in the request."""
        return self._places[index][0]


class Place(Struct, frozen=True):
    """One row of a ticket."""

    ticket: Ticket
    index: int

    @property
    def row(self) -> Row:
        """Give the row itself."""
        return self.ticket.rows[self.index]


class Round:
    """The tickets that wait, in the order of their turns."""

    def __init__(self) -> None:
        self._turns: Turns[Ticket] = Turns()

    def add(self, ticket: Ticket) -> None:
        """Put a ticket at the end of its caller's."""
        self._turns.add(ticket)

    def rows(self) -> int:
        """Count the rows that wait."""
        return sum(len(ticket.waiting) for ticket in self._turns)

    def clear(self) -> list[Ticket]:
        """Take all tickets out."""
        return self._turns.clear()

    def next_batch(self, budget: Budget) -> list[Place]:
        """Take the rows that run next; none when nothing waits."""
        tickets = self._turns.next(_WINDOW_ROWS)
        if not tickets:
            return []
        first = tickets[0]
        tickets = [ticket for ticket in tickets if ticket.call == first.call]
        bulk = {id(ticket) for ticket in tickets if ticket.waiting_tokens > budget.full}
        limit = budget.bulk if id(first) in bulk else budget.full
        if id(first) not in bulk:
            tickets = [ticket for ticket in tickets if id(ticket) not in bulk]
        chosen = _fill(tickets, limit, budget)
        self._turns.pass_on(first)
        for place in chosen:
            self._turns.charge(place.ticket, place.ticket.lengths[place.index])
            place.ticket.take(place.index)
        return chosen


def _fill(tickets: list[Ticket], limit: int, budget: Budget) -> list[Place]:
    """Choose the first ticket's first row, and rows of like length from all of them, as many as the limit allows."""
    share = max(_WINDOW_ROWS // len(tickets), 1)
    window = [(ticket, index) for ticket in tickets for index in islice(ticket.waiting, share)]
    lengths = [ticket.lengths[index] for ticket, index in window]
    if budget.idle > 1:
        limit = min(limit, -(-sum(lengths) // budget.idle))
    groups = pack(lengths, limit) if budget.max_padding is None else plan(lengths, limit, budget.max_padding)
    return [Place(*window[at]) for at in next(group for group in groups if 0 in group)]


def distinct(places: Sequence[Place]) -> list[list[Place]]:
    """Put the places whose rows are identical together: one of them is computed for all."""
    found: dict[object, list[Place]] = {}
    for place in places:
        row = place.row
        types, kept = (None if of is None else tuple(of) for of in (row.type_ids, row.vector_positions))
        key = (tuple(row.ids), types, row.unattended, kept)
        found.setdefault(key, []).append(place)
    return list(found.values())
