"""Documents that are too long for a reranker: cut at either end, refused, or read in chunks; on every kind of one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from checkpoints import write_transformer
from conftest import running
from llm_reranker_models import LIMIT, write_llm_reranker
from msgspec.structs import replace
from small_models import write_colbert, write_splade

from nearfar import ModelSettings, Settings
from nearfar.core.caller import ANONYMOUS
from nearfar.core.errors import InputError, TextTooLong
from nearfar.core.jobs import RankJob
from nearfar.models.tokenization.chunking import Chunking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nearfar.serving.service import Service

pytestmark = pytest.mark.anyio

QUERY = "quick turtle"  # a token each, as these words are
WORDS = ["quick", "brown", "jumps", "over", "lazy", "while", "slow", "sleeps", "place", "text", "among", "sort", "what"]
LONG = [WORDS[(at * at + at // 7) % len(WORDS)] for at in range(160)]
SHORT = "lazy turtle"
# By kind of reranker: how many of these words it has room for beside the query.
ROOMS = {"cross-encoder": 43, "embedding": 46, "colbert": 46, "splade": 46}


def write(place: Path, kind: str) -> Path:
    match kind:
        case "cross-encoder":
            return write_transformer(place / kind, "bert", labels=1)
        case "colbert":
            write_colbert(place / kind, "bert")
        case "splade":
            write_splade(place / kind, "bert")
        case "judge":
            return write_llm_reranker(place, "qwen3-reranker")
        case _:
            return write_transformer(place / kind, "bert")
    return place / kind


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Service]:
    settings = Settings(models=(ModelSettings(name=str(folder), engine="torch", dtype="float32"),), device="cpu")
    async with running(settings) as app:
        service: Service = app.state.service
        yield service


async def score(service: Service, *documents: str, **fields: object) -> list[float]:
    job = replace(RankJob(model=None, query=QUERY, documents=documents, raw_scores=True), **fields)
    ranked = await service.rank(job, ANONYMOUS)
    return [one.score for one in sorted(ranked.results, key=lambda one: one.index)]


@pytest.mark.parametrize(("kind", "room"), ROOMS.items())
async def test_the_best_chunk_of_a_document_counts(kind: str, room: int, tmp_path: Path) -> None:
    pieces = [" ".join(LONG[at : at + room]) for at in range(0, len(LONG), room)]
    text = " ".join(LONG)

    async with serving(write(tmp_path, kind)) as service:
        each = await score(service, *pieces)
        chunked, short, again = await score(service, text, SHORT, text, max_chunks_per_document=10)
        first, two, cut = [(await score(service, text, max_chunks_per_document=most))[0] for most in (1, 2, None)]
        [alone] = await score(service, SHORT)

    assert max(each) == pytest.approx(chunked, rel=1e-5, abs=1e-5)
    assert max(each[:2]) == pytest.approx(two, rel=1e-5, abs=1e-5)
    assert each[0] == pytest.approx(first, rel=1e-5, abs=1e-5) == cut
    assert alone == pytest.approx(short, rel=1e-5, abs=1e-5)
    assert chunked == again
    assert np.std(each) > 1e-3


@pytest.mark.parametrize("kind", [*ROOMS, "judge"])
async def test_usage_counts_every_chunk_and_the_cut_only_what_is_in_none(kind: str, tmp_path: Path) -> None:
    job = RankJob(model=None, query=QUERY, documents=(" ".join(LONG * 3), SHORT))

    async with serving(write(tmp_path, kind)) as service:
        cut = await service.rank(job, ANONYMOUS)
        some = await service.rank(replace(job, max_chunks_per_document=2), ANONYMOUS)
        whole = await service.rank(replace(job, max_chunks_per_document=100), ANONYMOUS)
        limited = await service.rank(replace(job, max_chunks_per_document=100, max_tokens_per_document=60), ANONYMOUS)

    assert cut.usage.tokens < some.usage.tokens < whole.usage.tokens
    assert cut.usage.truncated_tokens > some.usage.truncated_tokens > whole.usage.truncated_tokens == 0
    assert 0 < limited.usage.truncated_tokens == pytest.approx(cut.document_tokens[0] - 60, abs=20)
    assert cut.document_tokens == some.document_tokens == whole.document_tokens == limited.document_tokens
    assert cut.document_tokens[0] >= 2 + 3 * 160 > cut.document_tokens[1]


async def test_a_judges_chunks_follow_one_another(tmp_path: Path) -> None:
    """Each is a separate document in the prompt."""
    text = " ".join(LONG)

    async with serving(write(tmp_path, "judge")) as service:
        model = (await service._access._fleet.lease(None, ("rank",)))[0].model
        assert model
        tokens = model.encoder
        pieces = tokens.chunk(text, tokens.budget_beside_query(QUERY, None), Chunking(max_chunks=50)).texts
        rows = tokens.encode_pairs(QUERY, pieces, None)
        each = await score(service, *pieces)
        [chunked] = await score(service, text, max_chunks_per_document=50)

    assert text == "".join(pieces)
    assert all(row.truncated_tokens == 0 and len(row.ids) > LIMIT - 3 for row in rows[:-1])
    assert max(each) == pytest.approx(chunked, abs=1e-4)


@pytest.mark.parametrize(("kind", "room"), ROOMS.items())
async def test_either_end_is_kept(kind: str, room: int, tmp_path: Path) -> None:
    text, first, last = (" ".join(words) for words in (LONG, LONG[:room], LONG[-room:]))
    before = " ".join(LONG[-2 * room : -room])
    few = " ".join(LONG[-9:])

    async with serving(write(tmp_path, kind)) as service:
        start, end, both, nine = await score(service, first, last, before, few)
        kept = [(await score(service, text, keep=keep))[0] for keep in ("start", "end")]
        [chunked] = await score(service, text, keep="end", max_chunks_per_document=2)
        [limited] = await score(service, text, keep="end", max_tokens_per_document=9)
        [short] = await score(service, SHORT, keep="end")
        assert [short] == pytest.approx(await score(service, SHORT), abs=1e-6)

    assert [start, end] == pytest.approx(kept, rel=1e-5, abs=1e-5)
    assert max(end, both) == pytest.approx(chunked, rel=1e-5, abs=1e-5)
    assert nine == pytest.approx(limited, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", [*ROOMS, "judge"])
async def test_a_document_that_is_too_long_may_be_refused_by_its_place(kind: str, tmp_path: Path) -> None:
    text = " ".join(LONG)
    job = RankJob(model=None, query=QUERY, documents=(SHORT, text), on_overflow="error")

    async with serving(write(tmp_path, kind)) as service:
        with pytest.raises(TextTooLong) as refused:
            await service.rank(job, ANONYMOUS)
        with pytest.raises(TextTooLong, match="text 1 has"):
            await service.rank(replace(job, max_tokens_per_document=20), ANONYMOUS)
        chunked = await service.rank(replace(job, max_chunks_per_document=50), ANONYMOUS)
        fine = await service.rank(replace(job, documents=(SHORT,)), ANONYMOUS)

    assert refused.value.index == 1
    assert chunked.document_tokens[1] >= refused.value.tokens > refused.value.limit > 0
    assert len(fine.results) == 1


async def test_a_query_that_is_too_long_is_refused_by_name(tmp_path: Path) -> None:
    job = RankJob(model=None, query=" ".join(LONG), documents=(SHORT,), on_overflow="error")

    async with serving(write(tmp_path, "embedding")) as service:
        with pytest.raises(InputError, match="the query has 160 tokens; at most 46 fit"):
            await service.rank(job, ANONYMOUS)


async def test_no_chunk_at_all_is_refused(faked_service: Service) -> None:
    with pytest.raises(InputError, match="max_chunks_per_document must be at least 1, not 0") as refused:
        await faked_service.rank(RankJob(model=None, query="a", documents=("b",), max_chunks_per_document=0), ANONYMOUS)

    assert refused.value.param == "max_chunks_per_document"


async def test_tokens_are_counted_in_the_order_of_the_request(faked_service: Service) -> None:
    ranked = await faked_service.rank(
        RankJob(model=None, query="a cat", documents=("one two three", "one", "one")), ANONYMOUS
    )

    assert (5, 3, 3) == ranked.document_tokens


@pytest.fixture
async def faked_service() -> AsyncIterator[Service]:
    async with running(Settings(engine="fake")) as app:
        service: Service = app.state.service
        yield service
