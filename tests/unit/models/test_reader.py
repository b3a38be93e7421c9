"""A folder's JSON files become one Recipe; what isn't supported is refused, naming the file.

Only JSON is read here, so the weights are empty files.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from checkpoints import write_files, write_transformer
from llm_reranker_models import write_llm_reranker
from safetensors.torch import save

from nearfar import ModelSettings, Settings
from nearfar.core.errors import CheckpointError, SettingsError
from nearfar.models.reading.reader import read_recipe
from nearfar.models.reading.transformer_options import OFFSET_POSITIONS
from nearfar.models.recipe.dense import ACTIVATIONS, POOLINGS, Dense, LayerNorm, Normalize
from nearfar.serving.registry.discovery import discover_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nearfar.core.types import Task
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
    return {"idx": "0", "name": path or kind, "path": path, "type": f"sentence_transformers.models.{kind}"}


TRANSFORMER, POOLED, NORMALIZED = module("Transformer"), module("Pooling", "1_Pooling"), module("Normalize", "9_Norm")
PROJECTED, PROJECTED_AGAIN = module("Dense", "2_Dense"), module("Dense", "3_Dense")
PROJECTION: dict[str, object] = {
    "in_features": 8,
    "out_features": 4,
    "bias": True,
    "activation_function": "torch.nn.Tanh",
}
SAVED_BY_6: dict[str, object] = {
    CONFIG: RERANKER,
    MODULES: [TRANSFORMER],
    SENTENCE: {"transformer_task": "sequence-classification"},
}
SENTENCE_MODEL: dict[str, object] = PLAIN | {MODULES: [TRANSFORMER, POOLED], POOLING: {"word_embedding_dimension": 8}}
PROJECTING: dict[str, object] = SENTENCE_MODEL | {
    MODULES: [TRANSFORMER, POOLED, PROJECTED],
    DENSE: PROJECTION,
    "2_Dense/model.safetensors": b"",
}


def read_each(folder: Path, *each: Mapping[str, object], max_tokens: int | None = None) -> list[Recipe]:
    """Read a recipe from each of these sets of files."""
    return [read_recipe(write_files(folder / str(at), files), max_tokens) for at, files in enumerate(each)]


def refusal(folder: Path, files: Mapping[str, object], max_tokens: int | None = None) -> str:
    """Return the sentence with which these files are refused, without the folder's own path."""
    write_files(folder, files)
    try:
        read_recipe(folder, max_tokens)
    except CheckpointError as error:
        return str(error).replace(str(folder), "")
    return "not refused"


class TestWithoutModules:
    """A folder of transformers alone gets its architecture's usual pooling, stated as its source."""

    def test_an_encoder_is_pooled_by_mean_and_a_decoder_at_its_last_token(self, tmp_path: Path) -> None:
        encoders = ["bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "modernbert", "electra", "unheard-of"]
        encoders += ["xlnet", "bert-generation", "eurobert", "gte", "lfm3-of-tomorrow"]
        decoders = ["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2", "opt"]
        decoders += ["granite", "smollm3", "cohere2", "starcoder2", "lfm2", "qwen2_moe", "glm", "stablelm", "mamba"]
        kinds = [*encoders, *decoders]

        recipes = read_each(tmp_path, *(PLAIN | {CONFIG: BERT | {"model_type": kind}} for kind in kinds))

        ends = "; the folder has no modules.json"
        expected = dict.fromkeys(encoders, (("mean",), f"default for encoders{ends}", True))
        expected |= dict.fromkeys(decoders, (("lasttoken",), f"default for decoders{ends}", True))
        assert expected == {
            recipe.model_type: (recipe.pooling, recipe.pooling_source, recipe.normalize) for recipe in recipes
        }

    def test_config_json_decides_for_models_that_may_be_both(self, tmp_path: Path) -> None:
        configs: list[dict[str, object]] = [
            BERT | {"is_decoder": True},
            BERT | {"model_type": "llama", "is_causal": False},
            BERT | {"model_type": "gemma3_text", "use_bidirectional_attention": True},
        ]

        recipes = read_each(tmp_path, *(PLAIN | {CONFIG: config} for config in configs))

        assert [("lasttoken",), ("mean",), ("mean",)] == [recipe.pooling for recipe in recipes]

    def test_config_json_is_read(self, tmp_path: Path) -> None:
        table: list[tuple[dict[str, object], dict[str, object]]] = [
            ({"architecture": "BertModel", "model_type": "bert", "task": "embed"}, BERT),
            ({"hidden_size": 8, "dim": 8, "pad_token_id": 0, "layers": (), "lower_case": False}, BERT),
            ({"prompts": {}, "default_prompt": None}, BERT),
            ({"architecture": "unknown"}, BERT | {"architectures": None}),
            ({"pad_token_id": 5}, BERT | {"pad_token_id": 5}),
            ({"pad_token_id": None}, BERT | {"pad_token_id": None}),
            ({"pad_token_id": None}, BERT | {"pad_token_id": -1}),
            ({"hidden_size": 6, "max_tokens": 32}, {"model_type": "gpt2", "n_embd": 6, "n_positions": 32}),
            ({"hidden_size": 6}, {"model_type": "distilbert", "dim": 6, "max_position_embeddings": 32}),
            (
                {"hidden_size": 6},
                {"model_type": "t5", "is_encoder_decoder": False, "d_model": 6, "max_position_embeddings": 32},
            ),
        ]

        recipes = read_each(tmp_path, *(PLAIN | {CONFIG: config} for _, config in table))

        actual = [
            {name: getattr(recipe, name) for name in row} for (row, _), recipe in zip(table, recipes, strict=True)
        ]
        assert [row for row, _ in table] == actual

    def test_a_config_without_hidden_size_is_refused(self, tmp_path: Path) -> None:
        """Else /info would show vectors of 0 numbers."""
        config = {name: value for name, value in BERT.items() if name != "hidden_size"}

        assert refusal(tmp_path, PLAIN | {CONFIG: config}).startswith("/config.json: has no hidden_size; add it")


class TestPooling:
    def test_modes_are_read_in_both_formats(self, tmp_path: Path) -> None:
        """Flags have sentence-transformers' order, whatever the file's; a list has its own."""
        flag = "pooling_mode_{}".format
        flags = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
        table: list[tuple[tuple[str, ...], dict[str, object]]] = [
            (("cls",), {flag("cls_token"): True, flag("mean_tokens"): False}),
            (("max",), {flag("max_tokens"): True}),
            (("mean",), {flag("mean_tokens"): True, flag("cls_token"): False}),
            (("mean_sqrt_len_tokens",), {flag("mean_sqrt_len_tokens"): True}),
            (("weightedmean",), {flag("weightedmean_tokens"): True}),
            (("lasttoken",), {flag("lasttoken"): True}),
            (("mean",), {}),
            (("mean",), {flag("mean_tokens"): False, flag("cls_token"): False}),
            (("cls",), {"pooling_mode": ["cls"]}),
            (("cls",), {"pooling_mode": "cls", flag("mean_tokens"): True}),
            (("mean",), {"embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": True}),
            (("cls", "mean"), {flag("mean_tokens"): True, flag("cls_token"): True}),
            (POOLINGS, {flag(name): True for name in reversed(flags)}),
            (("cls", "mean"), {"pooling_mode": ["cls", "mean"]}),
            (("mean", "cls"), {"pooling_mode": ["mean", "cls"]}),
        ]

        table += [((mode,), {"pooling_mode": mode}) for mode in POOLINGS]

        recipes = read_each(tmp_path, *(SENTENCE_MODEL | {POOLING: values} for _, values in table))

        assert [(modes, POOLING, 8 * len(modes)) for modes, _ in table] == [
            (recipe.pooling, recipe.pooling_source, recipe.dim) for recipe in recipes
        ]


class TestSteps:
    def test_vectors_are_normalized_only_if_the_folder_says_so(self, tmp_path: Path) -> None:
        steps = ([TRANSFORMER, POOLED], [TRANSFORMER, POOLED, NORMALIZED])

        without, normalized = read_each(tmp_path, *(SENTENCE_MODEL | {MODULES: modules} for modules in steps))

        assert (False, True) == (without.normalize, normalized.normalize)

    def test_dense_layers_follow_the_pooling_in_order(self, tmp_path: Path) -> None:
        second = {"in_features": 4, "out_features": 2, "bias": False, "activation_function": "torch.nn.Identity"}
        files = {
            MODULES: [TRANSFORMER, POOLED, PROJECTED, PROJECTED_AGAIN, NORMALIZED],
            "3_Dense/config.json": second,
            "3_Dense/model.safetensors": b"",
        }
        write_files(tmp_path, PROJECTING | files)

        recipe = read_recipe(tmp_path)

        expected = [(tmp_path / "2_Dense", 8, 4, True, "Tanh"), (tmp_path / "3_Dense", 4, 2, False, "Identity")]
        assert expected == [
            (dense.file.parent, dense.in_features, dense.out_features, dense.bias, dense.activation)
            for dense in recipe.weighted_layers
            if isinstance(dense, Dense)
        ]
        assert recipe.dim == 2
        assert recipe.normalize

    def test_a_dense_layer_takes_the_outputs_of_several_pooling_modes(self, tmp_path: Path) -> None:
        files = {POOLING: {"pooling_mode": ["cls", "mean"]}, DENSE: PROJECTION | {"in_features": 16}}
        write_files(tmp_path, PROJECTING | files)

        recipe = read_recipe(tmp_path)

        assert recipe.dim == 4

    def test_a_dense_layers_missing_options_have_the_librarys_defaults(self, tmp_path: Path) -> None:
        write_files(tmp_path, PROJECTING | {DENSE: {"in_features": 8, "out_features": 4}})

        (dense,) = read_recipe(tmp_path).layers

        assert isinstance(dense, Dense)
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
        write_files(tmp_path, PROJECTING | files)

        recipe = read_recipe(tmp_path)

        assert (("mean",), 1, True) == (recipe.pooling, len(recipe.layers), recipe.normalize)

    def test_other_steps_may_follow_and_dropout_does_nothing(self, tmp_path: Path) -> None:
        kinds = ["Normalize", "Dense", "LayerNorm", "Dropout", "Normalize", "Normalize"]
        steps = [module(kind, f"{at}_{kind}") for at, kind in enumerate(kinds)]
        files = {
            MODULES: [TRANSFORMER, POOLED, *steps],
            "1_Dense/config.json": PROJECTION | {"use_residual": True, "activation_function": "torch.nn.PReLU"},
            "1_Dense/model.safetensors": b"",
            "2_LayerNorm/config.json": {"dimension": 4},
            "2_LayerNorm/model.safetensors": b"",
        }

        recipe = read_recipe(write_files(tmp_path, SENTENCE_MODEL | files))

        assert [Normalize, Dense, LayerNorm] == [type(layer) for layer in recipe.layers]
        assert recipe.normalize
        assert {"linear.weight", "linear.bias", "residual.weight", "activation_function.weight"} == {
            *recipe.weighted_layers[0].tensors
        }

    def test_a_saved_truncation_follows_the_normalization(self, tmp_path: Path) -> None:
        """Vectors aren't scaled to unit length again."""
        steps = {MODULES: [TRANSFORMER, POOLED, NORMALIZED]}
        table = [{"truncate_dim": 3}, {"truncate_dim": 8}, {"truncate_dim": None}]

        cut, *whole = read_each(tmp_path, *(SENTENCE_MODEL | steps | {PROMPTS: values} for values in table))

        assert (3, (Normalize(),), False) == (cut.dim, cut.layers, cut.normalize)
        assert [(8, (), True)] * 2 == [(recipe.dim, recipe.layers, recipe.normalize) for recipe in whole]

    def test_the_similarity_is_the_stated_one(self, tmp_path: Path) -> None:
        table = ["cosine", "dot", "euclidean", "manhattan", "maxsim", None]

        recipes = read_each(tmp_path, *(SENTENCE_MODEL | {PROMPTS: {"similarity_fn_name": name}} for name in table))

        expected = ["cosine", "dot", "euclidean", "manhattan", "cosine", "cosine"]
        assert expected == [recipe.similarity for recipe in recipes]

    def test_the_transformer_may_have_a_folder_of_its_own(self, tmp_path: Path) -> None:
        """As the first versions of sentence-transformers saved it."""
        files = {MODULES: [module("Transformer", "0_Transformer"), POOLED], POOLING: {"pooling_mode": "cls"}}
        inner = {f"0_Transformer/{name}": content for name, content in PLAIN.items()}
        limit = {"0_Transformer/sentence_bert_config.json": {"max_seq_length": 7}}

        recipe = read_recipe(write_files(tmp_path, files | inner | limit))

        assert ("0_Transformer", ("cls",), 7) == (recipe.subfolder, recipe.pooling, recipe.max_tokens)

    def test_every_activation_of_torch_without_arguments_is_known(self) -> None:
        """Others change a vector's length or need more than one input."""
        kinds = [*vars(torch.nn.modules.activation).values(), torch.nn.Identity]
        found = set()
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, torch.nn.Module):
                with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
                    if kind().eval()(torch.ones(2, 6)).shape == (2, 6):
                        found.add(kind.__name__)

        assert found == ACTIVATIONS


class TestMaxTokens:
    def test_the_limit_is_the_stated_one_but_never_over_the_positions(self, tmp_path: Path) -> None:
        table: list[tuple[int, dict[str, object]]] = [
            (32, {SENTENCE: {"max_seq_length": 32}, TOKENIZER: {"model_max_length": 48}}),
            (48, {SENTENCE: {"max_seq_length": 48}, TOKENIZER: {"model_max_length": 32}}),
            (48, {TOKENIZER: {"model_max_length": 48}}),
            (48, {TOKENIZER: {"max_len": 48}}),
            (48, {SENTENCE: {"max_seq_length": None}, TOKENIZER: {"model_max_length": 48}}),
            (64, {}),
            (64, {SENTENCE: {"max_seq_length": 100}}),
            (64, {TOKENIZER: {"model_max_length": 100}}),
            (64, {TOKENIZER: {"model_max_length": 1e30}}),
            (64, {TOKENIZER: {"model_max_length": int(1e30)}}),
            (48, {TOKENIZER: {"model_max_length": 48.0}}),
            (512, {CONFIG: WITHOUT_LIMIT, TOKENIZER: {"model_max_length": 512}}),
        ]

        recipes = read_each(tmp_path, *(PLAIN | files for _, files in table))

        assert [limit for limit, _ in table] == [recipe.max_tokens for recipe in recipes]

    def test_positions_that_the_roberta_family_never_uses_are_not_counted(self, tmp_path: Path) -> None:
        """They count positions from the padding id + 1; the id is 1 unless stated."""
        table = [
            (limit, {"model_type": kind} | padding)
            for kind in OFFSET_POSITIONS
            for limit, padding in ((64, {"pad_token_id": 1}), (64, {}), (62, {"pad_token_id": 3}))
        ]

        plain = {name: value for name, value in ROBERTA.items() if name != "pad_token_id"}

        recipes = read_each(tmp_path, *(PLAIN | {CONFIG: plain | config} for _, config in table))

        assert [limit for limit, _ in table] == [recipe.max_tokens for recipe in recipes]

    def test_the_list_of_that_family_is_complete(self) -> None:
        """Their modeling files number positions from the ids, with the padding id as the first."""
        from transformers.models.auto.configuration_auto import model_type_to_module_name
        from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

        models = Path(transformers.__file__).parent / "models"
        table = re.compile(r"self\.position_embeddings = nn\.Embedding\([^)]*padding_idx=self\.padding_idx", re.DOTALL)

        found = set()
        for kind in TOKENIZER_MAPPING_NAMES:
            name = model_type_to_module_name(kind)
            sources = (models / name).glob(f"modeling_{kind.replace('-', '_')}.py")
            if any(table.search(source.read_text(encoding="utf-8")) for source in sources):
                found.add(kind)

        assert len(found) > len(OFFSET_POSITIONS) // 2
        assert set() == found - OFFSET_POSITIONS - {"altclip", "bridgetower", "clap", "pp_doclayout_v2"}  # not for text

    def test_a_stated_limit_may_exceed_the_positions_of_a_model_without_a_table(self, tmp_path: Path) -> None:
        """Such as rotary ones: sentence-transformers caps only a limit that it wasn't given."""
        rotary = {name: torch.zeros(1) for name in ("layers.0.weight", "embed_tokens.weight")}
        learned = rotary | {"embeddings.position_embeddings.weight": torch.zeros(64, 1)}
        table: list[tuple[int, dict[str, torch.Tensor], dict[str, object]]] = [
            (100, rotary, {SENTENCE: {"max_seq_length": 100}}),
            (64, learned, {SENTENCE: {"max_seq_length": 100}}),
            (100, rotary, {SENTENCE: {"tokenizer_args": {"model_max_length": 100}, "max_seq_length": 9}}),
            (100, rotary, {SENTENCE: {"processing_kwargs": {"text": {"max_length": 100}}, "max_seq_length": 9}}),
            (64, rotary, {TOKENIZER: {"model_max_length": 100}}),
            (32, rotary, {TOKENIZER: {"model_max_length": 32}}),
        ]

        recipes = read_each(tmp_path, *(PLAIN | files | {WEIGHTS: save(weights)} for _, weights, files in table))

        assert [limit for limit, *_ in table] == [recipe.max_tokens for recipe in recipes]

    def test_the_settings_may_override_the_limit(self, tmp_path: Path) -> None:
        table: list[tuple[int, dict[str, object]]] = [
            (16, {}),
            (64, {}),
            (16, {SENTENCE: {"max_seq_length": 32}}),
            (60, {SENTENCE: {"max_seq_length": 32}, TOKENIZER: {"model_max_length": 48}}),
            (999, {CONFIG: WITHOUT_LIMIT}),
        ]

        recipes = [
            read_recipe(write_files(tmp_path / str(at), PLAIN | files), limit)
            for at, (limit, files) in enumerate(table)
        ]

        assert [limit for limit, _ in table] == [recipe.max_tokens for recipe in recipes]

    @pytest.mark.parametrize("config", [BERT, ROBERTA | {"pad_token_id": 1}])
    def test_but_not_beyond_the_positions(self, config: dict[str, object], tmp_path: Path) -> None:
        message = refusal(tmp_path, PLAIN | {CONFIG: config}, max_tokens=65)

        assert message == ": max_tokens = 65 exceeds the model's 64 positions"

    @pytest.mark.parametrize("tokenizer", [{}, {"model_max_length": None}, {"model_max_length": 1e30}])
    def test_a_folder_without_any_limit_asks_for_one(self, tokenizer: dict[str, object], tmp_path: Path) -> None:
        message = refusal(tmp_path, PLAIN | {CONFIG: WITHOUT_LIMIT, TOKENIZER: tokenizer})

        assert message == ": none of its files states a limit in tokens; set max_tokens for this model"


class TestText:
    def test_prompts_are_kept_by_name_and_empty_ones_dropped(self, tmp_path: Path) -> None:
        both = {"query": "q: ", "document": ""}
        table: list[tuple[dict[str, str], str | None, dict[str, object]]] = [
            ({}, None, {}),
            ({}, None, {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}),
            ({"query": "q: "}, None, {"prompts": both}),
            ({"query": "q: "}, "query", {"prompts": both, "default_prompt_name": "query"}),
            ({"query": "q: "}, None, {"prompts": both, "default_prompt_name": "document"}),
        ]

        recipes = read_each(tmp_path, *(SENTENCE_MODEL | {PROMPTS: values} for *_, values in table))

        assert [(prompts, default) for prompts, default, _ in table] == [
            (recipe.prompts, recipe.default_prompt) for recipe in recipes
        ]

    def test_lowercasing_is_read_under_all_names_of_the_file(self, tmp_path: Path) -> None:
        """sentence-transformers looks for the older names if there is no sentence_bert_config.json."""
        for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"):
            for lower_case in (True, False, None):
                file = {f"sentence_{family}_config.json": {"max_seq_length": 32, "do_lower_case": lower_case}}

                recipe = read_recipe(write_files(tmp_path / f"{family} {lower_case}", SENTENCE_MODEL | file))

                assert (32, bool(lower_case)) == (recipe.max_tokens, recipe.lower_case), family


class TestClassifiers:
    def test_a_classifier_with_one_label_scores_pairs(self, tmp_path: Path) -> None:
        configs: list[dict[str, object]] = [
            {},
            {"id2label": None, "num_labels": 1},
            {"architectures": ["XLMRobertaForSequenceClassification"]},
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        ]

        recipes = read_each(tmp_path, *(PLAIN | {CONFIG: RERANKER | config} for config in configs))

        assert [("score", (), 0, 64)] * len(configs) == [
            (recipe.task, recipe.pooling, recipe.dim, recipe.max_tokens) for recipe in recipes
        ]

    def test_labels_are_in_the_order_of_the_logits(self, tmp_path: Path) -> None:
        """Transformers' default is two labels without names."""
        table: list[tuple[tuple[str, ...], dict[str, object]]] = [
            (("no", "maybe", "yes"), {"id2label": {"0": "no", "2": "yes", "1": "maybe"}}),
            (("LABEL_0", "LABEL_1"), {"id2label": None, "num_labels": 2}),
            (("LABEL_0", "LABEL_1"), {"id2label": None}),
        ]

        recipes = read_each(tmp_path, *(PLAIN | {CONFIG: RERANKER | config} for _, config in table))

        assert [(labels, False) for labels, _ in table] == [(recipe.labels, recipe.multi_label) for recipe in recipes]

    @pytest.mark.parametrize(
        "config",
        [
            {"problem_type": "multi_label_classification"},
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
        ],
    )
    def test_labels_may_be_independent(self, config: dict[str, object], tmp_path: Path) -> None:
        write_files(tmp_path, PLAIN | {CONFIG: RERANKER | {"id2label": None, "num_labels": 2} | config})

        assert read_recipe(tmp_path).multi_label

    @pytest.mark.parametrize(
        ("file", "values"),
        [
            (CONFIG, RERANKER | {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.ReLU"}}),
            (CONFIG, RERANKER | {"sbert_ce_default_activation_function": "torch.nn.modules.activation.ReLU"}),
            (PROMPTS, {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.ReLU"}),
        ],
    )
    def test_an_unsupported_activation_is_refused(self, file: str, values: dict[str, object], tmp_path: Path) -> None:
        message = refusal(tmp_path, PLAIN | SAVED_BY_6 | {file: values})

        stated = "torch.nn.modules.activation.ReLU"
        assert message.startswith(f"/{file}: the activation {stated} isn't supported; these are: Identity, Sigmoid,")

    def test_the_activation_of_version_6s_file_comes_first(self, tmp_path: Path) -> None:
        older = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}
        files = {CONFIG: RERANKER | older, PROMPTS: {"activation_fn": "torch.nn.modules.activation.Tanh"}}

        saved, alone = read_each(tmp_path, PLAIN | SAVED_BY_6 | files, PLAIN | files)

        assert (saved.activation, alone.activation) == ("Tanh", "Sigmoid")  # without modules.json its file isn't read

    def test_an_activation_that_is_null_comes_before_the_older_name(self, tmp_path: Path) -> None:
        older = {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}
        config = RERANKER | older | {"sentence_transformers": {"activation_fn": None}}

        recipe = read_recipe(write_files(tmp_path, PLAIN | {CONFIG: config}))

        assert recipe.activation == "Sigmoid"

    def test_a_cross_encoder_is_known_by_its_marks_and_steps(self, tmp_path: Path) -> None:
        """Version 6 writes modules.json for them, and a folder may lack its architectures."""
        bare: dict[str, object] = BERT | {"architectures": None}
        scores = PROJECTION | {"in_features": 8, "out_features": 1, "module_output_name": "scores"}
        table: list[dict[str, object]] = [
            {MODULES: [TRANSFORMER], SENTENCE: {"transformer_task": "sequence-classification"}, CONFIG: RERANKER},
            {PROMPTS: {"model_type": "CrossEncoder"}, CONFIG: bare},
            {CONFIG: bare | {"sentence_transformers": {"activation_fn": "torch.nn.Identity"}}},
            {CONFIG: bare | {"sbert_ce_default_activation_function": "torch.nn.Identity"}},
            {CONFIG: RERANKER | {"id2label": {"0": 0}}},
            {**PROJECTING, DENSE: scores},
        ]

        recipes = read_each(tmp_path, *(PLAIN | files for files in table))

        assert [("score", 1, ())] * len(table) == [
            (recipe.task, len(recipe.labels), recipe.outputs) for recipe in recipes
        ]
        assert recipes[4].labels == ("0",)
        assert recipes[5].pooling == ("mean",)

    def test_modules_with_pooling_make_an_embedder_of_a_classifier(self, tmp_path: Path) -> None:
        """As sentence-transformers does, which doesn't load the classifier's head then."""
        recipe = read_recipe(write_files(tmp_path, SENTENCE_MODEL | {CONFIG: RERANKER}))

        assert ("embed", ("mean",)) == (recipe.task, recipe.pooling)

    @pytest.mark.parametrize(
        ("architectures", "expected"),
        [
            (None, '/config.json: has no architectures, but the weights have classifier.weight; add "architectures"'),
            (
                ["BertForTokenClassification"],
                ": is a BertForTokenClassification, and its classifier.weight is of no",
            ),
        ],
    )
    def test_a_classifiers_head_without_a_use_is_refused(
        self, architectures: list[str] | None, expected: str, tmp_path: Path
    ) -> None:
        weights = save({"bert.x.weight": torch.zeros(1), "classifier.weight": torch.zeros(1, 8)})

        message = refusal(tmp_path, {CONFIG: BERT | {"architectures": architectures}, WEIGHTS: weights})

        assert message.startswith(expected)

    def test_the_default_prompt_precedes_each_query(self, tmp_path: Path) -> None:
        """sentence-transformers adds it to every pair since version 6, which writes modules.json."""
        values = {"model_type": "CrossEncoder", "prompts": {"web": "search: "}, "default_prompt_name": "web"}

        saved, alone = read_each(
            tmp_path, PLAIN | SAVED_BY_6 | {PROMPTS: values}, PLAIN | {CONFIG: RERANKER, PROMPTS: values}
        )

        assert (saved.pair_prompt, alone.pair_prompt) == ("search: ", "")


ONLY = "only Transformer, Pooling, Dense, LayerNorm, Normalize are supported, in this order, not: "
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
        f"{name} {how}": (f"/{name}: ", PROJECTING | {name: content})
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
        "/config.json: has unexpected content: ",
        PLAIN | {CONFIG: {"hidden_size": 8}},
    ),
    "a width that is no number": (
        "/config.json: has unexpected content: ",
        PLAIN | {CONFIG: BERT | {"hidden_size": "8"}},
    ),
    "a dense step without its widths": (
        "/2_Dense/config.json: has unexpected content: ",
        PROJECTING | {DENSE: {"bias": True}},
    ),
    # Steps
    "no step": (f"/modules.json: {ONLY}", SENTENCE_MODEL | {MODULES: []}),
    **{
        f"steps: {', '.join(kinds)}": (
            f"/modules.json: {ONLY}{', '.join(kinds)}",
            PROJECTING | {MODULES: [module(kind, f"{at}_{kind}" if at else "") for at, kind in enumerate(kinds)]},
        )
        for kinds in (
            ("Transformer",),
            ("Pooling",),
            ("Pooling", "Transformer"),
            ("Transformer", "Normalize"),
            ("Transformer", "Dense", "Pooling"),
            ("Transformer", "Pooling", "Pooling"),
        )
    },
    **{
        f"a step {kind}": (
            f"/modules.json: the step {kind}, ",
            PROJECTING | {MODULES: [module(one, f"{at}_{one}" if at else "") for at, one in enumerate(kinds)]},
        )
        for kind, *kinds in (
            ("WeightedLayerPooling", "Transformer", "WeightedLayerPooling", "Pooling"),
            ("CNN", "Transformer", "CNN", "Pooling"),
            ("WordEmbeddings", "WordEmbeddings", "Pooling"),
            ("StaticEmbedding", "StaticEmbedding"),
            ("CLIPModel", "CLIPModel"),
            ("Router", "Router"),
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
    "a transformer in a folder of its own that is missing": (
        "/0_Transformer: has no config.json",
        SENTENCE_MODEL | {MODULES: [module("Transformer", "0_Transformer"), POOLED]},
    ),
    "two steps of one name": (
        "/modules.json: two steps have the name '1_Pooling', of which sentence-transformers applies one",
        SENTENCE_MODEL | {MODULES: [TRANSFORMER, POOLED, NORMALIZED | {"name": "1_Pooling"}]},
    ),
    "a default prompt without a name": (
        f"/{PROMPTS}: default_prompt_name is '', which isn't one of the prompts",
        SENTENCE_MODEL | {PROMPTS: {"prompts": {"query": "q: "}, "default_prompt_name": ""}},
    ),
    "positions that are counted from no id": (
        f"/{CONFIG}: pad_token_id is null, but roberta counts positions from it",
        PLAIN | {CONFIG: ROBERTA | {"model_type": "roberta", "pad_token_id": None}},
    ),
    # Paths
    **{
        f"a path to {path}": (
            f"/modules.json: the path {path!r} leads outside the folder",
            SENTENCE_MODEL | {MODULES: [TRANSFORMER, module("Pooling", path)]},
        )
        for path in ("..", "../1_Pooling", "1_Pooling/../../x", "1_Pooling/../1_Pooling", "/etc")
    },
    **{
        f"a path that {what}": (
            f"/modules.json: {path[:50]!r} is no valid path",
            SENTENCE_MODEL | {MODULES: [TRANSFORMER, module("Pooling", path)]},
        )
        for what, path in {"is too long": "a" * 300, "has a NUL": "1_Pooling\0"}.items()
    },
    "a normalization outside": (
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
        ": its Pooling has include_prompt = false, which leaves the prompt's tokens out and is only supported for",
        SENTENCE_MODEL
        | {POOLING: {"pooling_mode": "weightedmean", "include_prompt": False}, PROMPTS: {"prompts": {"query": "q: "}}},
    ),
    "an option that pooling doesn't have": (
        "/1_Pooling/config.json: layers isn't an option of Pooling; remove it",
        SENTENCE_MODEL | {POOLING: {"pooling_mode": "mean", "layers": 2}},
    ),
    # Keys with which sentence-transformers' own class fails
    **{
        f"an option that {kind} doesn't have": (
            f"/2_{kind}/config.json: has unexpected content: Object contains unknown field `scale`",
            SENTENCE_MODEL
            | {
                MODULES: [TRANSFORMER, *([] if alone else [POOLED]), module(kind, f"2_{kind}")],
                f"2_{kind}/config.json": config | {"scale": 2},
            },
        )
        for kind, config, alone in (
            ("Dropout", {"dropout": 0.1}, False),
            ("LayerNorm", {"dimension": 8}, False),
            ("LogitScore", {"true_token_id": 1}, True),
            ("SpladePooling", {"pooling_strategy": "max"}, True),
        )
    },
    "an option that the transformer doesn't have": (
        f"/{SENTENCE}: has unexpected content: Object contains unknown field `scale`",
        SENTENCE_MODEL | {SENTENCE: {"scale": 2}},
    ),
    **{
        f"{name} of a model with one vector a text": (
            f"/{SENTENCE}: {name} is for the texts of one role",
            SENTENCE_MODEL | {SENTENCE: {name: value}},
        )
        for name, value in (("query_length", 8), ("document_length", 8), ("query_expansion", {"length": 8}))
    },
    "plain pairs for a language model": (
        f"/{SENTENCE}: modality_config has no message",
        SENTENCE_MODEL
        | {
            MODULES: [TRANSFORMER, module("LogitScore", "1_LogitScore")],
            "1_LogitScore/config.json": {"true_token_id": 1},
            SENTENCE: {
                "transformer_task": "text-generation",
                "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            },
        },
    ),
    "weights in a dense layer's configuration": (
        "/2_Dense/config.json: has unexpected content: Expected `null`, got `array` - at `$.init_bias`",
        PROJECTING | {DENSE: PROJECTION | {"init_bias": [0.0, 0.0]}},
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
    "a projection of every token": (
        "/2_Dense/config.json: works on token_embeddings; only sentence_embedding is supported",
        PROJECTING | {DENSE: PROJECTION | {"module_input_name": "token_embeddings"}},
    ),
    "a projection put elsewhere": (
        "/2_Dense/config.json: works on other; only sentence_embedding is supported",
        PROJECTING | {DENSE: PROJECTION | {"module_output_name": "other"}},
    ),
    "an activation that is code of the folder": (
        "/2_Dense/config.json: the activation modeling.Act isn't supported, only torch.nn's ",
        PROJECTING | {DENSE: PROJECTION | {"activation_function": "modeling.Act"}},
    ),
    "a normalization of every token": (
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


def test_what_is_not_supported_is_refused_by_its_file(tmp_path: Path) -> None:
    sentences = {case: refusal(tmp_path / str(at), files) for at, (case, (_, files)) in enumerate(REFUSALS.items())}

    assert not {case: found for case, found in sentences.items() if not found.startswith(REFUSALS[case][0])}


def test_a_path_out_of_the_folder_by_a_link_is_refused(tmp_path: Path) -> None:
    outside = write_files(tmp_path / "outside", {"config.json": {"pooling_mode": "cls"}})
    folder = write_files(tmp_path / "model", PLAIN | {MODULES: [TRANSFORMER, POOLED]})
    (folder / "1_Pooling").symlink_to(outside)

    with pytest.raises(CheckpointError, match="leads outside the folder"):
        read_recipe(folder)


def test_files_that_are_links_are_read(tmp_path: Path) -> None:
    """A hub's cache keeps the files elsewhere and links to them."""
    blobs = write_files(tmp_path / "blobs", SENTENCE_MODEL)
    folder = tmp_path / "snapshot"
    for name in SENTENCE_MODEL:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(blobs / name)

    recipe = read_recipe(folder)

    assert (("mean",), POOLING) == (recipe.pooling, recipe.pooling_source)


def test_the_task_decides_for_a_model_with_two_uses(tmp_path: Path) -> None:
    table: list[tuple[str, Task | None, tuple[str, ...]]] = [
        ("words", None, ("dense",)),
        ("words", "sparse", ("sparse",)),
        ("splade-v3", None, ("sparse",)),
        ("splade-v3", "embed", ("dense",)),
    ]
    masked = {CONFIG: BERT | {"architectures": ["BertForMaskedLM"], "vocab_size": 30}}

    for name, task, outputs in table:
        assert outputs == read_recipe(write_files(tmp_path / name, PLAIN | masked), task=task).outputs, (name, task)
    folder = write_llm_reranker(tmp_path, "qwen3-reranker")
    assert ["score", "score", "embed"] == [read_recipe(folder, task=task).task for task in (None, "rank", "embed")]


def test_a_task_that_the_model_does_not_have_is_refused(bert: Path) -> None:
    with pytest.raises(SettingsError, match="can't classify, only embed, rank"):
        discover_model(ModelSettings(name=str(bert), task="classify"), Settings(engine="torch"))
    two = write_transformer(bert.parent / "two", "bert", labels=2)
    with pytest.raises(SettingsError, match="can't rank, only classify: it has 2 labels, and a reranker has one"):
        discover_model(ModelSettings(name=str(two), task="rank"), Settings(engine="torch"))


def test_prompts_of_the_settings_are_refused_where_pooling_leaves_them_out(bert: Path) -> None:
    steps = {MODULES: [TRANSFORMER, POOLED], POOLING: {"pooling_mode": "weightedmean", "include_prompt": False}}
    write_files(bert, steps)
    settings = Settings(engine="torch", device="cpu")

    with pytest.raises(SettingsError, match="include_prompt = false"):
        discover_model(ModelSettings(name=str(bert), prompts={"query": "q: "}), settings)
    discover_model(ModelSettings(name=str(bert), prompts={"query": ""}), settings)
