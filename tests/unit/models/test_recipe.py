"""A folder's JSON files become one Recipe, and what can't be honoured is refused by the file that says it.

Only JSON is read here, so the weights are empty files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkpoints import lay

from nearfar.core.errors import CheckpointError
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.dense import POOLINGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nearfar.models.recipe.recipe import Recipe

CONFIG = "config.json"
SENTENCE = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
TOKENIZER = "tokenizer_config.json"
MODULES = "modules.json"
POOLING = "1_Pooling/config.json"
DENSE = "2_Dense/config.json"
WEIGHTS = "model.safetensors"

BERT: dict[str, object] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
ROBERTA: dict[str, object] = BERT | {
    "architectures": ["RobertaModel"],
    "model_type": "roberta",
    "max_position_embeddings": 66,
}
RERANKER: dict[str, object] = BERT | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
WITHOUT_LIMIT: dict[str, object] = {name: value for name, value in BERT.items() if name != "max_position_embeddings"}
PLAIN: dict[str, object] = {CONFIG: BERT, WEIGHTS: b""}


def module(kind: str, path: str = "") -> dict[str, str]:
    """Write one step as sentence-transformers has done since its first version."""
    return {"idx": "0", "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"}


TRANSFORMER, POOLED, NORMALIZED = module("Transformer"), module("Pooling", "1_Pooling"), module("Normalize", "9_Norm")
PROJECTED, PROJECTED_AGAIN = module("Dense", "2_Dense"), module("Dense", "3_Dense")
PROJECTION: dict[str, object] = {
    "in_features": 8,
    "out_features": 4,
    "bias": True,
    "activation_function": "torch.nn.Tanh",
}
SENTENCE_MODEL: dict[str, object] = PLAIN | {MODULES: [TRANSFORMER, POOLED], POOLING: {"word_embedding_dimension": 8}}
PROJECTING: dict[str, object] = SENTENCE_MODEL | {
    MODULES: [TRANSFORMER, POOLED, PROJECTED],
    DENSE: PROJECTION,
    "2_Dense/model.safetensors": b"",
}


def fields_of(recipe: Recipe, names: Mapping[str, object]) -> dict[str, object]:
    return {name: getattr(recipe, name) for name in names}


def refusal(folder: Path, files: Mapping[str, object], max_tokens: int | None = None) -> str:
    """Lay the files out and give what is said when the recipe is refused, the folder's own path left out."""
    lay(folder, files)
    with pytest.raises(CheckpointError) as refused:
        read_recipe(folder, max_tokens)
    return str(refused.value).replace(str(folder), "")


class TestWithoutModules:
    """A folder that only transformers wrote: its family's usual pooling, said to be a default."""

    @pytest.mark.parametrize(
        "model_type", ["bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "modernbert", "electra", "unheard-of"]
    )
    def test_an_encoder_is_pooled_by_the_mean(self, model_type: str, tmp_path: Path) -> None:
        lay(tmp_path, PLAIN | {CONFIG: BERT | {"model_type": model_type}})

        recipe = read_recipe(tmp_path)

        assert ("mean",) == recipe.pooling
        assert recipe.pooling_source == "default for encoders; the folder has no modules.json"
        assert recipe.normalize

    @pytest.mark.parametrize(
        "model_type", ["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2", "opt"]
    )
    def test_a_decoder_is_pooled_at_its_last_token(self, model_type: str, tmp_path: Path) -> None:
        """Only the last token has seen the whole text."""
        lay(tmp_path, PLAIN | {CONFIG: BERT | {"model_type": model_type}})

        recipe = read_recipe(tmp_path)

        assert ("lasttoken",) == recipe.pooling
        assert recipe.pooling_source == "default for decoders; the folder has no modules.json"
        assert recipe.normalize

    @pytest.mark.parametrize(
        ("expected", "config"),
        [
            ({"architecture": "BertModel", "model_type": "bert", "task": "embed"}, BERT),
            ({"hidden_size": 8, "dim": 8, "pad_token_id": 0, "dense": (), "lower_case": False}, BERT),
            ({"prompts": {}, "default_prompt": None}, BERT),
            ({"architecture": "unknown"}, BERT | {"architectures": None}),
            ({"pad_token_id": 5}, BERT | {"pad_token_id": 5}),
            ({"pad_token_id": None}, BERT | {"pad_token_id": None}),
            ({"pad_token_id": None}, BERT | {"pad_token_id": -1}),
            ({"pad_token_id": None}, BERT | {"pad_token_id": [1, 2]}),
            ({"hidden_size": 6, "max_tokens": 32}, {"model_type": "gpt2", "n_embd": 6, "n_positions": 32}),
            ({"hidden_size": 6}, {"model_type": "distilbert", "dim": 6, "max_position_embeddings": 32}),
            ({"hidden_size": 6}, {"model_type": "t5", "d_model": 6, "n_positions": 32}),
        ],
    )
    def test_config_json_says(self, expected: dict[str, object], config: dict[str, object], tmp_path: Path) -> None:
        lay(tmp_path, PLAIN | {CONFIG: config})

        recipe = read_recipe(tmp_path)

        assert expected == fields_of(recipe, expected)

    def test_a_config_that_states_no_width_is_refused(self, tmp_path: Path) -> None:
        """Else /info would say that the vectors have 0 numbers."""
        config = {name: value for name, value in BERT.items() if name != "hidden_size"}

        said = refusal(tmp_path, PLAIN | {CONFIG: config})

        assert said.startswith("/config.json: ")


class TestPooling:
    @pytest.mark.parametrize(
        ("expected", "values"),
        [
            *((mode, {"pooling_mode": mode}) for mode in POOLINGS),
            ("cls", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}),
            ("max", {"pooling_mode_max_tokens": True}),
            ("mean", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}),
            ("mean_sqrt_len_tokens", {"pooling_mode_mean_sqrt_len_tokens": True}),
            ("weightedmean", {"pooling_mode_weightedmean_tokens": True}),
            ("lasttoken", {"pooling_mode_lasttoken": True}),
            ("mean", {}),
            ("mean", {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}),
            ("cls", {"pooling_mode": ["cls"]}),
            ("cls", {"pooling_mode": "cls", "pooling_mode_mean_tokens": True}),
            ("mean", {"embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": True}),
        ],
    )
    def test_one_mode_is_read_in_both_spellings(self, expected: str, values: dict[str, object], tmp_path: Path) -> None:
        lay(tmp_path, SENTENCE_MODEL | {POOLING: values})

        recipe = read_recipe(tmp_path)

        assert (expected,) == recipe.pooling
        assert recipe.pooling_source == POOLING
        assert recipe.dim == 8

    @pytest.mark.parametrize(
        ("expected", "values"),
        [
            (("cls", "mean"), {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}),
            (
                POOLINGS,
                {
                    "pooling_mode_lasttoken": True,
                    "pooling_mode_weightedmean_tokens": True,
                    "pooling_mode_mean_sqrt_len_tokens": True,
                    "pooling_mode_mean_tokens": True,
                    "pooling_mode_max_tokens": True,
                    "pooling_mode_cls_token": True,
                },
            ),
            (("cls", "mean"), {"pooling_mode": ["cls", "mean"]}),
            (("mean", "cls"), {"pooling_mode": ["mean", "cls"]}),
        ],
    )
    def test_several_modes_are_joined_in_the_order_of_sentence_transformers(
        self, expected: tuple[str, ...], values: dict[str, object], tmp_path: Path
    ) -> None:
        """Flags have an order of their own, whatever the file's; a list is the order."""
        lay(tmp_path, SENTENCE_MODEL | {POOLING: values})

        recipe = read_recipe(tmp_path)

        assert expected == recipe.pooling
        assert 8 * len(expected) == recipe.dim


class TestSteps:
    @pytest.mark.parametrize(
        ("normalize", "modules"),
        [(False, [TRANSFORMER, POOLED]), (True, [TRANSFORMER, POOLED, NORMALIZED])],
    )
    def test_vectors_are_normalised_only_where_the_folder_says_so(
        self, normalize: bool, modules: list[object], tmp_path: Path
    ) -> None:
        lay(tmp_path, SENTENCE_MODEL | {MODULES: modules})

        recipe = read_recipe(tmp_path)

        assert normalize is recipe.normalize

    def test_dense_layers_follow_the_pooling_in_order(self, tmp_path: Path) -> None:
        second = {"in_features": 4, "out_features": 2, "bias": False, "activation_function": "torch.nn.Identity"}
        files = {
            MODULES: [TRANSFORMER, POOLED, PROJECTED, PROJECTED_AGAIN, NORMALIZED],
            "3_Dense/config.json": second,
            "3_Dense/model.safetensors": b"",
        }
        lay(tmp_path, PROJECTING | files)

        recipe = read_recipe(tmp_path)

        expected = [(tmp_path / "2_Dense", 8, 4, True, "Tanh"), (tmp_path / "3_Dense", 4, 2, False, "Identity")]
        assert expected == [
            (dense.file.parent, dense.in_features, dense.out_features, dense.bias, dense.activation)
            for dense in recipe.dense
        ]
        assert recipe.dim == 2
        assert recipe.normalize

    def test_a_dense_layer_takes_all_that_several_modes_give(self, tmp_path: Path) -> None:
        files = {POOLING: {"pooling_mode": ["cls", "mean"]}, DENSE: PROJECTION | {"in_features": 16}}
        lay(tmp_path, PROJECTING | files)

        recipe = read_recipe(tmp_path)

        assert recipe.dim == 4

    def test_what_a_dense_layer_leaves_out_is_the_library_s_default(self, tmp_path: Path) -> None:
        lay(tmp_path, PROJECTING | {DENSE: {"in_features": 8, "out_features": 4}})

        (dense,) = read_recipe(tmp_path).dense

        assert (True, "Tanh") == (dense.bias, dense.activation)

    def test_the_names_of_version_6_are_known(self, tmp_path: Path) -> None:
        names = {
            "": "sentence_transformers.base.modules.transformer.Transformer",
            "1_Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            "2_Dense": "sentence_transformers.base.modules.dense.Dense",
            "3_Normalize": "sentence_transformers.base.modules.normalize.Normalize",
        }
        config = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
        files = {
            MODULES: [{"path": path, "type": name} for path, name in names.items()],
            DENSE: PROJECTION | config,
            "3_Normalize/config.json": config,
        }
        lay(tmp_path, PROJECTING | files)

        recipe = read_recipe(tmp_path)

        assert (("mean",), 1, True) == (recipe.pooling, len(recipe.dense), recipe.normalize)


class TestMaxTokens:
    @pytest.mark.parametrize(
        ("expected", "files"),
        [
            (32, {SENTENCE: {"max_seq_length": 32}, TOKENIZER: {"model_max_length": 48}}),
            (48, {SENTENCE: {"max_seq_length": 48}, TOKENIZER: {"model_max_length": 32}}),
            (48, {TOKENIZER: {"model_max_length": 48}}),
            (48, {SENTENCE: {"max_seq_length": None}, TOKENIZER: {"model_max_length": 48}}),
            (64, {}),
            (64, {SENTENCE: {"max_seq_length": 100}}),
            (64, {TOKENIZER: {"model_max_length": 100}}),
            (64, {TOKENIZER: {"model_max_length": 1e30}}),
            (64, {TOKENIZER: {"model_max_length": int(1e30)}}),
            (48, {TOKENIZER: {"model_max_length": 48.0}}),
            (512, {CONFIG: WITHOUT_LIMIT, TOKENIZER: {"model_max_length": 512}}),
        ],
    )
    def test_the_limit_is_the_stated_one_but_never_past_the_positions(
        self, expected: int, files: dict[str, object], tmp_path: Path
    ) -> None:
        lay(tmp_path, PLAIN | files)

        recipe = read_recipe(tmp_path)

        assert expected == recipe.max_tokens

    @pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"])
    @pytest.mark.parametrize(("expected", "padding"), [(64, 1), (64, None), (62, 3)])
    def test_the_rows_that_such_families_never_use_are_not_counted(
        self, expected: int, padding: int | None, model_type: str, tmp_path: Path
    ) -> None:
        """They number positions from the padding id on, which is 1 unless stated."""
        lay(tmp_path, PLAIN | {CONFIG: ROBERTA | {"model_type": model_type, "pad_token_id": padding}})

        recipe = read_recipe(tmp_path)

        assert expected == recipe.max_tokens

    @pytest.mark.parametrize("model_type", ["longformer", "xmod", "data2vec-text", "roberta-prelayernorm", "luke"])
    def test_nor_are_they_in_the_less_common_of_those_families(self, model_type: str, tmp_path: Path) -> None:
        lay(tmp_path, PLAIN | {CONFIG: ROBERTA | {"model_type": model_type, "pad_token_id": 1}})

        recipe = read_recipe(tmp_path)

        assert recipe.max_tokens == 64

    @pytest.mark.parametrize(
        ("asked", "files"),
        [
            (16, {}),
            (64, {}),
            (16, {SENTENCE: {"max_seq_length": 32}}),
            (60, {SENTENCE: {"max_seq_length": 32}, TOKENIZER: {"model_max_length": 48}}),
            (999, {CONFIG: WITHOUT_LIMIT}),
        ],
    )
    def test_the_operator_may_ask_for_another_limit(self, asked: int, files: dict[str, object], tmp_path: Path) -> None:
        lay(tmp_path, PLAIN | files)

        recipe = read_recipe(tmp_path, asked)

        assert asked == recipe.max_tokens

    @pytest.mark.parametrize("config", [BERT, ROBERTA | {"pad_token_id": 1}])
    def test_but_not_for_more_than_the_positions(self, config: dict[str, object], tmp_path: Path) -> None:
        said = refusal(tmp_path, PLAIN | {CONFIG: config}, max_tokens=65)

        assert said == ": max_tokens = 65 exceeds the model's 64 positions"

    @pytest.mark.parametrize("tokenizer", [{}, {"model_max_length": None}, {"model_max_length": 1e30}])
    def test_a_folder_without_any_limit_asks_for_one(self, tokenizer: dict[str, object], tmp_path: Path) -> None:
        said = refusal(tmp_path, PLAIN | {CONFIG: WITHOUT_LIMIT, TOKENIZER: tokenizer})

        assert said == ": none of its files states a limit in tokens; set max_tokens for this model"


class TestText:
    @pytest.mark.parametrize(
        ("prompts", "default", "values"),
        [
            ({}, None, {}),
            ({}, None, {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}),
            ({"query": "q: "}, None, {"prompts": {"query": "q: ", "document": ""}}),
            ({"query": "q: "}, "query", {"prompts": {"query": "q: ", "document": ""}, "default_prompt_name": "query"}),
            ({"query": "q: "}, None, {"prompts": {"query": "q: ", "document": ""}, "default_prompt_name": "document"}),
        ],
    )
    def test_prompts_are_kept_by_name_and_empty_ones_dropped(
        self, prompts: dict[str, str], default: str | None, values: dict[str, object], tmp_path: Path
    ) -> None:
        lay(tmp_path, SENTENCE_MODEL | {PROMPTS: values})

        recipe = read_recipe(tmp_path)

        assert (prompts, default) == (recipe.prompts, recipe.default_prompt)

    @pytest.mark.parametrize("lower_case", [True, False])
    def test_lower_casing_is_as_stated(self, lower_case: bool, tmp_path: Path) -> None:
        lay(tmp_path, SENTENCE_MODEL | {SENTENCE: {"max_seq_length": 32, "do_lower_case": lower_case}})

        recipe = read_recipe(tmp_path)

        assert lower_case is recipe.lower_case

    @pytest.mark.parametrize("family", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
    def test_the_file_s_older_names_are_read_too(self, family: str, tmp_path: Path) -> None:
        """sentence-transformers looks for these where there is no sentence_bert_config.json."""
        older = {f"sentence_{family}_config.json": {"max_seq_length": 32, "do_lower_case": True}}
        lay(tmp_path, SENTENCE_MODEL | older)

        recipe = read_recipe(tmp_path)

        assert (32, True) == (recipe.max_tokens, recipe.lower_case)


class TestReranker:
    @pytest.mark.parametrize(
        "config",
        [
            RERANKER,
            RERANKER | {"id2label": None, "num_labels": 1},
            RERANKER | {"architectures": ["XLMRobertaForSequenceClassification"]},
            RERANKER | {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            RERANKER | {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            RERANKER | {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        ],
    )
    def test_a_classifier_with_one_label_scores_pairs(self, config: dict[str, object], tmp_path: Path) -> None:
        lay(tmp_path, PLAIN | {CONFIG: config})

        recipe = read_recipe(tmp_path)

        assert ("score", (), 0) == (recipe.task, recipe.pooling, recipe.dim)
        assert recipe.max_tokens == 64

    @pytest.mark.parametrize(
        ("labels", "config"),
        [
            (("no", "maybe", "yes"), RERANKER | {"id2label": {"0": "no", "2": "yes", "1": "maybe"}}),
            (("LABEL_0", "LABEL_1"), RERANKER | {"id2label": None, "num_labels": 2}),
            (("LABEL_0", "LABEL_1"), RERANKER | {"id2label": None}),
        ],
    )
    def test_labels_come_in_the_order_of_the_logits(
        self, labels: tuple[str, ...], config: dict[str, object], tmp_path: Path
    ) -> None:
        """Transformers' own default is two without names."""
        lay(tmp_path, PLAIN | {CONFIG: config})

        recipe = read_recipe(tmp_path)

        assert labels == recipe.labels
        assert not recipe.multi_label

    @pytest.mark.parametrize(
        "said",
        [
            {"problem_type": "multi_label_classification"},
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
        ],
    )
    def test_labels_may_be_independent_of_each_other(self, said: dict[str, object], tmp_path: Path) -> None:
        lay(tmp_path, PLAIN | {CONFIG: RERANKER | {"id2label": None, "num_labels": 2} | said})

        assert read_recipe(tmp_path).multi_label

    @pytest.mark.parametrize(
        "said",
        [
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
            {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"},
        ],
    )
    def test_an_activation_that_the_served_score_would_not_follow_is_refused(
        self, said: dict[str, object], tmp_path: Path
    ) -> None:
        message = refusal(tmp_path, PLAIN | {CONFIG: RERANKER | said})

        stated = "torch.nn.modules.activation.Tanh"
        assert message == f"/config.json: the activation {stated} isn't supported; these are: Identity, Sigmoid"

    def test_such_an_activation_is_refused_where_version_6_writes_it(self, tmp_path: Path) -> None:
        values = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Tanh"}

        said = refusal(tmp_path, PLAIN | {CONFIG: RERANKER, PROMPTS: values})

        assert said.startswith(f"/{PROMPTS}: ")

    def test_a_default_prompt_that_no_pair_would_get_is_refused(self, tmp_path: Path) -> None:
        """sentence-transformers puts it before every pair since version 6."""
        values = {"model_type": "CrossEncoder", "prompts": {"web": "search: "}, "default_prompt_name": "web"}

        said = refusal(tmp_path, PLAIN | {CONFIG: RERANKER, PROMPTS: values})

        assert said.startswith(f"/{PROMPTS}: ")


ONLY = "only Transformer, Pooling, Dense…, Normalize are supported, in this order, not: "
REFUSALS: dict[str, tuple[str, Mapping[str, object]]] = {
    # The files that must be there
    "an empty folder": (
        ": has no config.json, so it isn't a transformers or sentence-transformers model",
        {},
    ),
    "only pickled weights": (
        ": has only pickled weights, which can run code; convert them: nearfar unpickle",
        {CONFIG: BERT, "pytorch_model.bin": b""},
    ),
    "only pickled weights, as .pt": (
        ": has only pickled weights, which can run code; convert them: nearfar unpickle",
        {CONFIG: BERT, "model.pt": b""},
    ),
    "no weights": (": has no *.safetensors", {CONFIG: BERT}),
    "a pooling step without its file": (
        "/1_Pooling/config.json: can't be read (No such file or directory)",
        PLAIN | {MODULES: [TRANSFORMER, POOLED]},
    ),
    "a dense step without its file": (
        "/2_Dense/config.json: can't be read (No such file or directory)",
        SENTENCE_MODEL | {MODULES: [TRANSFORMER, POOLED, PROJECTED]},
    ),
    "a dense step with pickled weights": (
        "/2_Dense: has no model.safetensors",
        SENTENCE_MODEL
        | {MODULES: [TRANSFORMER, POOLED, PROJECTED], DENSE: PROJECTION, "2_Dense/pytorch_model.bin": b""},
    ),
    # Damaged files
    **{
        f"{name} {how}": (f"/{name}: is damaged or has unexpected content: ", PROJECTING | {name: content})
        for name in (CONFIG, MODULES, POOLING, DENSE, SENTENCE, PROMPTS, TOKENIZER)
        for how, content in {
            "cut short": b'{"a',
            "empty": b"",
            "of another shape": b'"text"',
            "not UTF-8": b'"\xff"',
            "nested without end": b"[" * 100_000,
        }.items()
    },
    "config.json without model_type": (
        "/config.json: is damaged or has unexpected content: ",
        PLAIN | {CONFIG: {"hidden_size": 8}},
    ),
    "a width that is no number": (
        "/config.json: is damaged or has unexpected content: ",
        PLAIN | {CONFIG: BERT | {"hidden_size": "8"}},
    ),
    "a dense step without its widths": (
        "/2_Dense/config.json: is damaged or has unexpected content: ",
        PROJECTING | {DENSE: {"bias": True}},
    ),
    # Steps
    "no step": (f"/modules.json: {ONLY}", SENTENCE_MODEL | {MODULES: []}),
    **{
        f"steps: {', '.join(kinds)}": (
            f"/modules.json: {ONLY}{', '.join(f'sentence_transformers.models.{kind}' for kind in kinds)}",
            PROJECTING | {MODULES: [module(kind, f"{at}_{kind}" if at else "") for at, kind in enumerate(kinds)]},
        )
        for kinds in (
            ("Transformer",),
            ("Pooling",),
            ("Pooling", "Transformer"),
            ("Transformer", "Normalize"),
            ("Transformer", "Dense", "Pooling"),
            ("Transformer", "Pooling", "Normalize", "Dense"),
            ("Transformer", "Pooling", "Normalize", "Normalize"),
            ("Transformer", "Pooling", "Pooling"),
            ("Transformer", "Pooling", "LayerNorm"),
            ("Transformer", "Pooling", "Dropout", "Normalize"),
            ("Transformer", "WeightedLayerPooling", "Pooling"),
            ("Transformer", "CNN", "Pooling"),
            ("WordEmbeddings", "Pooling"),
            ("StaticEmbedding",),
            ("CLIPModel",),
            ("Router",),
        )
    },
    "a transformer from elsewhere": (
        "/modules.json: custom_st.Transformer is remote code, which is never run; ",
        SENTENCE_MODEL | {MODULES: [{"path": "", "type": "custom_st.Transformer"}, POOLED]},
    ),
    "a pooling from elsewhere": (
        "/modules.json: modeling_mine.Pooling is remote code, which is never run; ",
        SENTENCE_MODEL | {MODULES: [TRANSFORMER, {"path": "1_Pooling", "type": "modeling_mine.Pooling"}]},
    ),
    "a transformer in a folder of its own": (
        "/modules.json: the transformer is in '0_Transformer'",
        SENTENCE_MODEL | {MODULES: [module("Transformer", "0_Transformer"), POOLED]},
    ),
    # Paths
    **{
        f"a path to {path}": (
            f"/modules.json: the path {path!r} leads outside the folder",
            SENTENCE_MODEL | {MODULES: [TRANSFORMER, module("Pooling", path)]},
        )
        for path in ("..", "../1_Pooling", "1_Pooling/../../x", "/etc")
    },
    **{
        f"a path that {what}": (
            f"/modules.json: {path[:50]!r} is no valid path",
            SENTENCE_MODEL | {MODULES: [TRANSFORMER, module("Pooling", path)]},
        )
        for what, path in {"is too long": "a" * 300, "has a NUL": "1_Pooling\0"}.items()
    },
    "a normalisation outside": (
        "/modules.json: the path '../x' leads outside the folder",
        SENTENCE_MODEL | {MODULES: [TRANSFORMER, POOLED, module("Normalize", "../x")]},
    ),
    # Options of the transformer
    "another output of the transformer": (
        f"/{SENTENCE}: ",
        SENTENCE_MODEL
        | {SENTENCE: {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}}},
    ),
    "another task of the transformer": (
        f"/{SENTENCE}: ",
        SENTENCE_MODEL | {SENTENCE: {"transformer_task": "fill-mask"}},
    ),
    "options of the tokenizer": (
        f"/{SENTENCE}: ",
        SENTENCE_MODEL | {SENTENCE: {"processing_kwargs": {"text": {"add_special_tokens": False}}}},
    ),
    # Options of the pooling
    "pooling without the prompt": (
        "/1_Pooling/config.json: include_prompt = false isn't supported",
        SENTENCE_MODEL | {POOLING: {"pooling_mode": "mean", "include_prompt": False}},
    ),
    "an unknown mode": (
        "/1_Pooling/config.json: the pooling median isn't supported",
        SENTENCE_MODEL | {POOLING: {"pooling_mode": "median"}},
    ),
    "an unknown mode among others": (
        "/1_Pooling/config.json: the pooling mean, median isn't supported",
        SENTENCE_MODEL | {POOLING: {"pooling_mode": ["mean", "median"]}},
    ),
    "an unknown flag": (
        "/1_Pooling/config.json: the pooling pooling_mode_median, mean isn't supported",
        SENTENCE_MODEL | {POOLING: {"pooling_mode_mean_tokens": True, "pooling_mode_median": True}},
    ),
    "a mode that is no text": (
        "/1_Pooling/config.json: the pooling 7 isn't supported",
        SENTENCE_MODEL | {POOLING: {"pooling_mode": [7]}},
    ),
    "modes that are no list": (
        "/1_Pooling/config.json: ",
        SENTENCE_MODEL | {POOLING: {"pooling_mode": 7}},
    ),
    # Widths
    "pooling of another width": (
        "/1_Pooling/config.json: pools vectors of 16, but config.json has a hidden_size of 8",
        SENTENCE_MODEL | {POOLING: {"word_embedding_dimension": 16}},
    ),
    "pooling of another width, in the new spelling": (
        "/1_Pooling/config.json: pools vectors of 16, but config.json has a hidden_size of 8",
        SENTENCE_MODEL | {POOLING: {"embedding_dimension": 16}},
    ),
    "a dense layer of another width": (
        "/2_Dense: takes 16 values but receives 8",
        PROJECTING | {DENSE: PROJECTION | {"in_features": 16}},
    ),
    "a second dense layer of another width": (
        "/3_Dense: takes 8 values but receives 4",
        PROJECTING
        | {
            MODULES: [TRANSFORMER, POOLED, PROJECTED, PROJECTED_AGAIN],
            "3_Dense/config.json": PROJECTION,
            "3_Dense/model.safetensors": b"",
        },
    ),
    # Options of a dense layer
    "a residual": (
        "/2_Dense/config.json: use_residual isn't supported",
        PROJECTING | {DENSE: PROJECTION | {"use_residual": True}},
    ),
    "a projection of every token": (
        "/2_Dense/config.json: works on token_embeddings; only sentence_embedding is supported",
        PROJECTING | {DENSE: PROJECTION | {"module_input_name": "token_embeddings"}},
    ),
    "a projection put elsewhere": (
        "/2_Dense/config.json: works on other; only sentence_embedding is supported",
        PROJECTING | {DENSE: PROJECTION | {"module_output_name": "other"}},
    ),
    "an activation that is code of the folder": (
        "/2_Dense/config.json: the activation modeling.Act isn't one of torch.nn's",
        PROJECTING | {DENSE: PROJECTION | {"activation_function": "modeling.Act"}},
    ),
    "a normalisation of every token": (
        "/9_Norm/config.json: ",
        SENTENCE_MODEL
        | {
            MODULES: [TRANSFORMER, POOLED, NORMALIZED],
            "9_Norm/config.json": {"module_input_name": "token_embeddings"},
        },
    ),
    # Prompts
    "a default prompt that isn't there": (
        "/config_sentence_transformers.json: default_prompt_name is 'query', which isn't one of the prompts",
        SENTENCE_MODEL | {PROMPTS: {"prompts": {"passage": "p: "}, "default_prompt_name": "query"}},
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_honoured_is_refused_by_its_file(case: str, tmp_path: Path) -> None:
    expected, files = REFUSALS[case]

    said = refusal(tmp_path, files)

    assert said.startswith(expected)


def test_a_path_out_of_the_folder_by_a_link_is_refused(tmp_path: Path) -> None:
    outside = lay(tmp_path / "outside", {"config.json": {"pooling_mode": "cls"}})
    folder = lay(tmp_path / "model", PLAIN | {MODULES: [TRANSFORMER, POOLED]})
    (folder / "1_Pooling").symlink_to(outside)

    with pytest.raises(CheckpointError, match="leads outside the folder"):
        read_recipe(folder)


def test_files_that_are_links_are_read(tmp_path: Path) -> None:
    """A hub's cache keeps the files elsewhere and links to them."""
    blobs = lay(tmp_path / "blobs", SENTENCE_MODEL)
    folder = tmp_path / "snapshot"
    for name in SENTENCE_MODEL:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(blobs / name)

    recipe = read_recipe(folder)

    assert (("mean",), POOLING) == (recipe.pooling, recipe.pooling_source)
