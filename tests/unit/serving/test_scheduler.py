"""Scheduler: similar lengths share a batch, what has begun ends first, small requests pass it, equal rows run once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.batch import QueuedRequest, QueuedRow, group_duplicates
from nearfar.serving.queue.scheduler import Scheduler, group_by_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.types import EngineMethod

pytestmark = pytest.mark.anyio


def row(length: int, first: int = 1) -> Row:
    return Row([first] * length, None, length, 0)


def queued_request(rows: Sequence[Row], method: EngineMethod = "embed") -> QueuedRequest:
    return QueuedRequest(rows, asyncio.get_running_loop().create_future(), method)


def queue(scheduler: Scheduler, *lengths: int) -> QueuedRequest:
    """Queue a request with rows of these lengths, no two of them identical."""
    request = queued_request([row(length, number) for number, length in enumerate(lengths)])
    scheduler.add(request)
    return request


def queued_rows(request: QueuedRequest) -> list[QueuedRow]:
    return [QueuedRow(request, at, row, len(row.ids)) for at, row in enumerate(request.rows)]


def lengths_of(batch: Sequence[QueuedRow]) -> list[int]:
    return sorted(len(queued.row.ids) for queued in batch)


async def test_a_batch_has_rows_of_the_length_of_the_next_row_from_every_request() -> None:
    scheduler = Scheduler(64, 8)
    for lengths in ((10, 40), (11, 50), (9, 12)):
        queue(scheduler, *lengths)

    assert [[9, 10, 11, 12], [40], [50], []] == [lengths_of(scheduler.next_batch(64)) for _ in range(4)]


async def test_padding_is_bounded_by_what_another_batch_would_cost() -> None:
    scheduler = Scheduler(64, 12)
    queue(scheduler, 4, 4, 4, 10)

    assert [[4, 4, 4], [10]] == [lengths_of(scheduler.next_batch(64)) for _ in range(2)]


async def test_a_request_that_has_begun_is_divided_as_if_no_worker_were_idle() -> None:
    """Whether two workers are idle at its end is a matter of time, and batches decide the last digit of numbers."""
    found = []
    for idle_workers in (1, 2):
        scheduler = Scheduler(64, 64)
        queue(scheduler, *[8] * 20)
        batches = [scheduler.next_batch(64, 2), scheduler.next_batch(64, 1)]
        batches += [scheduler.next_batch(64, idle_workers)]
        found.append([lengths_of(batch) for batch in batches])

    assert found[0] == found[1] == [[8] * 8, [8] * 8, [8] * 4]


async def test_rows_that_are_far_apart_in_a_request_share_a_batch_if_they_are_of_one_length() -> None:
    scheduler = Scheduler(3000, 0)
    queue(scheduler, *[5] * 300, *[2] * 300, *[5] * 300)

    assert [[2] * 256, [2] * 44, [5] * 256] == [lengths_of(scheduler.next_batch(3000)) for _ in range(3)]


async def test_for_an_engine_that_does_not_pad_only_tokens_count() -> None:
    scheduler = Scheduler(64, None)
    queue(scheduler, 2, 30, 3, 29, 40)

    assert [2, 3, 29, 30] == lengths_of(scheduler.next_batch(64))


async def test_waiting_rows_are_divided_among_idle_workers() -> None:
    scheduler = Scheduler(64, 64)
    queue(scheduler, *[8] * 8)

    assert [[8] * 4, [8] * 4] == [lengths_of(scheduler.next_batch(64, idle_workers)) for idle_workers in (2, 1)]


async def test_small_requests_run_without_bulk_rows_and_bulk_has_its_own_token_budget() -> None:
    scheduler = Scheduler(64, 64)
    queue(scheduler, *[8] * 100)
    queue(scheduler, 8)

    assert [[8], [8, 8], [8, 8]] == [lengths_of(scheduler.next_batch(16)) for _ in range(3)]


async def test_a_row_that_a_request_has_twice_runs_once_and_answers_both() -> None:
    same, other = row(3), row(3, 2)
    request = queued_request([same, other, same])
    scheduler = Scheduler(64, 64)
    scheduler.add(request)

    batch = scheduler.next_batch(64)
    for queued in batch:
        request.set_result(queued.index, np.full(2, queued.row.ids[0], dtype=np.float32))

    assert 2 == len(batch)
    assert [[1, 1], [2, 2], [1, 1]] == request.repeat_results(request.future.result()).tolist()


async def test_hidden_states_of_different_lengths_answer_together() -> None:
    same, other = row(3), row(2, 2)
    request = queued_request([same, other, same], "hidden_states")

    for index, one in enumerate(request.rows):
        request.set_result(index, np.ones((len(one.ids), 2), dtype=np.float32))

    assert [(3, 2), (2, 2), (3, 2)] == [states.shape for states in request.repeat_results(request.future.result())]


async def test_identical_rows_of_different_requests_are_grouped() -> None:
    groups = group_duplicates([row(5), row(5), Row([1] * 5, [0, 0, 1, 1, 1], 5, 0)])

    assert [[0, 1], [2]] == groups


async def test_rows_with_the_same_ids_differ_in_attention_and_in_returned_positions() -> None:
    """A query may have the same tokens as a document, and other vectors."""
    plain = Row([1, 2, 3], None, 3, 0)
    masked = Row([1, 2, 3], None, 2, 0, unattended=1)
    fewer = Row([1, 2, 3], None, 3, 0, vector_positions=[0, 2])

    groups = group_duplicates([plain, masked, fewer, Row([1, 2, 3], None, 3, 0)])

    assert [[0, 3], [1], [2]] == groups


async def test_what_has_begun_is_finished_before_other_bulk() -> None:
    """Taking turns would finish all of them at the end."""
    scheduler = Scheduler(64, 0)
    requests = [queue(scheduler, *[8] * 50) for _ in range(10)]

    ended = []
    while batch := scheduler.next_batch(64):
        ended += [one for one in requests if not one.waiting and one in {queued.request for queued in batch}]

    assert requests == list(dict.fromkeys(ended))


async def test_only_much_shorter_requests_overtake_one_that_has_begun() -> None:
    scheduler = Scheduler(64, 0)
    begun = queue(scheduler, *[8] * 100)
    scheduler.next_batch(64)

    half, *short = [queue(scheduler, *[8] * rows) for rows in (50, 8, 8)]
    order = [scheduler.next_batch(64)[0].request for _ in range(20)]

    assert [*short, *[begun] * 12] == order[:14]
    assert [half] * 6 == order[-6:]


async def test_a_much_shorter_request_overtakes_all_that_wait_but_not_for_long() -> None:
    """Without that, a small request waits for a whole queue that others of its caller have filled."""
    scheduler = Scheduler(64, 0)
    long = [queue(scheduler, *[8] * 8) for _ in range(50)]
    scheduler.next_batch(64)

    short = [queue(scheduler, 5), queue(scheduler, 6), queue(scheduler, 7)]
    expected = [scheduler.tokens_before(queued_request([row(4)]))]
    order = [scheduler.next_batch(64)[0].request for _ in range(52)]

    assert [short[0], long[1], short[1], long[2], short[2], *long[3:]] == order
    assert [4] == expected


async def test_short_requests_that_keep_arriving_do_not_starve_a_long_one() -> None:
    scheduler = Scheduler(64, 0)
    long = queue(scheduler, *[8] * 80)

    batches = 0
    while long.waiting:
        queue(scheduler, *[9] * 7)
        scheduler.next_batch(64)
        batches += 1

    assert batches <= 30  # of which it has 10: as many run before it begins, and between its own


async def test_only_rows_for_the_same_engine_method_share_a_batch() -> None:
    scheduler = Scheduler(64, 64)
    methods: list[EngineMethod] = ["embed", "represent", "embed", "represent"]
    for length, method in zip((4, 4, 5, 5), methods, strict=True):
        scheduler.add(queued_request([row(length)], method))

    batches = [scheduler.next_batch(64) for _ in range(2)]

    assert [["embed"] * 2, ["represent"] * 2] == [[queued.request.method for queued in batch] for batch in batches]


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "groups"),
    [
        ([], 10, []),
        ([3], 10, [[0]]),
        ([3, 3, 3], 9, [[0, 1, 2]]),
        ([3, 3, 3], 8, [[0, 1], [2]]),
        ([9, 1, 9, 1], 18, [[1, 3], [0, 2]]),
        ([50, 2], 10, [[1], [0]]),
        ([0, 0], 10, [[0, 1]]),
    ],
)
def test_rows_of_similar_length_are_grouped(lengths: list[int], max_tokens: int, groups: list[list[int]]) -> None:
    assert groups == group_by_length(lengths, max_tokens, 1000)


@given(st.lists(st.integers(0, 600), max_size=200), st.integers(1, 4096), st.one_of(st.none(), st.integers(0, 200)))
def test_every_row_is_in_one_group_within_the_limits(
    lengths: list[int], max_tokens: int, max_padding: int | None
) -> None:
    """Only a row that is longer than the budget exceeds it, alone in its group."""
    groups = group_by_length(lengths, max_tokens, max_padding)

    assert sorted(range(len(lengths))) == sorted(index for group in groups for index in group)
    for group in (group for group in groups if len(group) > 1):
        grouped = [max(lengths[index], 0 if max_padding is None else 1) for index in group]
        area = len(grouped) * max(grouped)
        assert (sum(grouped) if max_padding is None else area) <= max_tokens
        assert max_padding is None or area - sum(grouped) <= max_padding
