"""Families known by their names: pooling and prompts for folders that don't say them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from checkpoints import HIDDEN, lay, write_transformer
from manual import tables

from nearfar.core.errors import CheckpointError, InputError
from nearfar.models.reading.families import FAMILIES, FamilyDefaults, find_family
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.prompts import choose_prompt

if TYPE_CHECKING:
    from pathlib import Path

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("mlx-community/bge-m3-mlx-4bit", "cls"),
        ("mlx-community/bge-small-en-v1.5-8bit", "cls"),
        ("BAAI/bge-base-zh-v1.5", "cls"),
        ("mlx-community/multilingual-e5-small-mlx", "mean"),
        ("mlx-community/multilingual-e5-large-instruct", "mean"),
        ("mlx-community/Qwen3-Embedding-4B-4bit-DWQ", "lasttoken"),
        ("mlx-community/snowflake-arctic-embed-l-v2.0-4bit", "cls"),
        ("mlx-community/mxbai-embed-large-v1", "cls"),
        ("mlx-community/nomicai-modernbert-embed-base-4bit", "mean"),
        ("mlx-community/all-MiniLM-L6-v2-4bit", "mean"),
        ("mlx-community/gte-modernbert-base-bf16", "cls"),
        ("nomic-ai/nomic-embed-text-v1.5", "mean"),
        ("Alibaba-NLP/gte-multilingual-base", "cls"),
        ("ibm-granite/granite-embedding-small-english-r2", "cls"),
    ],
)
def test_names_that_converted_folders_go_by(name: str, pooling: str) -> None:
    known = find_family(name)

    assert known
    assert pooling == known.pooling


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: "),
        ("BAAI/bge-base-zh-v1.5", "为这个句子生成表示以用于检索相关文章："),  # noqa: RUF001 — theirs
        ("mixedbread-ai/mxbai-embed-large-v1", "Represent this sentence for searching relevant passages: "),
        ("intfloat/e5-mistral-7b-instruct", f"Instruct: {WEB_SEARCH}\nQuery: "),
        ("intfloat/multilingual-e5-large-instruct", f"Instruct: {WEB_SEARCH}\nQuery: "),
        ("Alibaba-NLP/gte-Qwen2-7B-instruct", f"Instruct: {WEB_SEARCH}\nQuery: "),
        ("NovaSearch/stella_en_1.5B_v5", f"Instruct: {WEB_SEARCH}\nQuery: "),
        ("Qwen/Qwen3-Embedding-8B", f"Instruct: {WEB_SEARCH}\nQuery:"),
        ("google/embeddinggemma-300m", "task: search result | query: "),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: "),
        ("nomic-ai/modernbert-embed-base", "search_query: "),
        ("Snowflake/snowflake-arctic-embed-m", "Represent this sentence for searching relevant passages: "),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: "),
    ],
)
def test_what_stands_before_a_query(name: str, query: str) -> None:
    known = find_family(name)

    assert known
    assert query == known.prompts["query"]


@pytest.mark.parametrize(
    ("name", "role", "prompt"),
    [
        ("e5-large-v2", "document", "passage: "),
        ("e5-large-v2", "clustering", "query: "),
        ("nomic-embed-text-v1.5", "document", "search_document: "),
        ("nomic-embed-text-v1.5", "classification", "classification: "),
        ("nomic-embed-text-v1.5", "clustering", "clustering: "),
        ("nomic-embed-text-v1.5", "similarity", "classification: "),
        ("modernbert-embed-base", "document", "search_document: "),
        ("embeddinggemma-300m", "document", "title: none | text: "),
        ("embeddinggemma-300m", "classification", "task: classification | query: "),
        ("embeddinggemma-300m", "clustering", "task: clustering | query: "),
        ("embeddinggemma-300m", "similarity", "task: sentence similarity | query: "),
        ("stella_en_400M_v5", "similarity", "Instruct: Retrieve semantically similar text.\nQuery: "),
    ],
)
def test_what_stands_before_other_texts(name: str, role: str, prompt: str) -> None:
    known = find_family(name)

    assert known
    assert prompt == known.prompts[role]


@pytest.mark.parametrize(
    ("name", "limit", "normalize"),
    [
        ("all-MiniLM-L6-v2", 256, True),
        ("all-mpnet-base-v2", 384, True),
        ("paraphrase-multilingual-MiniLM-L12-v2", 128, False),
        ("paraphrase-mpnet-base-v2", None, False),
        ("LaBSE", 256, True),
        ("mxbai-embed-large-v1", None, False),
        ("bge-m3", None, True),
    ],
)
def test_what_a_folder_without_sentence_transformers_files_would_lose(
    name: str, limit: int | None, normalize: bool
) -> None:
    known = find_family(name)

    assert known
    assert (limit, normalize) == (known.max_tokens, known.normalize)


@pytest.mark.parametrize(
    ("name", "family", "pooling"),
    [("BAAI/bge-en-icl", "mistral", "lasttoken"), ("thenlper/gte-large-zh", "bert", "cls")],
)
def test_a_name_s_pooling_is_not_for_another_kind_of_model(
    name: str, family: str, pooling: str, tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / "bare", family)

    assert (pooling,) == read_recipe(folder, name=name).pooling


def test_a_model_tuned_further_pools_alike_and_has_no_prompts_of_its_base(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "tuned", "bert")
    config = json.loads((folder / "config.json").read_text()) | {"_name_or_path": "BAAI/bge-small-en-v1.5"}
    lay(folder, {"config.json": config})

    recipe = read_recipe(folder, name="me/tuned")

    assert (("cls",), {}) == (recipe.pooling, recipe.prompts)


def test_a_folder_without_a_former_name_is_no_fault(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "plain", "bert")
    lay(folder, {"config.json": json.loads((folder / "config.json").read_text()) | {"_name_or_path": None}})

    assert ("mean",) == read_recipe(folder).pooling


def test_the_file_of_the_pooling_may_be_missing_where_the_family_is_known(tmp_path: Path) -> None:
    """Converters copy modules.json, and not the folders that it names."""
    folder = write_transformer(tmp_path / "bge-m3-mlx", "bert")
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(paths.items())
    ]
    lay(folder, {"modules.json": modules})

    recipe = read_recipe(folder)

    assert ("cls",) == recipe.pooling
    assert "as BAAI/bge-m3, by its name; the folder has no 1_Pooling/config.json" == recipe.pooling_source
    with pytest.raises(CheckpointError, match=r"1_Pooling/config.json: can't be read"):
        read_recipe(folder, name="somebody/other")


@pytest.mark.parametrize("name", ["bert-base-uncased", "my-model", "cambridge-model", ""])
def test_other_names_are_nobody_s(name: str) -> None:
    assert find_family(name) is None


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        (
            "e5-base-v2",
            {
                "query": "query: ",
                "document": "passage: ",
                "classification": "query: ",
                "clustering": "query: ",
                "similarity": "query: ",
            },
        ),
        (
            "Qwen3-Embedding-0.6B-8bit",
            {"query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"},
        ),
        ("bge-m3", {}),
    ],
)
def test_a_bare_folder_is_run_as_its_family_is_and_says_so(name: str, prompts: dict[str, str], tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "bare", "bert")

    recipe = read_recipe(folder, name=f"mlx-community/{name}")

    known = find_family(name)
    assert known
    assert (known.pooling,) == recipe.pooling
    assert f"as {known.source}, by its name; the folder has no modules.json" == recipe.pooling_source
    assert prompts == recipe.prompts
    assert recipe.default_prompt is None


@pytest.mark.parametrize("name", ["embeddinggemma-300m-4bit", "LaBSE"])
def test_a_bare_folder_of_a_family_with_more_layers_is_refused(name: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / name, "bert")

    with pytest.raises(CheckpointError, match=r"no modules.json, and .* has Dense layers after its pooling; download"):
        read_recipe(folder)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", {"position_embedding_type": "alibi"}),
        ("roberta", {"position_embedding_type": "relative_key_query"}),
        ("llama", {"use_bidirectional_attention": True}),
    ],
    ids=str,
)
def test_what_transformers_would_leave_out_without_a_word_is_refused(
    family: str, options: dict[str, object], tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / "odd", family)
    config = json.loads((folder / "config.json").read_text())

    read_recipe(folder)
    lay(folder, {"config.json": config | options})

    with pytest.raises(CheckpointError, match=rf"{next(iter(options))}.* isn't supported"):
        read_recipe(folder)


def _takes_instructions(known: FamilyDefaults) -> bool:
    recipe = Recipe(architecture="", model_type="", task="embed", max_tokens=64, hidden_size=8, prompts=known.prompts)
    try:
        return "Find the law." in choose_prompt(recipe, None, "query", "Find the law.")
    except InputError:
        return False


def test_the_manual_s_table_is_the_registry() -> None:
    words = {"cls": "first token", "mean": "mean", "lasttoken": "last token"}
    rows: dict[tuple[str, str, str], list[str]] = {}
    for known in FAMILIES:
        instructed = "yes" if _takes_instructions(known) else "–"
        row = (words[known.pooling], ", ".join(known.prompts) or "–", instructed)
        rows.setdefault(row, []).append(known.source.rpartition("/")[2])
    expected = [[", ".join(names), *row] for row, names in sorted(rows.items())]

    assert expected == tables("models", "| family, known by its name | pooling | prompts | takes instructions |")


def test_the_folder_s_own_files_win(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "bge-m3", "bert")
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate((("Transformer", ""), ("Pooling", "1_Pooling")))
    ]
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode": "max"}
    named = {"prompts": {"query": "Q: "}}
    lay(
        folder,
        {"modules.json": modules, "1_Pooling/config.json": pooling, "config_sentence_transformers.json": named},
    )

    recipe = read_recipe(folder)

    assert (("max",), "1_Pooling/config.json", {"query": "Q: "}) == (
        recipe.pooling,
        recipe.pooling_source,
        recipe.prompts,
    )


def test_the_name_a_folder_was_saved_under_counts_where_its_own_says_nothing(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "snapshot", "bert", _name_or_path="BAAI/bge-small-en-v1.5")
    config = json.loads((folder / "config.json").read_text()) | {"_name_or_path": "BAAI/bge-small-en-v1.5"}
    lay(folder, {"config.json": config})

    assert ("cls",) == read_recipe(folder).pooling
