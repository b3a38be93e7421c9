"""Folders without some of their published files run as with them, or are refused; present files are followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkpoints import write_files, write_transformer

from nearfar.core.errors import CheckpointError
from nearfar.models.reading.families import FAMILIES, find_family
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.dense import Dense
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.reading.families import FamilyDefaults
    from nearfar.models.recipe.recipe import Recipe

# A name of each family's, in the order of the registry.
NAMES = (
    "bge-m3",
    "bge-small-en-v1.5",
    "bge-large-zh-v1.5",
    "bge-base-fa",
    "e5-mistral-7b-instruct",
    "multilingual-e5-large-instruct",
    "multilingual-e5-small",
    "Qwen3-Embedding-0.6B",
    "gte-Qwen2-1.5B-instruct",
    "gte-base-en-v1.5",
    "gte-multilingual-base",
    "gte-modernbert-base",
    "gte-small",
    "snowflake-arctic-embed-l-v2.0",
    "snowflake-arctic-embed-m-v1.5",
    "mxbai-embed-large-v1",
    "nomic-embed-text-v1.5",
    "modernbert-embed-base",
    "all-MiniLM-L6-v2",
    "all-mpnet-base-v2",
    "all-MiniLM-L12-v2",
    "paraphrase-multilingual-mpnet-base-v2",
    "paraphrase-MiniLM-L6-v2",
    "LaBSE",
    "embeddinggemma-300m",
    "jina-embeddings-v3",
    "stella_en_400M_v5",
    "granite-embedding-english-r2",
)
OPTIONAL = (
    "modules.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
)
POSITIONS = 512


def step(kind: str, path: str = "") -> dict[str, str]:
    return {"name": kind, "path": path, "type": f"sentence_transformers.models.{kind}"}


def family_of(name: str) -> FamilyDefaults:
    family = find_family(name)
    assert family
    return family


def published(name: str) -> dict[str, object]:
    """Return the files of a model as its authors published it, without the weights."""
    known = family_of(name)
    decodes = known.pooling == "lasttoken"
    modules = [step("Transformer"), step("Pooling", "1_Pooling")]
    files: dict[str, object] = {
        "config.json": {
            "architectures": ["Qwen2Model" if decodes else "BertModel"],
            "model_type": "qwen2" if decodes else "bert",
            "hidden_size": 8,
            "max_position_embeddings": POSITIONS,
        }
        | ({"is_causal": False} if known.bidirectional else {}),
        "model.safetensors": b"",
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode": known.pooling},
        "config_sentence_transformers.json": {"prompts": known.prompts},
        "sentence_bert_config.json": {"max_seq_length": known.max_tokens or POSITIONS, "do_lower_case": False},
        "tokenizer_config.json": {"model_max_length": POSITIONS},
        "special_tokens_map.json": {"pad_token": "[PAD]"},
    }
    if known.has_dense_layers:
        modules.append(step("Dense", "2_Dense"))
        files |= {"2_Dense/config.json": {"in_features": 8, "out_features": 4}, "2_Dense/model.safetensors": b""}
    if known.normalize:
        modules.append(step("Normalize", "3_Normalize"))
    return files | {"modules.json": modules}


def numbers(recipe: Recipe) -> tuple[object, ...]:
    """Return everything in a recipe that changes a vector."""
    return (
        recipe.pooling,
        recipe.normalize,
        [(dense.in_features, dense.out_features) for dense in recipe.layers if isinstance(dense, Dense)],
        recipe.prompts,
        recipe.default_prompt,
        recipe.max_tokens,
    )


def test_the_names_are_one_of_each_family() -> None:
    assert [known.source for known in FAMILIES] == [known.source for name in NAMES if (known := find_family(name))]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_lacks_a_file_is_run_as_with_it_or_refused(name: str, tmp_path: Path) -> None:
    """Converters leave files out; a model's vectors must not depend on which."""
    files, family = published(name), family_of(name)
    expected = numbers(read_recipe(write_files(tmp_path / "whole", files), name=name))
    wrong = []
    for at, missing in enumerate(OPTIONAL):
        folder = write_files(tmp_path / str(at), {file: content for file, content in files.items() if file != missing})
        needed = missing in {"modules.json", "1_Pooling/config.json"} or missing.startswith("2_Dense")
        try:
            outcome: object = numbers(read_recipe(folder, name=name))
        except CheckpointError as error:
            outcome = "refused" if "download" in str(error) else error
        if outcome != ("refused" if family.has_dense_layers and needed else expected):
            wrong.append((missing, outcome))

    assert not wrong


def test_a_bare_folder_is_run_as_the_published_one(tmp_path: Path) -> None:
    """Conversions to another format often keep only the transformer and its tokenizer."""
    for name in NAMES:
        files, family = published(name), family_of(name)
        expected = numbers(read_recipe(write_files(tmp_path / name / "whole", files), name=name))
        bare = write_files(
            tmp_path / name / "bare", {file: files[file] for file in ("config.json", "model.safetensors")}
        )
        if family.has_dense_layers:
            with pytest.raises(CheckpointError, match=r"has Dense layers after its pooling; download"):
                read_recipe(bare, name=name)
        else:
            recipe = read_recipe(bare, name=name)
            assert expected == numbers(recipe), name
            assert (f"as {family.source}, by its name" if family.prompts else "") == recipe.prompts_source


def test_a_folder_that_contradicts_its_name_is_followed(tmp_path: Path) -> None:
    for name in NAMES:
        family = family_of(name)
        files = published(name) | {
            "modules.json": [step("Transformer"), step("Pooling", "1_Pooling")]
            + ([] if family.normalize else [step("Normalize", "2_Normalize")]),
            "1_Pooling/config.json": {"pooling_mode": "max"},
            "config_sentence_transformers.json": {
                "prompts": {"query": "Q: ", "web": "W: "},
                "default_prompt_name": "web",
            },
            "sentence_bert_config.json": {"max_seq_length": 99},
        }

        recipe = read_recipe(write_files(tmp_path / name, files), name=name)

        own: tuple[object, ...] = (("max",), not family.normalize, [], {"query": "Q: ", "web": "W: "}, "web", 99)
        assert own == numbers(recipe), name
        sources = ("1_Pooling/config.json", "config_sentence_transformers.json")
        assert sources == (recipe.pooling_source, recipe.prompts_source)


@pytest.mark.parametrize("name", ["bge-small-en-v1.5", "my-own"])
def test_the_poolings_own_file_counts_if_modules_json_is_missing(name: str, tmp_path: Path) -> None:
    """sentence-transformers would silently pool by mean."""
    files = {name: published("bge-m3")[name] for name in ("config.json", "model.safetensors")}
    write_files(tmp_path, files | {"1_Pooling/config.json": {"pooling_mode": "max"}})

    recipe = read_recipe(tmp_path, name=name)

    assert (("max",), "1_Pooling/config.json; the folder has no modules.json") == (
        recipe.pooling,
        recipe.pooling_source,
    )


@pytest.mark.parametrize(("named", "is_served"), [("cls", False), ("lasttoken", False), ("mean", True), (None, True)])
def test_a_pooling_that_only_config_json_names_is_refused_unless_libraries_use_it(
    *, named: str | None, is_served: bool, tmp_path: Path
) -> None:
    """Conversions for MLX have it. sentence-transformers and mlx-embeddings pool by mean all the same."""
    files = {name: published("bge-m3")[name] for name in ("config.json", "model.safetensors")}
    config = files["config.json"]
    assert isinstance(config, dict)
    write_files(tmp_path, files | {"config.json": {**config, "pooling_config": {"pooling_mode": named}}})

    if is_served:
        assert ("mean",) == read_recipe(tmp_path, name="my-own").pooling
    else:
        with pytest.raises(
            CheckpointError, match=rf'pooling_config names {named}.*"{named}".* to 1_Pooling/config.json'
        ):
            read_recipe(tmp_path, name="my-own")


@pytest.mark.parametrize("more", ["2_Dense", "2_Dense_1024", "1_SpladePooling", "2_LayerNorm"])
def test_a_step_without_modules_json_is_refused(more: str, tmp_path: Path) -> None:
    files = {name: published("bge-m3")[name] for name in ("config.json", "model.safetensors")}
    write_files(tmp_path, files | {f"{more}/config.json": {}})

    with pytest.raises(CheckpointError, match=rf"has {more}, but no modules.json that says when to apply it; download"):
        read_recipe(tmp_path, name="my-own")


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "qwen3", "llama"])
@pytest.mark.parametrize("missing", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_text_has_the_same_ids_without_the_tokenizers_minor_files(missing: str, family: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", family)
    write_files(folder, {"special_tokens_map.json": {"pad_token": "[PAD]"}})
    texts = ["the quick brown fox", "Straße, naß", ""]
    expected = TextEncoder(folder, read_recipe(folder)).encode(texts)

    (folder / missing).unlink()

    assert expected == TextEncoder(folder, read_recipe(folder)).encode(texts)


@pytest.mark.parametrize(
    ("tokenizer", "expected"), [({}, 256), ({"model_max_length": 128}, 128), ({"model_max_length": 512}, 256)]
)
def test_the_smaller_of_two_limits_counts_if_the_folder_states_none(
    tokenizer: dict[str, object], expected: int, tmp_path: Path
) -> None:
    files = {name: published("all-MiniLM-L6-v2")[name] for name in ("config.json", "model.safetensors")}
    write_files(tmp_path, files | {"tokenizer_config.json": tokenizer})

    assert expected == read_recipe(tmp_path, name="all-MiniLM-L6-v2").max_tokens


def test_a_file_that_leaves_the_limit_to_the_tokenizer_is_followed(tmp_path: Path) -> None:
    files = published("all-MiniLM-L6-v2") | {"sentence_bert_config.json": {"max_seq_length": None}}

    assert POSITIONS == read_recipe(write_files(tmp_path, files), name="all-MiniLM-L6-v2").max_tokens


def test_a_familys_limit_does_not_apply_to_fine_tuned_models(tmp_path: Path) -> None:
    files = published("all-MiniLM-L6-v2")
    config = {"_name_or_path": "sentence-transformers/all-MiniLM-L6-v2", "max_position_embeddings": POSITIONS}
    plain = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8}
    write_files(tmp_path, {"config.json": plain | config, "model.safetensors": files["model.safetensors"]})

    assert POSITIONS == read_recipe(tmp_path, name="me/tuned").max_tokens
