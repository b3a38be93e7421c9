"""Whose turn it is: each caller gets the same share of the tokens that run, however much each has waiting.

Start-time fair queueing. Every caller has a count of the tokens that ran for them, and the next turn is that of the
lowest; one who comes, or comes back, starts at the lowest of those who wait, so that having slept is no credit. Within
one caller's tickets turns go round. Knows no clock, no threads and no engine.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class Waiting(Protocol):
    """One request: whose it is, what its tokens count for, and whether none of it will run any more."""

    caller: str
    weight: float

    @property
    def spent(self) -> bool:
        """Tell whether none of it will run any more."""
        ...


_Ticket = TypeVar("_Ticket", bound=Waiting)


class Turns(Generic[_Ticket]):
    """The tickets that wait, by caller."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Ticket]] = {}
        self._served: dict[str, float] = {}

    def add(self, ticket: _Ticket) -> None:
        """Put a ticket behind its caller's others."""
        if ticket.caller not in self._waiting:
            floor = min((self._served[caller] for caller in self._waiting), default=0.0)
            self._served[ticket.caller] = max(self._served.get(ticket.caller, 0.0), floor)
            self._waiting[ticket.caller] = deque()
        self._waiting[ticket.caller].append(ticket)

    def next(self, most: int) -> list[_Ticket]:
        """Give tickets that have something left to run: first the one whose turn it is, then the callers' by turns."""
        self._forget_spent()
        callers = sorted(self._waiting, key=self._served.__getitem__)
        by_caller = ([ticket for ticket in islice(self._waiting[one], most) if not ticket.spent] for one in callers)
        mixed = chain.from_iterable(zip_longest(*by_caller))
        return list(islice((ticket for ticket in mixed if ticket is not None), most))

    def pass_on(self, ticket: _Ticket) -> None:
        """Put the ticket whose turn it was behind its caller's others."""
        waiting = self._waiting[ticket.caller]
        if waiting[0] is ticket:  # tickets before it that are spent are forgotten at the next turn
            waiting.rotate(-1)

    def charge(self, ticket: _Ticket, tokens: float) -> None:
        """Note that tokens run for the ticket's caller; those of less urgent requests count for more."""
        self._served[ticket.caller] += tokens * ticket.weight

    def clear(self) -> list[_Ticket]:
        """Take all tickets out."""
        tickets = list(self)
        self._waiting.clear()
        self._served.clear()
        return tickets

    def __iter__(self) -> Iterator[_Ticket]:
        return chain.from_iterable(self._waiting.values())

    def _forget_spent(self) -> None:
        for caller, waiting in list(self._waiting.items()):
            while waiting and waiting[0].spent:
                waiting.popleft()
            if not waiting:
                del self._waiting[caller]
        if not self._waiting:
            self._served.clear()  # whoever comes next, all begin alike
