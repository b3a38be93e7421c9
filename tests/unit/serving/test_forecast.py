"""Forecasts: bulk that can't be answered in time is refused at once, and what is computed reaches a caller."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from conftest import calling, running

from nearfar import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

pytestmark = pytest.mark.anyio

REQUESTS, TEXTS = 24, 256


async def post_bulk(client: httpx.AsyncClient, number: int, texts: int = TEXTS) -> httpx.Response:
    """Send texts that no other request has."""
    body = {"model": "text-embedding-3-small", "input": [f"{number} {at}" for at in range(texts)]}
    return await client.post("/v1/embeddings", json=body)


async def run_bulk(tokens_per_s: float, timeout_s: float, *, warm: bool) -> tuple[Sequence[httpx.Response], int, float]:
    """Send 24 requests at once. Return their answers, the tokens that ran, and the share that was answered.

    The model is as ``warm`` as one request makes it.
    """
    async with running(Settings(engine="fake", request_timeout_s=timeout_s)) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.tokens_per_s = tokens_per_s
        if warm:
            await post_bulk(client, 99, 8)
        engine.batches.clear()
        found = await asyncio.gather(*(post_bulk(client, number) for number in range(REQUESTS)))
        ran = sum(len(row.ids) for batch in engine.batches for row in batch)
    answered = sum(answer.json()["usage"]["total_tokens"] for answer in found if answer.status_code == 200)
    return found, ran, answered / ran


@pytest.mark.parametrize("warm", [True, False])
async def test_bulk_for_a_slow_model_is_answered_or_refused_before_its_timeout(*, warm: bool) -> None:
    """Without forecasts, eight requests or more would be 504. A busy machine may slow down some that would fit."""
    found, ran, answered = await run_bulk(4000, 4.0, warm=warm)

    statuses = Counter(answer.status_code for answer in found)
    refused = [answer for answer in found if answer.status_code == 429]
    assert statuses[504] <= 2
    assert REQUESTS == statuses[200] + statuses[429] + statuses[504]
    assert refused
    assert answered >= 0.8
    assert ran >= 0.2 * 4000 * 4  # and the time is used; on a busy machine, less of it
    for answer in refused:
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert re.search(
            r"would need [\d.]+ s for this request, and the limit is 4 s \(request_timeout_s, .*\): "
            r"it has 1,024 tokens, [\d,]+ run before it, and [\d,]+ run a second; ",
            answer.json()["error"]["message"],
        )


async def test_a_504_reports_how_far_the_request_came() -> None:
    """A first request isn't forecast: no bulk has run."""
    async with running(Settings(engine="fake", request_timeout_s=1.5)) as app, calling(app) as client:
        app.state.fleet.models()[0].lane._engine.tokens_per_s = 2000
        late = await post_bulk(client, 1, 1024)
        refused = await post_bulk(client, 2, 1024)

    came = re.match(r"no answer within 1.5 s: (\d+) of 1,024 texts had run; ", late.json()["error"]["message"])
    assert 504 == late.status_code
    assert came
    assert 0 < int(came[1]) < 1024
    assert 429 == refused.status_code
    assert re.search(r"it has 4,\d+ tokens, .* send at most [\d,]+ tokens at once", refused.json()["error"]["message"])
