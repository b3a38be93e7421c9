"""vLLM's messages become one text by the model's own chat template, with special tokens or without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import write_transformer
from conftest import calling, running
from transformers import AutoTokenizer

from nearfar import ModelSettings, Settings
from nearfar.core.errors import InputError
from nearfar.core.jobs import Chat
from nearfar.models.tokenization.pair_prompt import ChatMessages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx
    from litestar import Litestar

pytestmark = pytest.mark.anyio

PLAIN = (
    "{% for m in messages %}{{ m.role + ' ' + m.content + ' , ' }}{% endfor %}"
    "{% if add_generation_prompt %}dog{% endif %}"
)
TEMPLATES = {
    "plain": PLAIN,
    "trimmed": PLAIN.replace("m.content +", "m.content | trim +"),
    "parts": "{% for m in messages %}{{ m.role }}: "
    "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }};{% endif %}{% endfor %}{% endfor %}",
}
MESSAGES = [{"role": "user", "content": "the cat"}, {"role": "user", "content": "a bird sat "}]
FINAL: dict[str, Any] = {"continue_final_message": True}
GENERATION: dict[str, Any] = {"add_generation_prompt": True}
# name → fields, and the text that the messages become
RENDERED: dict[str, tuple[dict[str, Any], str]] = {
    "messages": ({}, "user the cat , user a bird sat  , "),
    "a generation prompt": (GENERATION, "user the cat , user a bird sat  , dog"),
    "a last message to continue": (FINAL, "user the cat , user a bird sat "),
    "parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "cat"}]}]}, "user cat , "),
    "a limit": ({"truncate_prompt_tokens": 4}, "user the cat , user a bird sat  , "),
}
PATHS = {"/v1/embeddings": "embedder", "/pooling": "embedder", "/invocations": "embedder", "/classify": "classifier"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"input": "cat"}, "messages and input can't both be sent"),
    "two ends": (FINAL | GENERATION, "Cannot set both `continue_final_message` and `add_generation_prompt` to True."),
    "another template": ({"chat_template": "{{ messages }}"}, "chat_template: only the model's own"),
    "the template's variables": ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs: only the model's own"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content: the models here read text only",
    ),
    "a tool's call": ({"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]}, "messages[0]: tool_calls"),
    "no content": ({"messages": [{"role": "user", "content": None}]}, "messages[0].content must be text"),
}


@pytest.fixture(scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Litestar]:
    """Serve an embedding model and a classifier with a chat template, and an embedding model without."""
    folder = tmp_path_factory.mktemp("chat")
    for name, labels in (("embedder", None), ("classifier", 3), ("other", None)):
        write_transformer(folder / name, "bert", labels=labels)
        if name != "other":
            (folder / name / "chat_template.jinja").write_text(PLAIN)
    models = tuple(
        ModelSettings(name=str(folder / name), aliases=(name,), engine="torch")
        for name in ("embedder", "classifier", "other")
    )
    async with running(Settings(models=models, device="cpu", dtype="float32")) as app:
        yield app


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    answer = await client.post(path, json={"model": PATHS[path]} | body)
    assert 200 == answer.status_code, answer.text
    found = answer.json()
    [item] = found["data"]
    numbers = next(item[name] for name in ("embedding", "data", "probs") if name in item)
    return [*numbers, found["usage"]["prompt_tokens"]]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", RENDERED)
async def test_messages_are_the_text_that_the_template_makes_of_them(
    path: str, name: str, client: httpx.AsyncClient
) -> None:
    fields, text = RENDERED[name]
    limit = {field: value for field, value in fields.items() if field == "truncate_prompt_tokens"}

    chat = await post(client, path, **{"messages": MESSAGES} | fields)
    special = await post(client, path, **{"messages": MESSAGES, "add_special_tokens": True} | fields)

    assert await post(client, path, input=text, add_special_tokens=False, **limit) == pytest.approx(chat, abs=1e-6)
    assert await post(client, path, input=text, **limit) == pytest.approx(special, abs=1e-6)
    assert chat[-1] + (0 if limit else 2) == special[-1]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", REFUSED)
async def test_messages_that_cannot_be_read_are_refused_in_a_sentence(
    path: str, name: str, client: httpx.AsyncClient
) -> None:
    fields, words = REFUSED[name]

    answer = await client.post(path, json={"model": PATHS[path], "messages": MESSAGES} | fields)

    assert 400 == answer.status_code
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", [name for name in RENDERED if name != "a limit"])
async def test_tokenize_returns_the_tokens_of_the_rendered_messages(name: str, client: httpx.AsyncClient) -> None:
    fields, text = RENDERED[name]
    # As in vLLM, the prompt of an answer follows unless it is refused or the last message is to be continued.
    text += "dog" if fields not in (FINAL, GENERATION) else ""

    async def tokens(**body: Any) -> Any:
        answer = await client.post("/tokenize", json={"model": "embedder", "return_token_strs": True} | body)
        assert 200 == answer.status_code, answer.text
        return answer.json()

    body = {"messages": MESSAGES} | fields
    assert await tokens(prompt=text, add_special_tokens=False) == await tokens(**body)
    assert await tokens(prompt=text) == await tokens(**body, add_special_tokens=True)


async def test_tokenize_refuses_messages_beside_a_prompt_and_of_a_model_without_a_template(
    client: httpx.AsyncClient,
) -> None:
    refused = {
        "can't both be sent": {"model": "embedder", "prompt": "cat"},
        "this model has no chat template": {"model": "other"},
    }

    for words, fields in refused.items():
        answer = await client.post("/tokenize", json=fields | {"messages": MESSAGES})
        assert 400 == answer.status_code
        assert words in answer.json()["error"]["message"]


async def test_a_model_without_a_template_or_with_a_prompt_refuses_messages(client: httpx.AsyncClient) -> None:
    words = {"other": "this model has no chat template", "embedder:query": "messages take no prompt"}

    found = {
        model: (await client.post("/v1/embeddings", json={"model": model, "messages": MESSAGES})).text
        for model in words
    }

    assert not [model for model in words if words[model] not in found[model]]


async def test_invocations_classify_for_a_model_that_only_classifies(client: httpx.AsyncClient) -> None:
    for fields in ({"input": "the cat"}, {"messages": MESSAGES}):
        body = {"model": "classifier"} | fields
        invoked, own = [(await client.post(path, json=body)).json() for path in ("/invocations", "/classify")]
        assert own["data"] == invoked["data"]
    assert "embedding" in (await client.post("/invocations", json={"input": "cat", "model": "other"})).json()["data"][0]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_is_rendered_as_by_transformers(name: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "bert", "bert")
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    as_parts = [
        {
            "role": one["role"],
            "content": [{"type": "text", "text": one["content"]}] if name == "parts" else one["content"],
        }
        for one in MESSAGES
    ]
    chat = tuple((one["role"], (one["content"],)) for one in MESSAGES)

    for options in ({}, FINAL, GENERATION):
        wanted = tokenizer.apply_chat_template(as_parts, tokenize=False, **options)
        assert wanted == ChatMessages(folder).render(Chat(messages=chat, **options)), options


def test_a_template_that_fails_or_drops_the_last_message_is_named(tmp_path: Path) -> None:
    def refused(source: str, **options: bool) -> str:
        (tmp_path / "chat_template.jinja").write_text(source)
        with pytest.raises(InputError) as error:
            ChatMessages(tmp_path).render(Chat(messages=(("user", ("cat",)),), **options))
        return str(error.value)

    assert "doesn't render these: no cats" in refused("{{ raise_exception('no cats') }}")
    assert "isn't supported" in refused("{% for %}")
    assert "changes the last message" in refused("{{ messages[0].role }}", continue_final_message=True)
