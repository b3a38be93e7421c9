"""Text-embeddings-inference's metrics, as its dashboards ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import calling, running, until
from prometheus_client.parser import text_string_to_metric_families

from nearfar import Settings

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio

DURATIONS = ("duration", "tokenization_duration", "queue_duration", "inference_duration")
HISTOGRAMS = {
    *(f"te_{of}_{kind}" for of in ("request", "embed", "predict") for kind in DURATIONS),
    "te_batch_next_size",
    "te_batch_next_tokens",
}


async def scraped(client: httpx.AsyncClient) -> tuple[dict[str, str], dict[str, float]]:
    """Give the type of each family, and the value of each sample but the buckets'."""
    families = list(text_string_to_metric_families((await client.get("/metrics")).text))
    samples = {
        "".join([sample.name, *(f",{value}" for value in sample.labels.values())]): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }
    return {family.name: family.type for family in families}, samples


async def test_names_are_tei_s_and_counts_move() -> None:
    settings = Settings(engine="fake", tei_metrics=True)
    async with running(settings) as app, calling(app) as client:
        for path, body in (
            ("/embed", {"inputs": "one"}),
            ("/embed", {"inputs": ["one", "two", "three"]}),
            ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["one", "two"]}),
            ("/rerank", {"query": "a", "texts": ["one", "two", "three", "four"]}),
            ("/predict", {"inputs": "one"}),
            ("/embed", {"inputs": "one", "dimensions": 999}),
            ("/embed", {"inputs": "boom"}),
        ):
            await client.post(path, json=body)
        await until(lambda: app.state.fleet.depths()[0].tokens == 0)  # after a failure the lane asks for itself
        kinds, samples = await scraped(client)

    expected = {
        "te_request_count,single": 4,
        "te_request_count,batch": 3,
        "te_request_success,single": 1,
        "te_request_success,batch": 3,
        "te_request_failure,model_type": 1,
        "te_request_failure,validation": 1,
        "te_request_failure,inference": 1,
        "te_embed_count": 8,
        "te_embed_success": 6,
        "te_predict_count": 5,
        "te_predict_success": 4,
        "te_queue_size": 0,
        "te_request_duration_count": 4,
        "te_request_queue_duration_count": 4,
        "te_embed_inference_duration_count": 3,
        "te_predict_tokenization_duration_count": 1,
    }
    assert expected == {name: value for name, value in samples.items() if name in expected}
    assert HISTOGRAMS <= {name for name, kind in kinds.items() if kind == "histogram"}
    assert samples["te_request_duration_sum"] >= samples["te_request_inference_duration_sum"] > 0
    assert samples["te_batch_next_size_sum"] >= 10


async def test_nobody_gets_them_who_did_not_ask(faked: httpx.AsyncClient) -> None:
    kinds, _ = await scraped(faked)

    assert not [name for name in kinds if name.startswith("te_")]
    assert "nearfar_queue_rows" in kinds
