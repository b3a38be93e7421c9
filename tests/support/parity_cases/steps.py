"""sentence-transformers' own files: modules.json and its steps, prompts, and sentence_bert_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoints import HIDDEN, write_files
from msgspec.structs import replace

from parity_cases.parts import (
    GONE,
    NORMALIZE,
    Checkpoint,
    Edit,
    Kind,
    Step,
    checkpoint,
    config_json,
    dense,
    edit_json,
    file,
    move,
    pooling,
    remove,
    rewrite,
    saved,
    sbert,
    st_config,
    tokenizer_config,
    weights,
    write_steps,
)

_MEAN = pooling("mean")
_NN = "torch.nn.modules.activation"
_PROMPTS = {"query": "Represent this sentence: ", "passage": "passage text: ", "sts": "STS: "}
_DENSE = "2_Dense/model.safetensors"


def _bert(*edits: Edit, steps: Any = "mean", **options: Any) -> Checkpoint:
    return checkpoint("bert", *edits, steps=steps, **options)


def _ones(*shape: int) -> Any:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(6))


def _pooled(modes: str, *, unit: bool = True) -> Checkpoint:
    return _bert(steps=[pooling(modes), NORMALIZE] if unit else [pooling(modes)])


def _pooling_config(**config: object) -> Checkpoint:
    return _bert(steps=[Step(name="Pooling", config=config), NORMALIZE])


def _module(name: str, build: str, *arguments: Any, first: bool = True, **options: Any) -> Checkpoint:
    """Return a case with one of sentence-transformers' rarer modules, before Pooling or after it."""

    def write(place: Path) -> None:
        import torch
        from sentence_transformers.sentence_transformer import modules

        torch.manual_seed(5)
        module = getattr(modules, build)(*arguments)
        if name == "LayerNorm":
            module.norm.weight.data.normal_()
        path = place / f"{1 if first else 2}_{name}"
        path.mkdir()
        module.save(str(path))

    steps = [Step(name=name), _MEAN, NORMALIZE] if first else [_MEAN, Step(name=name)]
    return _bert(write, steps=steps, **options)


def _st_model(folder: str, *, kind: str = "plain", **options: Any) -> Any:
    """Build a model of sentence-transformers 6 of the transformer in the folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(2)
    modules: list[Any] = [Transformer(folder, **({"max_seq_length": 100} if kind == "full" else {}))]
    if kind == "chat":
        modules.append(Pooling(HIDDEN, "lasttoken"))
    elif kind == "chat, no prompt":
        modules.append(Pooling(HIDDEN, "mean", include_prompt=False))
    elif kind == "full":
        modules += [Pooling(HIDDEN, ("mean", "cls")), Dense(2 * HIDDEN, 20, activation_function=torch.nn.GELU())]
    else:
        modules.append(Pooling(HIDDEN, "mean"))
    if kind != "chat":
        modules.append(Normalize())
    return SentenceTransformer(modules=modules, device="cpu", **options)


def _static(folder: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    torch.manual_seed(3)
    embedding = StaticEmbedding(Tokenizer.from_file(f"{folder}/tokenizer.json"), embedding_dim=HIDDEN)
    return SentenceTransformer(modules=[embedding, Normalize()], device="cpu")


def _old_folder(place: Path) -> None:
    """Move the transformer where old versions of sentence-transformers had it."""
    move("0_Transformer", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")(place)
    write_files(place, {"0_Transformer/sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False}})
    write_steps(place, [_MEAN, NORMALIZE], first="0_Transformer")


def _adapter(place: Path) -> None:
    from safetensors.torch import save_file

    write_files(
        place, {"adapter_config.json": {"base_model_name_or_path": "BAAI/bge-small-en-v1.5", "peft_type": "LORA"}}
    )
    save_file({"a": _ones(2)}, place / "adapter_model.safetensors")


def _model2vec(place: Path) -> None:
    from safetensors.torch import save_file

    remove("tokenizer_config.json")(place)
    save_file({"embeddings": _ones(400, HIDDEN)}, place / "model.safetensors")
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "tokenizer_name": "x", "hidden_dim": HIDDEN}
    write_files(place, {"config.json": config | {"apply_pca": HIDDEN, "apply_zipf": True, "normalize": True}})
    kinds = (("StaticEmbedding", "."), ("Normalize", "1_Normalize"))
    listed = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(kinds)
    ]
    write_files(place, {"modules.json": listed})


def _pickled(name: str) -> Edit:
    def edit(place: Path) -> None:
        import torch
        from safetensors.torch import load_file

        tensors = load_file(place / f"{name}model.safetensors")
        torch.save(tensors, place / f"{name}pytorch_model.bin")
        remove(f"{name}model.safetensors")(place)

    return edit


def _without_prompt(modes: str, family: str, *layers: Step, edit: Edit | None = None, **options: Any) -> Checkpoint:
    """Return a case with prompts that aren't pooled, one for each role."""
    prompts = st_config(prompts=_PROMPTS | {"document": "a text, to be found: "})
    steps = [pooling(modes, include_prompt=False), *layers, NORMALIZE]
    return _as("roles", checkpoint(family, prompts, *([edit] if edit else []), steps=steps, **options))


def _as(kind: Kind, case: Checkpoint) -> Checkpoint:
    return replace(case, kind=kind)


_BARE = [Step(name="Normalize")]
_CHAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
CASES: dict[str, Checkpoint] = {
    # Pooling
    "pooling_3": _pooled("cls mean max"),
    "pooling_6": _pooled("cls mean max msqrt wmean last", unit=False),
    "pooling_msqrt": _pooled("msqrt", unit=False),
    "pooling_no_flag": _pooled(""),
    "pooling_order_of_6": _pooling_config(embedding_dimension=HIDDEN, pooling_mode=["max", "cls"], include_prompt=True),
    "pooling_word": _pooling_config(embedding_dimension=HIDDEN, pooling_mode="weightedmean"),
    "pooling_word_and_flags": _pooling_config(
        word_embedding_dimension=HIDDEN, pooling_mode="cls", pooling_mode_mean_tokens=True
    ),
    "pooling_without_prompt": _bert(
        st_config(prompts={"query": "a query: "}, default_prompt_name="query"),
        steps=[pooling("mean", include_prompt=False), NORMALIZE],
    ),
    "pooling_without_prompt_and_dense": _without_prompt("mean", "bert", dense(24)),
    "pooling_without_prompt_of_roberta": _without_prompt("cls max", "roberta"),
    "pooling_without_prompt_of_decoder": _without_prompt("mean", "llama", head_dim=8),
    "pooling_without_prompt_of_decoder_last": _without_prompt("last", "qwen3", head_dim=8),
    "pooling_without_prompt_over_limit": _without_prompt("msqrt", "bert", edit=sbert(max_seq_length=8)),
    "pooling_without_prompt_weighted": _without_prompt("wmean", "bert"),
    "pooling_without_prompt_of_chat": saved(
        "embed",
        checkpoint("llama", file("chat_template.jinja", _CHAT), steps=None, head_dim=8),
        lambda folder: _st_model(
            folder, kind="chat, no prompt", prompts={"query": "a query: "}, default_prompt_name="query"
        ),
    ),
    "pooling_without_prompt_that_is_empty": _as(
        "roles",
        _bert(
            st_config(prompts={"query": "", "document": ""}), steps=[pooling("mean", include_prompt=False), NORMALIZE]
        ),
    ),
    "pooling_without_prompt_truncated_left": _bert(
        st_config(prompts={"query": "a query: "}, default_prompt_name="query"),
        tokenizer_config(truncation_side="left"),
        sbert(max_seq_length=64),
        steps=[pooling("mean", include_prompt=False), NORMALIZE],
    ),
    "pooling_unknown_key": _bert(steps=[pooling("mean", layers=2), NORMALIZE]),
    "pooling_unknown_mode_that_is_off": _bert(steps=[pooling("mean", pooling_mode_min_tokens=False), NORMALIZE]),
    # Dense
    "dense_bias_missing": _bert(
        weights(lambda found: {"linear.weight": found["linear.weight"]}, _DENSE), steps=[_MEAN, dense(24)]
    ),
    "dense_bias_unwanted": _bert(edit_json("2_Dense/config.json", bias=False), steps=[_MEAN, dense(24)]),
    "dense_half": _bert(
        weights(lambda found: {name: tensor.half() for name, tensor in found.items()}, _DENSE),
        steps=[_MEAN, dense(24)],
    ),
    "dense_after_normalize": _bert(steps=[_MEAN, NORMALIZE, dense(24)]),
    "dense_no_activation": _bert(edit_json("2_Dense/config.json", activation_function=GONE), steps=[_MEAN, dense(24)]),
    "dense_prelu": _bert(
        weights(lambda found: found | {"activation_function.weight": _ones(1) - 1}, _DENSE),
        steps=[_MEAN, dense(24, f"{_NN}.PReLU")],
    ),
    "dense_unknown_key": _bert(edit_json("2_Dense/config.json", scale=2.0), steps=[_MEAN, dense(24)]),
    "dense_weight_in_config": _bert(edit_json("2_Dense/config.json", init_bias=[0.5] * 24), steps=[_MEAN, dense(24)]),
    "dense_residual": _bert(
        edit_json("2_Dense/config.json", use_residual=True), steps=[_MEAN, dense(HIDDEN), NORMALIZE]
    ),
    # other steps
    "step_cnn": _module("CNN", "CNN", HIDDEN, HIDDEN),
    "step_dropout": _bert(steps=[_MEAN, Step(name="Dropout", config={"dropout": 0.1})]),
    "step_dropout_unknown_key": _bert(steps=[_MEAN, Step(name="Dropout", config={"dropout": 0.1, "p": 0.2})]),
    "step_layer_norm": _module("LayerNorm", "LayerNorm", HIDDEN, first=False),
    "step_layer_norm_unknown_key": _module(
        "LayerNorm", "LayerNorm", HIDDEN, first=False, edits=[edit_json("2_LayerNorm/config.json", eps=0.1)]
    ),
    "step_normalize_unknown_key": _bert(steps=[_MEAN, Step(name="Normalize", config={"p": 1})]),
    "step_lstm": _module("LSTM", "LSTM", HIDDEN, 16),
    "step_of_the_same_name": _bert(
        rewrite("modules.json", lambda found: [step | {"name": str(step["idx"] // 2)} for step in found]),
        steps=[_MEAN, dense(24)],
    ),
    "step_path_with_dots": _bert(
        rewrite("modules.json", lambda found: [found[0], found[1] | {"path": "../model/1_Pooling"}, found[2]])
    ),
    "step_two_normalize": _bert(steps=[_MEAN, NORMALIZE, NORMALIZE]),
    "step_weighted_layers": _module(
        "WeightedLayerPooling", "WeightedLayerPooling", HIDDEN, 2, 1, output_hidden_states=True
    ),
    "step_word_weights": _bert(steps=[Step(name="WordWeights"), _MEAN, NORMALIZE]),
    "step_clip": _bert(
        file(
            "modules.json",
            [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}],
        )
    ),
    "old_folder_of_the_transformer": _bert(_old_folder, steps=None),
    # as sentence-transformers 6 saves it
    "saved_by_6": saved(
        "embed",
        _bert(steps=None),
        lambda folder: _st_model(
            folder,
            kind="full",
            prompts={"query": "a query: ", "document": "a document: "},
            default_prompt_name="query",
            similarity_fn_name="dot",
        ),
    ),
    "saved_by_6_truncate_dim": saved("embed", _bert(steps=None), lambda folder: _st_model(folder, truncate_dim=16)),
    "truncate_dim_of_0": _bert(st_config(truncate_dim=0)),
    "saved_by_6_with_chat": saved(
        "embed",
        checkpoint("llama", file("chat_template.jinja", _CHAT), steps=None, head_dim=8),
        lambda folder: _st_model(folder, kind="chat"),
    ),
    "saved_by_6_static": saved("embed", _bert(steps=None), _static),
    # prompts and similarity
    "prompt_with_space": checkpoint(
        "roberta", st_config(prompts={"query": "a query: ", "document": ""}, default_prompt_name="query"), kind="roles"
    ),
    "prompt_default_is_empty": _bert(st_config(prompts=_PROMPTS, default_prompt_name="")),
    "prompts_by_role": _as("roles", _bert(st_config(prompts=_PROMPTS, default_prompt_name="sts"))),
    "similarity_dot": _as("similarity", _bert(st_config(similarity_fn_name="dot"), steps=[pooling("msqrt")])),
    # sentence_bert_config.json
    "sbert_document_length": _as("roles", _bert(sbert(max_seq_length=128, document_length=16))),
    "sbert_query_expansion": _as(
        "roles", _bert(sbert(max_seq_length=128, query_expansion={"strategy": "fixed", "length": 32}))
    ),
    "sbert_query_length": _as("roles", _bert(sbert(max_seq_length=128, query_length=8))),
    "sbert_unknown_key": _bert(sbert(max_seq_length=128, layers=1)),
    "sbert_unpadded": _bert(sbert(max_seq_length=128, unpad_inputs=True, cache_dir=None)),
    "sbert_distilbert_name": _bert(
        file("sentence_distilbert_config.json", {"max_seq_length": 40, "do_lower_case": False})
    ),
    "sbert_limit_negative": _bert(sbert(max_seq_length=-1)),
    "sbert_limit_null": _bert(sbert(max_seq_length=None), limit=10**30),
    "sbert_limit_over_positions": _bert(sbert(max_seq_length=1000), limit=10**30),
    "sbert_limit_tiny": _bert(sbert(max_seq_length=5)),
    "sbert_lower_case": _bert(sbert(max_seq_length=128, do_lower_case=True), tokenizer="bert-cased"),
    "sbert_lower_case_roberta": checkpoint("roberta", sbert(max_seq_length=128, do_lower_case=True)),
    "sbert_model_args": _bert(
        sbert(max_seq_length=128, model_args={"attn_implementation": "eager", "torch_dtype": "float32"})
    ),
    "sbert_output_hidden": _bert(
        sbert(
            max_seq_length=128,
            transformer_task="feature-extraction",
            modality_config={"text": {"method": "forward", "method_output_name": ["hidden_states", 1]}},
            module_output_name="token_embeddings",
        )
    ),
    "sbert_output_pooler": _bert(
        sbert(
            max_seq_length=128,
            transformer_task="feature-extraction",
            modality_config={"text": {"method": "forward", "method_output_name": "pooler_output"}},
            module_output_name="sentence_embedding",
        ),
        steps=_BARE,
    ),
    "sbert_tokenizer_args_end": checkpoint(
        "llama",
        sbert(max_seq_length=256, tokenizer_args={"add_eos_token": True, "add_bos_token": True}),
        limit=1024,
    ),
    "sbert_tokenizer_args_left": _bert(sbert(max_seq_length=64, tokenizer_args={"truncation_side": "left"})),
    "sbert_tokenizer_args_limit": _bert(sbert(max_seq_length=None, tokenizer_args={"model_max_length": 32})),
    "file_with_byte_order_mark": _bert(
        lambda place: write_files(place, {"modules.json": "\ufeff" + (place / "modules.json").read_text()})
    ),
    "file_without_architectures": _bert(config_json(architectures=GONE)),
    # other formats
    "format_adapter": checkpoint(
        "bert", remove("config.json", "model.safetensors", "tokenizer.json"), _adapter, steps=None
    ),
    "format_adapter_with_steps": _bert(remove("config.json", "model.safetensors"), _adapter),
    "format_gguf": _bert(
        remove("config.json", "model.safetensors", "tokenizer.json"), file("model-q4.gguf", b"GGUF"), steps=None
    ),
    "format_gguf_with_config": _bert(remove("model.safetensors"), file("model.gguf", b"GGUF")),
    "format_model2vec": _bert(_model2vec),
    "format_onnx": _bert(remove("model.safetensors"), file("onnx/model.onnx", b"x")),
    "format_pickle": _bert(_pickled("")),
    "format_pickle_of_dense": _bert(_pickled("2_Dense/"), steps=[_MEAN, dense(24), NORMALIZE]),
    "format_no_model_type": _bert(config_json(model_type=GONE)),
    "format_unknown_model_type": _bert(config_json(model_type="supernova")),
}
CASES |= {
    f"dense_{name.rpartition('.')[2].lower()}": _bert(
        sbert(max_seq_length=128),
        steps=[pooling("mean cls"), dense(24, name, 2 * HIDDEN), dense(16, name, 24, bias=False), NORMALIZE],
    )
    for name in (
        *(f"{_NN}.{kind}" for kind in ("GELU", "Hardtanh", "LeakyReLU", "Mish", "ReLU", "Sigmoid", "Softmax", "Tanh")),
        *("torch.nn.modules.linear.Identity", "torch.nn.SiLU", "torch.nn.SELU", f"{_NN}.CELU"),
    )
}
