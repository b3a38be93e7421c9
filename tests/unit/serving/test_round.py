"""Which rows run next: like lengths together, everyone in turn, small requests before bulk, equal rows once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.scheduler import Budget, Place, Round, Ticket, distinct

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio


def budget(*, full: int = 64, bulk: int = 64, max_padding: int | None = 64, idle: int = 1) -> Budget:
    return Budget(full=full, bulk=bulk, max_padding=max_padding, idle=idle)


def row(length: int, first: int = 1) -> Row:
    return Row([first] * length, None, length, 0)


def ticket(*lengths: int) -> Ticket:
    rows = [row(length, number) for number, length in enumerate(lengths)]
    return Ticket(rows, asyncio.get_running_loop().create_future())


def lengths_of(places: Sequence[Place]) -> list[int]:
    return sorted(len(place.row.ids) for place in places)


async def test_a_batch_has_rows_of_the_length_whose_turn_it_is_from_every_ticket() -> None:
    waiting = Round()
    for lengths in ((10, 40), (11, 50), (9, 12)):
        waiting.add(ticket(*lengths))

    batches = [lengths_of(waiting.next_batch(budget(max_padding=8))) for _ in range(4)]

    assert [[9, 10, 11, 12], [50], [40], []] == batches


async def test_padding_is_bounded_by_what_another_batch_would_cost() -> None:
    waiting = Round()
    waiting.add(ticket(4, 4, 4, 10))

    assert [4, 4, 4] == lengths_of(waiting.next_batch(budget(max_padding=12)))
    assert [10] == lengths_of(waiting.next_batch(budget(max_padding=12)))


async def test_where_padding_costs_nothing_only_the_tokens_count() -> None:
    waiting = Round()
    waiting.add(ticket(2, 30, 3, 29, 40))

    assert [2, 3, 29, 30] == lengths_of(waiting.next_batch(budget(max_padding=None)))


async def test_what_waits_is_shared_among_idle_streams() -> None:
    waiting = Round()
    waiting.add(ticket(*[8] * 8))

    shared = [lengths_of(waiting.next_batch(budget(idle=idle))) for idle in (2, 1)]

    assert [[8] * 4, [8] * 4] == shared


async def test_small_tickets_run_without_bulk_rows_and_bulk_has_a_budget_of_its_own() -> None:
    waiting = Round()
    waiting.add(ticket(*[8] * 100))
    waiting.add(ticket(8))

    batches = [lengths_of(waiting.next_batch(budget(full=64, bulk=16))) for _ in range(3)]

    assert [[8, 8], [8], [8, 8]] == batches


async def test_a_row_that_a_request_has_twice_runs_once_and_answers_both() -> None:
    same, other = row(3), row(3, 2)
    asked = Ticket([same, other, same], asyncio.get_running_loop().create_future())
    waiting = Round()
    waiting.add(asked)

    places = waiting.next_batch(budget())
    for place in places:
        place.ticket.write(place.index, np.full(2, place.row.ids[0], dtype=np.float32))

    assert 2 == len(places)
    assert [[1, 1], [2, 2], [1, 1]] == asked.future.result().tolist()


async def test_identical_rows_of_different_requests_are_put_together() -> None:
    first, second = ticket(5), ticket(5)
    typed = Ticket([Row([0] * 5, [0, 0, 1, 1, 1], 5, 0)], asyncio.get_running_loop().create_future())

    groups = distinct([Place(first, 0), Place(second, 0), Place(typed, 0)])

    assert [[first, second], [typed]] == [[place.ticket for place in group] for group in groups]


async def test_nobody_waits_longer_than_a_round() -> None:
    waiting = Round()
    tickets = [ticket(*[3 + number] * 50) for number in range(10)]
    for one in tickets:
        waiting.add(one)

    turns = [waiting.next_batch(budget(full=64, bulk=64, max_padding=0)) for _ in range(10)]

    assert set(map(id, tickets)) == {id(place.ticket) for places in turns for place in places}


async def test_only_what_is_asked_of_the_engine_in_the_same_way_shares_a_batch() -> None:
    waiting = Round()
    loop = asyncio.get_running_loop()
    for length, call in ((4, "embed"), (4, "represent"), (5, "embed"), (5, "represent")):
        waiting.add(Ticket([row(length)], loop.create_future(), "embed" if call == "embed" else "represent"))

    batches = [waiting.next_batch(budget()) for _ in range(2)]

    assert [["embed", "embed"], ["represent", "represent"]] == [[place.ticket.call for place in of] for of in batches]


async def test_rows_of_the_same_ids_are_told_apart_by_what_sees_them_and_what_counts() -> None:
    """A query may be made of the same tokens as a document, and its vectors are others."""
    plain = Row([1, 2, 3], None, 3, 0)
    longer = Row([1, 2, 3], None, 2, 0, unattended=1)
    fewer = Row([1, 2, 3], None, 3, 0, vector_positions=[0, 2])
    ticket = Ticket([plain, longer, fewer, Row([1, 2, 3], None, 3, 0)], asyncio.get_running_loop().create_future())

    groups = distinct([Place(ticket, at) for at in range(4)])

    assert [[0, 3], [1], [2]] == [[place.index for place in places] for places in groups]


async def test_hidden_states_of_rows_of_unlike_lengths_answer_together() -> None:
    same, other = row(3), row(2, 2)
    asked = Ticket([same, other, same], asyncio.get_running_loop().create_future(), "hidden_states")
    waiting = Round()
    waiting.add(asked)

    for place in waiting.next_batch(budget()):
        place.ticket.write(place.index, np.full((len(place.row.ids), 2), place.row.ids[0], dtype=np.float32))

    assert [(3, 2), (2, 2), (3, 2)] == [states.shape for states in asked.future.result()]
