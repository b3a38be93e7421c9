"""Model families known by name: pooling, prompts and limits for folders that don't state them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from checkpoints import HIDDEN, write_files, write_transformer
from manual import tables

from nearfar.core.errors import CheckpointError, InputError
from nearfar.models.reading.families import FAMILIES, FamilyDefaults, find_family
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.prompts import choose_prompt

if TYPE_CHECKING:
    from pathlib import Path

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"


POOLINGS = [
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
]
QUERY_PROMPTS = [
    ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: "),
    ("BAAI/bge-base-zh-v1.5", "为这个句子生成表示以用于检索相关文章："),  # noqa: RUF001 — the authors' own colon
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
]
OTHER_PROMPTS = [
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
]
LIMITS = [
    ("all-MiniLM-L6-v2", 256, True),
    ("all-mpnet-base-v2", 384, True),
    ("paraphrase-multilingual-MiniLM-L12-v2", 128, False),
    ("paraphrase-mpnet-base-v2", None, False),
    ("LaBSE", 256, True),
    ("mxbai-embed-large-v1", None, False),
    ("bge-m3", None, True),
]


def family_of(name: str) -> FamilyDefaults:
    family = find_family(name)
    assert family, name
    return family


def test_names_of_converted_folders_are_recognized() -> None:
    assert POOLINGS == [(name, family_of(name).pooling) for name, _ in POOLINGS]


def test_families_have_their_pages_prompts() -> None:
    assert QUERY_PROMPTS == [(name, family_of(name).prompts["query"]) for name, _ in QUERY_PROMPTS]
    assert OTHER_PROMPTS == [(name, role, family_of(name).prompts[role]) for name, role, _ in OTHER_PROMPTS]


def test_families_have_the_limits_and_normalization_of_their_sentence_transformers_files() -> None:
    assert LIMITS == [(name, family_of(name).max_tokens, family_of(name).normalize) for name, *_ in LIMITS]


@pytest.mark.parametrize(
    ("name", "family", "pooling"),
    [("BAAI/bge-en-icl", "mistral", "lasttoken"), ("thenlper/gte-large-zh", "bert", "cls")],
)
def test_a_names_pooling_does_not_apply_to_another_architecture(
    name: str, family: str, pooling: str, tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / "bare", family)

    assert (pooling,) == read_recipe(folder, name=name).pooling


def test_a_fine_tuned_model_keeps_its_bases_pooling_but_not_its_prompts(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "tuned", "bert")
    config = json.loads((folder / "config.json").read_text()) | {"_name_or_path": "BAAI/bge-small-en-v1.5"}
    write_files(folder, {"config.json": config})

    recipe = read_recipe(folder, name="me/tuned")

    assert (("cls",), {}) == (recipe.pooling, recipe.prompts)


def test_a_familys_own_name_for_the_prompt_of_queries_counts_for_it_alone(tmp_path: Path) -> None:
    names = ("all-minilm-l6-v2", "mine")
    files = {"config_sentence_transformers.json": {"prompts": {"s2p_query": "Q: "}}}

    known, unknown = (read_recipe(write_files(write_transformer(tmp_path / name, "bert"), files)) for name in names)

    assert {"s2p_query": "Q: ", "query": "Q: "} == known.prompts
    assert {"s2p_query": "Q: "} == unknown.prompts


def test_a_null_name_or_path_is_accepted(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "plain", "bert")
    write_files(folder, {"config.json": json.loads((folder / "config.json").read_text()) | {"_name_or_path": None}})

    assert ("mean",) == read_recipe(folder).pooling


def test_the_poolings_file_may_be_missing_if_the_family_is_known(tmp_path: Path) -> None:
    """Converters copy modules.json, and not the folders that it names."""
    folder = write_transformer(tmp_path / "bge-m3-mlx", "bert")
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(paths.items())
    ]
    write_files(folder, {"modules.json": modules})

    recipe = read_recipe(folder)

    assert ("cls",) == recipe.pooling
    assert "as BAAI/bge-m3, by its name; the folder has no 1_Pooling/config.json" == recipe.pooling_source
    with pytest.raises(CheckpointError, match=r"1_Pooling/config.json: can't be read"):
        read_recipe(folder, name="me/other")


def test_other_names_have_no_family() -> None:
    assert not [name for name in ("bert-base-uncased", "my-model", "cambridge-model", "") if find_family(name)]


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
def test_a_bare_folder_has_its_familys_pooling_and_says_so(name: str, prompts: dict[str, str], tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "bare", "bert")

    recipe = read_recipe(folder, name=f"mlx-community/{name}")

    known = find_family(name)
    assert known
    assert (known.pooling,) == recipe.pooling
    assert f"as {known.source}, by its name; the folder has no modules.json" == recipe.pooling_source
    assert prompts == recipe.prompts
    assert recipe.default_prompt is None


@pytest.mark.parametrize("name", ["embeddinggemma-300m-4bit", "LaBSE"])
def test_a_bare_folder_of_a_family_with_dense_layers_is_refused(name: str, tmp_path: Path) -> None:
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
def test_options_that_transformers_silently_ignores_are_refused(
    family: str, options: dict[str, object], tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / "odd", family)
    config = json.loads((folder / "config.json").read_text())

    read_recipe(folder)
    write_files(folder, {"config.json": config | options})

    with pytest.raises(CheckpointError, match=rf"{next(iter(options))}.* isn't supported"):
        read_recipe(folder)


def _takes_instructions(known: FamilyDefaults) -> bool:
    recipe = Recipe(architecture="", model_type="", task="embed", max_tokens=64, hidden_size=8, prompts=known.prompts)
    try:
        return "Find the law." in choose_prompt(recipe, None, "query", "Find the law.")
    except InputError:
        return False


def test_the_manuals_table_is_the_registry() -> None:
    words = {"cls": "first token", "mean": "mean", "lasttoken": "last token"}
    rows: dict[tuple[str, str, str], list[str]] = {}
    for known in FAMILIES:
        instructed = "yes" if _takes_instructions(known) else "–"
        row = (words[known.pooling], ", ".join(known.prompts) or "–", instructed)
        rows.setdefault(row, []).append(known.source.rpartition("/")[2])
    expected = [[", ".join(names), *row] for row, names in sorted(rows.items())]

    assert expected == tables("models", "| family, known by its name | pooling | prompts | takes instructions |")


def test_the_folders_own_files_win(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "bge-m3", "bert")
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate((("Transformer", ""), ("Pooling", "1_Pooling")))
    ]
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode": "max"}
    named = {"prompts": {"query": "Q: "}}
    write_files(
        folder,
        {"modules.json": modules, "1_Pooling/config.json": pooling, "config_sentence_transformers.json": named},
    )

    recipe = read_recipe(folder)

    assert (("max",), "1_Pooling/config.json", {"query": "Q: "}) == (
        recipe.pooling,
        recipe.pooling_source,
        recipe.prompts,
    )


def test_name_or_path_counts_if_the_folders_name_is_unknown(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "snapshot", "bert", _name_or_path="BAAI/bge-small-en-v1.5")
    config = json.loads((folder / "config.json").read_text()) | {"_name_or_path": "BAAI/bge-small-en-v1.5"}
    write_files(folder, {"config.json": config})

    assert ("cls",) == read_recipe(folder).pooling
