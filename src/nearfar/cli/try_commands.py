"""The commands ``try`` and ``rank``: what a model makes of the user's own texts, as lines for a terminal."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

from nearfar.cli.models.check import open_service
from nearfar.core.caller import ANONYMOUS
from nearfar.core.jobs import EmbedJob, RankJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nearfar.core.settings import Settings

_BAR = 30  # characters
_MOST_COLUMNS = 12  # texts; so many similarities fit beside each other
_NEAREST = 10  # pairs


async def compare_texts(settings: Settings, texts: Sequence[str]) -> AsyncIterator[str]:
    """Yield the cosine of each text with each other, and the nearest pairs. Raises what opening the model does."""
    async with open_service(settings) as (fleet, service):
        info = fleet.infos()[0]
        done = await service.embed(EmbedJob(model=info.name, inputs=tuple(texts)), ANONYMOUS)
    vectors = done.vectors.tolist()
    cosines = [[_cosine(one, other) for other in vectors] for one in vectors]
    yield f"{info.name}: {info.dim} dimensions, {done.usage.tokens} tokens"
    if done.usage.truncated_tokens:
        yield f"{done.usage.truncated_tokens} tokens were cut: this model reads {info.max_tokens} tokens of a text"
    if len(texts) <= _MOST_COLUMNS:
        yield "".join(["    ", *(f"{number:>6}" for number in range(1, len(texts) + 1))])
        for number, (row, text) in enumerate(zip(cosines, texts, strict=True), 1):
            yield "".join([f"{number:>4}", *(f"{value:>6.2f}" for value in row), f"  {text}"])
    pairs = sorted(combinations(range(len(texts)), 2), key=lambda pair: -cosines[pair[0]][pair[1]])
    for one, other in pairs[:_NEAREST]:
        yield f"{_bar(cosines[one][other])}  {texts[one]}  ~  {texts[other]}"


async def rank_documents(settings: Settings, query: str, documents: Sequence[str], most: int) -> AsyncIterator[str]:
    """Yield the documents with their scores, best first. Raises what opening the model does."""
    async with open_service(settings) as (fleet, service):
        info = fleet.infos()[0]
        done = await service.rank(RankJob(model=info.name, query=query, documents=tuple(documents)), ANONYMOUS)
    yield f"{info.name}: {info.score}"
    for found in done.results[:most]:
        yield f"{_bar(found.score)}  {documents[found.index]}"


def _cosine(one: list[float], other: list[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def _bar(share: float) -> str:
    filled = round(min(max(share, 0.0), 1.0) * _BAR)
    return f"{'█' * filled}{'░' * (_BAR - filled)} {share:7.4f}"
