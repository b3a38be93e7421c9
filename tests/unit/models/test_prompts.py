"""The prompt before a text is chosen by name, by the text's role, or with a request's instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
from checkpoints import write_files

from nearfar.core.errors import CheckpointError, InputError
from nearfar.core.types import Role
from nearfar.models.reading.embedders import read_prompts
from nearfar.models.reading.families import FAMILIES, name_roles
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.prompts import choose_prompt, find_prompt

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.reading.families import FamilyDefaults, name_roles

FILE = "config_sentence_transformers.json"
WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
QWEN = {"query": f"Instruct: {WEB_SEARCH}\nQuery:"}
E5 = {"query": f"Instruct: {WEB_SEARCH}\nQuery: "}
STELLA = name_roles(
    {
        "s2p_query": f"Instruct: {WEB_SEARCH}.\nQuery: ",
        "s2s_query": "Instruct: Retrieve semantically similar text.\nQuery: ",
    }
)
GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "Classification": "task: classification | query: ",
    "Clustering": "task: clustering | query: ",
    "STS": "task: sentence similarity | query: ",
}


def recipe_of(prompts: dict[str, str], default: str | None = None) -> Recipe:
    return Recipe(
        architecture="BertModel",
        model_type="bert",
        task="embed",
        max_tokens=64,
        hidden_size=8,
        prompts=prompts,
        default_prompt=default,
    )


class TestRoles:
    @pytest.mark.parametrize(
        ("role", "expected"),
        [
            ("query", "task: search result | query: "),
            ("document", "title: none | text: "),
            ("classification", "task: classification | query: "),
            ("clustering", "task: clustering | query: "),
            ("similarity", "task: sentence similarity | query: "),
        ],
    )
    def test_a_roles_prompt_is_found_under_the_checkpoints_name_for_it(self, role: Role, expected: str) -> None:
        assert expected == choose_prompt(recipe_of(GEMMA), None, role)

    def test_stellas_and_e5_mistrals_names_are_known_as_those_of_their_families(self) -> None:
        assert STELLA["s2p_query"] == choose_prompt(recipe_of(STELLA), None, "query")
        assert "W" == choose_prompt(recipe_of(name_roles({"web_search_query": "W"})), None, "query")
        assert STELLA["s2s_query"] == choose_prompt(recipe_of(STELLA), None, "similarity")

    @pytest.mark.parametrize("name", ["passage", "corpus", "search_document", "Retrieval-document"])
    def test_documents_get_the_prompt_of_that_name_alone(self, name: str) -> None:
        """sentence-transformers' encode_document does the same: each model has an empty prompt called document."""
        prompts = {name: "D: ", "s2p_query": "Q: "}

        assert ["", ""] == [choose_prompt(recipe_of(prompts), None, role) for role in ("query", "document")]
        assert "D: " == choose_prompt(recipe_of(prompts), name, None)

    @pytest.mark.parametrize("role", ["classification", "clustering", "similarity"])
    @pytest.mark.parametrize(("default", "expected"), [("query", "Q: "), (None, "")])
    def test_a_role_without_a_prompt_gets_the_default_prompt(
        self, role: Role, default: str | None, expected: str
    ) -> None:
        assert expected == choose_prompt(recipe_of({"query": "Q: "}, default), None, role)

    @pytest.mark.parametrize("role", ["query", "document"])
    def test_but_queries_and_documents_never_do(self, role: Role) -> None:
        assert "" == choose_prompt(recipe_of({"web": "W: "}, "web"), None, role)

    def test_an_unknown_name_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(InputError, match=r"no prompt 'clustering'; there are: query, document$"):
            choose_prompt(recipe_of({"query": "Q: "}), "clustering", None)

    def test_a_name_takes_precedence_over_a_role(self) -> None:
        assert "title: none | text: " == choose_prompt(recipe_of(GEMMA), "document", "query")

    @pytest.mark.parametrize("known", FAMILIES, ids=lambda known: known.source)
    def test_every_prompt_of_a_family_is_a_roles(self, known: FamilyDefaults) -> None:
        """Requests with a role alone could not reach it otherwise."""
        assert set(known.prompts) <= set(get_args(Role))
        assert all(prompt == find_prompt(known.prompts, name) for name, prompt in known.prompts.items())


class TestInstructions:
    @pytest.mark.parametrize(
        ("prompts", "expected"),
        [
            (QWEN, "Instruct: Find the law.\nQuery:"),
            (E5, "Instruct: Find the law.\nQuery: "),
            (STELLA, "Instruct: Find the law.\nQuery: "),
            (GEMMA, "task: Find the law. | query: "),
        ],
        ids=["Qwen3-Embedding", "E5", "stella", "EmbeddingGemma"],
    )
    @pytest.mark.parametrize("role", [None, "query", "classification", "clustering", "similarity"])
    def test_an_instruction_replaces_the_models_own(
        self, prompts: dict[str, str], expected: str, role: Role | None
    ) -> None:
        assert expected == choose_prompt(recipe_of(prompts), None, role, "Find the law.")

    def test_an_instruction_may_have_lines_and_braces(self) -> None:
        assert "Instruct: {a}\n\\1 b\nQuery:" == choose_prompt(recipe_of(QWEN), "query", None, "{a}\n\\1 b")

    @pytest.mark.parametrize(
        "prompts", [{}, {"query": "query: ", "document": "passage: "}, {"query": "Instruct: x"}, {"web": QWEN["query"]}]
    )
    def test_a_model_without_instructions_refuses_one(self, prompts: dict[str, str]) -> None:
        with pytest.raises(InputError, match="takes no instruction; leave it out") as refused:
            choose_prompt(recipe_of(prompts), None, "query", "Find the law.")

        assert "instruction" == refused.value.param

    @pytest.mark.parametrize(("named", "role"), [(None, "document"), ("document", None), ("s2s_query", "query")])
    def test_documents_and_texts_with_a_named_prompt_take_none(self, named: str | None, role: Role | None) -> None:
        with pytest.raises(InputError, match="before queries, not before"):
            choose_prompt(recipe_of(STELLA), named, role, "Find the law.")

    @pytest.mark.parametrize("instruction", ["", " ", "\n"])
    def test_an_empty_one_is_refused(self, instruction: str) -> None:
        with pytest.raises(InputError, match="must not be empty"):
            choose_prompt(recipe_of(QWEN), None, "query", instruction)


class TestReading:
    """Prompts come from the folder's file if it has a list of them, else from the family."""

    known = next(known for known in FAMILIES if known.source == "BAAI/bge-large-en-v1.5")

    @pytest.mark.parametrize(
        "files", [{}, {FILE: {"__version__": {"sentence_transformers": "2.2.2"}}}, {FILE: {"prompts": None}}], ids=str
    )
    def test_a_folder_without_a_list_has_its_familys_prompts(self, files: dict[str, object], tmp_path: Path) -> None:
        """BAAI's own files are of a version without prompts."""
        found = read_prompts(write_files(tmp_path, files), self.known)

        assert (self.known.prompts, None, "as BAAI/bge-large-en-v1.5, by its name") == found

    @pytest.mark.parametrize(
        ("file", "prompts", "default", "source"),
        [
            ({"prompts": {"query": "Q: "}}, {"query": "Q: "}, None, FILE),
            ({"prompts": {"query": "Q: "}, "default_prompt_name": "query"}, {"query": "Q: "}, "query", FILE),
            ({"prompts": {}}, {}, None, ""),
            ({"prompts": {"query": "", "document": ""}}, {}, None, ""),
        ],
        ids=str,
    )
    def test_a_list_in_the_folder_replaces_the_familys(
        self, file: object, prompts: dict[str, str], default: str | None, source: str, tmp_path: Path
    ) -> None:
        found = read_prompts(write_files(tmp_path, {FILE: file}), self.known)

        assert (prompts, default, source) == found

    def test_a_default_without_a_list_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=rf"{FILE}: default_prompt_name is 'web', .*; add it"):
            read_prompts(write_files(tmp_path, {FILE: {"default_prompt_name": "web"}}), self.known)

    def test_without_any_prompts_there_is_no_source(self, tmp_path: Path) -> None:
        assert ({}, None, "") == read_prompts(tmp_path, None)
