"""What can't be run as it was trained is refused in one sentence: the file, what is wrong, and the way out.

Only JSON is read here, so the weights are empty files.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from checkpoints import write_files, write_steps, write_transformer

from nearfar.core.errors import CheckpointError
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
BERT: dict[str, object] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 768,
    "max_position_embeddings": 512,
}
QWEN2 = BERT | {"architectures": ["Qwen2Model"], "model_type": "qwen2"}
NOMIC: dict[str, object] = {  # as nomic-embed-text-v1.5 has it, but for what changes nothing
    "architectures": ["NomicBertModel"],
    "model_type": "nomic_bert",
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "n_positions": 8192,
    "activation_function": "swiglu",
    "causal": False,
    "layer_norm_epsilon": 1e-12,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "n_embd": 768,
    "n_head": 12,
    "n_inner": 3072,
    "n_layer": 12,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
}
JINA_V2 = {"auto_map": {"AutoConfig": "x", "AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"}}
JINA_V3 = {
    "model_type": "xlm-roberta",
    "position_embedding_type": "rotary",
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
}
NO_MODEL = "has no config.json, so it isn't a transformers or sentence-transformers model"
CUSTOM = [{"path": "", "type": "custom_st.Transformer"}]


def plain(config: object = BERT, **files: object) -> dict[str, object]:
    return {CONFIG: config, WEIGHTS: b"", **files}


# What the folder has → its name, how the sentence starts after the folder's path, and the way out.
REFUSALS: dict[str, tuple[str, Mapping[str, object], str, str]] = {
    "jina v2": (
        "jina-embeddings-v2-base-en",
        plain(BERT | JINA_V2 | {"position_embedding_type": "alibi"}),
        "/config.json: needs remote code (jinaai/jina-bert-implementation--modeling_bert.JinaBertModel)",
        "use a model that transformers has code for, or remove auto_map if transformers' own bert gives the same",
    ),
    "jina v3": (
        "jina-embeddings-v3",
        plain(BERT | JINA_V3),
        "/config.json: needs remote code",
        "use jinaai/jina-embeddings-v3-hf, the same model for transformers' own code",
    ),
    "gte-multilingual": (
        "gte-multilingual-base",
        plain(BERT | {"model_type": "new", "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"}}),
        "/config.json: needs remote code (Alibaba-NLP/new-impl--modeling.NewModel), which is never run",
        "use alibaba-nlp-community/gte-multilingual-base, the same model",
    ),
    "gte-Qwen2, whose code sees the whole text": (
        "gte-Qwen2-7B-instruct",
        plain(QWEN2 | {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}),
        "/config.json: needs remote code (modeling_qwen.Qwen2Model)",
        "remove auto_map if transformers' own qwen2 gives the same numbers",
    ),
    "gte-Qwen2 without its code": (
        "gte-Qwen2-7B-instruct",
        plain(QWEN2),
        "/config.json: Alibaba-NLP/gte-Qwen2-7B-instruct was trained without a causal mask",
        'add "is_causal": false to it',
    ),
    "a reranker with code of its own": (
        "reranker",
        plain(BERT | {"auto_map": {"AutoModelForSequenceClassification": "modeling.Mine"}}),
        "/config.json: needs remote code (modeling.Mine)",
        "use a model that transformers has code for",
    ),
    "steps with code of their own": (
        "custom",
        plain(**{"modules.json": CUSTOM}),
        "/modules.json: custom_st.Transformer is remote code, which is never run",
        "use a version with sentence-transformers' own steps",
    ),
    "Nomic's mixture of experts": (
        "nomic-embed-text-v2-moe",
        plain(NOMIC | {"moe_every_n_layers": 2, "num_experts": 8, "activation_function": "gelu"}),
        "/config.json: is a mixture of experts, which transformers' nomic_bert doesn't support",
        "use nomic-ai/nomic-embed-text-v1.5",
    ),
    "an encoder with a decoder": (
        "sentence-t5-base",
        plain(BERT | {"model_type": "t5", "is_encoder_decoder": True}),
        "/config.json: t5 is an encoder with a decoder, which isn't supported",
        "use a model that is only one of them",
    ),
    "alibi": (
        "someone-s",
        plain(BERT | {"position_embedding_type": "alibi"}),
        "/config.json: position_embedding_type = alibi isn't supported",
        "use another model",
    ),
    "an adapter alone": (
        "lora",
        {"adapter_config.json": {"base_model_name_or_path": "Qwen/Qwen3-0.6B"}, "adapter_model.safetensors": b""},
        "/adapter_config.json: the folder contains only an adapter",
        "merge it into Qwen/Qwen3-0.6B with peft",
    ),
    "an adapter of nobody knows what": (
        "lora",
        {"adapter_config.json": {"base_model_name_or_path": None}},
        "/adapter_config.json: the folder contains only an adapter",
        "merge it into its base model with peft",
    ),
    "an adapter beside the model": (
        "lora",
        plain(**{"adapter_config.json": {}}),
        "/adapter_config.json: adapters aren't applied",
        "merge one into the weights with peft",
    ),
    "jina v3's adapters, one a task": (
        "jina-embeddings-v3-hf",
        plain(
            BERT | {"model_type": "jina_embeddings_v3"},
            **{"retrieval_query/adapter_config.json": {}, "classification/adapter_config.json": {}},
        ),
        "/classification/adapter_config.json: adapters aren't applied",
        "remove the adapters to serve the model without",
    ),
    "only pickled weights": (
        "old",
        {CONFIG: BERT, "pytorch_model.bin": b""},
        ": has only pickled weights, which can run code",
        "convert them: nearfar unpickle",
    ),
    "no weights": ("none", {CONFIG: BERT}, ": has no *.safetensors", "download the model again with its weights"),
    "weights for llama.cpp": (
        "bge-m3-GGUF",
        {CONFIG: BERT, "bge-m3-Q4_K_M.gguf": b""},
        ": has weights only for GGUF",
        "use the original with its *.safetensors",
    ),
    "weights for ONNX Runtime": (
        "all-MiniLM-L6-v2",
        {CONFIG: BERT, "onnx/model.onnx": b""},
        ": has weights only for ONNX",
        "use the original with its *.safetensors",
    ),
    "weights of PyTorch Lightning": (
        "mine",
        {CONFIG: BERT, "last.ckpt": b""},
        ": has weights only for PyTorch Lightning",
        "use the original with its *.safetensors",
    ),
    "only OpenVINO's weights": (
        "bge-m3-ov",
        {CONFIG: BERT, "openvino_model.xml": b"", "openvino_model.bin": b"x"},
        ": has weights only for OpenVINO",
        "use the original with its *.safetensors",
    ),
    "a config that Git LFS left out": (
        "cloned",
        plain(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 711661\n"),
        "/config.json: is a Git LFS pointer, not the file",
        "run git lfs pull",
    ),
    "nothing but GGUF": (
        "bge-m3-GGUF",
        {"bge-m3-Q4_K_M.gguf": b""},
        f": {NO_MODEL}, but one for GGUF",
        "use the original with its *.safetensors",
    ),
    "models in folders": (
        "models",
        {f"{name}/{file}": content for name in ("b", "a", "c", "d") for file, content in plain().items()},
        f": {NO_MODEL}",
        "use one of the models in it: a, b, c …",
    ),
    "a hub's cache": (
        "models--BAAI--bge-m3",
        {f"snapshots/5617a9f/{file}": content for file, content in plain().items()},
        f": {NO_MODEL}",
        "use one of the models in it: snapshots/5617a9f",
    ),
    "an empty folder": ("empty", {}, f": {NO_MODEL}", "use a folder that has one, or a model on the hub"),
    "a config that is no JSON": (
        "broken",
        plain(b"<!doctype html>"),
        "/config.json: is damaged: ",
        "download the model again, or correct the file",
    ),
    "a config without a model_type": (
        "older",
        plain({"hidden_size": 8}),
        "/config.json: has unexpected content: Object missing required field `model_type`",
        "correct the file, or use another model",
    ),
    **{
        kind: (kind, plain(config | {"model_type": kind}), f"/config.json: {kind} is a model of {of}", "use a model of")
        for kind, config, of in (
            ("clip", {"text_config": {}, "vision_config": {}}, "texts and images"),
            ("siglip", {"text_config": {}, "vision_config": {}, "hidden_size": None}, "texts and images"),
            ("colqwen2", {"vlm_config": {}, "embedding_dim": 128}, "texts and images"),
            ("vit", {"hidden_size": 8, "image_size": 32}, "images"),
            ("whisper", {"d_model": 8, "num_mel_bins": 80, "vocab_size": 9}, "texts and sounds"),
            ("wav2vec2-bert", {"num_mel_bins": 80}, "sounds"),
        )
    },
    "a pooling that isn't there": (
        "someone-s",
        plain(
            **{
                "modules.json": [
                    {"path": "", "type": "sentence_transformers.models.Transformer"},
                    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                ]
            }
        ),
        "/1_Pooling/config.json: can't be read (No such file or directory)",
        "download the model again",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_names_the_file_and_the_way_out_in_one_sentence(case: str, tmp_path: Path) -> None:
    name, files, start, way_out = REFUSALS[case]
    folder = write_files(tmp_path / name, files)
    folder.mkdir(exist_ok=True)

    with pytest.raises(CheckpointError) as refused:
        read_recipe(folder)

    message = str(refused.value)
    assert message.startswith(f"{folder}{start}")
    assert f"; {way_out}" in message or way_out in message.rpartition("; ")[2]
    assert "\n" not in message
    assert not message.endswith(".")


@pytest.mark.parametrize("option", [*NOMIC][4:])
def test_an_option_that_transformers_nomic_bert_ignores_is_refused(option: str, tmp_path: Path) -> None:
    """Its class reads other names, and would use its own defaults: those of nomic-embed-text-v1.5."""
    read_recipe(write_files(tmp_path / "nomic-embed-text-v1.5", plain(NOMIC)))
    folder = write_files(tmp_path / "other", plain(NOMIC | {option: 7}))

    with pytest.raises(
        CheckpointError, match=rf"other/config.json: {option} = 7 is ignored by .*; use a version saved"
    ):
        read_recipe(folder)


def test_but_not_if_transformers_own_name_has_the_same_value(tmp_path: Path) -> None:
    sizes = {"n_layer": 2, "num_hidden_layers": 2, "rotary_emb_base": 7, "rope_parameters": {"rope_theta": 7}}

    assert "nomic_bert" == read_recipe(write_files(tmp_path, plain(NOMIC | sizes))).model_type


@pytest.mark.parametrize("kind", ["nomic_bert", "gte", "eurobert", "jina_embeddings_v3", "modernbert", "llama_bidirec"])
def test_remote_code_that_transformers_now_contains_is_no_obstacle(kind: str, tmp_path: Path) -> None:
    config = BERT | {"model_type": kind, "auto_map": {"AutoModel": "modeling.Theirs"}}

    assert kind == read_recipe(write_files(tmp_path, plain(config))).model_type


def test_gte_qwen2_runs_if_its_config_is_not_causal(tmp_path: Path) -> None:
    recipe = read_recipe(write_files(tmp_path, plain(QWEN2 | {"is_causal": False})), name="gte-Qwen2-1.5B-instruct")

    assert ("lasttoken",) == recipe.pooling


class TestLostEnd:
    """E5-Mistral's vector is that of an end token that transformers 5 no longer adds."""

    @pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
    def test_a_tokenizer_that_does_not_add_the_configured_end_token_is_refused(
        self, family: str, tmp_path: Path
    ) -> None:
        folder = self._asking(tmp_path, family)
        recipe = read_recipe(folder)

        with pytest.raises(
            CheckpointError, match=r"tokenizer_config.json: add_eos_token is set.*; add it to the post_"
        ):
            TextEncoder(folder, recipe)

    @pytest.mark.parametrize("family", ["qwen3", "bert"])
    def test_one_that_adds_it_or_pools_otherwise_is_not(self, family: str, tmp_path: Path) -> None:
        folder = self._asking(tmp_path, family)
        recipe = read_recipe(folder)

        TextEncoder(folder, recipe)

    def test_nor_is_a_model_that_pools_another_token(self, tmp_path: Path) -> None:
        folder = self._asking(tmp_path, "llama")
        write_steps(folder, "mean")
        recipe = read_recipe(folder)

        TextEncoder(folder, recipe)

    @pytest.mark.parametrize("asked", [None, False])
    def test_nor_is_one_without_add_eos_token(self, asked: bool | None, tmp_path: Path) -> None:
        folder = self._asking(tmp_path, "llama", asked=asked)
        recipe = read_recipe(folder)

        TextEncoder(folder, recipe)

    def _asking(self, tmp_path: Path, family: str, *, asked: bool | None = True) -> Path:
        folder = write_transformer(tmp_path / "model", family)
        message = json.loads((folder / "tokenizer_config.json").read_text())
        return write_files(folder, {"tokenizer_config.json": message | {"add_eos_token": asked}})
