"""Damaged weight files are refused by their headers and sizes, naming the file; and sizes are known before loading."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from checkpoints import write_files, write_steps, write_transformer
from safetensors.numpy import load_file, save_file

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import unreadable
from nearfar.models.files.safetensors import find_layer_tensors, find_tensor_file, read_weight_sizes, tensor_shapes
from nearfar.models.reading.reader import read_recipe
from nearfar.models.reading.refusals import refuse_damaged
from nearfar.models.recipe.dense import Dense

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
AGAIN = "; download it again"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:06fb85\nsize 2363431\n"


def made_of(header: object, weights: bytes = b"") -> bytes:
    """Return a file with this header and these bytes of weights."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + weights


def tensor(start: object, end: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [start, end]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_transformer(tmp_path / "model", "bert")
    write_steps(folder, "mean")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        refuse_damaged(folder, read_recipe(folder))
    return str(refused.value)


def in_shards(folder: Path, *, index: bool = True) -> list[Path]:
    """Split the weights into two files."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for at, name in enumerate(names):
        save_file({key: weights[key] for key in [*weights][at::2]}, folder / name, {"format": "pt"})
    if index:
        write_files(
            folder, {INDEX: {"metadata": {}, "weight_map": {key: names[at % 2] for at, key in enumerate(weights)}}}
        )
    return [folder / name for name in names]


def test_complete_files_pass(folder: Path) -> None:
    refuse_damaged(folder, read_recipe(folder))
    in_shards(folder)
    refuse_damaged(folder, read_recipe(folder))


@pytest.mark.parametrize("says_how", [False, True])
def test_quantized_weights_need_a_config_that_says_how(folder: Path, *, says_how: bool) -> None:
    """Served as they are, the numbers would lack their scales."""
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if name.endswith("query.weight"))
    save_file(weights | {name: weights[name].astype(np.int8)}, folder / WEIGHTS, {"format": "pt"})
    if says_how:
        config = json.loads((folder / "config.json").read_text())
        write_files(folder, {"config.json": config | {"quantization_config": {"quant_method": "awq"}}})
        read_weight_sizes(folder, read_recipe(folder))
    else:
        with pytest.raises(CheckpointError, match=r"query\.weight is quantized \(I8\)"):
            read_weight_sizes(folder, read_recipe(folder))


DAMAGED = "is truncated or damaged ("
# The damage → the error's text after the file's name, and the file's new content.
DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": (f"{DAMAGED}the file is empty)", lambda _: b""),
    "a few bytes": (f"{DAMAGED}header too small)", lambda whole: whole[:7]),
    "only the length": (DAMAGED, lambda whole: whole[:8]),
    "half a header": (f"{DAMAGED}invalid header length)", lambda whole: whole[:100]),
    "one byte less": (f"{DAMAGED}incomplete metadata, file not fully covered)", lambda whole: whole[:-1]),
    "half the weights": (f"{DAMAGED}incomplete metadata", lambda whole: whole[: len(whole) // 2]),
    "more bytes": (f"{DAMAGED}incomplete metadata", lambda whole: whole + b"\0" * 4),
    "a pointer": ("is a Git LFS pointer, not the weights; run git lfs pull", lambda _: POINTER),
    "a web page": (DAMAGED, lambda _: b"<!doctype html><html>" * 50),
    "a header of noise": (DAMAGED, lambda whole: whole[:8] + b"\xff" + whole[9:]),
    "a header that is no object": (DAMAGED, lambda _: made_of([1])),
    "a tensor without offsets": (DAMAGED, lambda _: made_of({"a": {"dtype": "F32"}})),
    "a tensor that is no object": (DAMAGED, lambda _: made_of({"a": 1})),
    "a tensor that ends before it starts": (DAMAGED, lambda _: made_of({"a": tensor(0, -4)})),
    "an offset that is a word": (DAMAGED, lambda _: made_of({"a": tensor(0, "x")})),
    "three offsets": (DAMAGED, lambda _: made_of({"a": tensor(0, 1) | {"data_offsets": [0, 1, 2]}})),
    "a negative offset": (DAMAGED, lambda _: made_of({"a": tensor(-4, 4)}, b"\0" * 4)),
    "a fractional offset": (DAMAGED, lambda _: made_of({"a": tensor(0, 1.0)}, b"\0")),
    "overlapping tensors": (
        f"{DAMAGED}invalid offset for tensor `",
        lambda _: made_of({"a": tensor(0, 4), "b": tensor(0, 4)}, b"\0" * 4),
    ),
    "a gap": (
        f"{DAMAGED}invalid offset for tensor `",
        lambda _: made_of({"a": tensor(0, 4), "b": tensor(8, 12)}, b"\0" * 12),
    ),
    "a tensor of terabytes": (
        f"{DAMAGED}invalid shape",
        lambda _: made_of({"a": tensor(0, 4) | {"shape": [2**40]}}, b"\0" * 4),
    ),
    "a negative shape": (DAMAGED, lambda _: made_of({"a": tensor(0, 4) | {"shape": [-1, -1]}}, b"\0" * 4)),
    "a tensor past the end": (DAMAGED, lambda _: made_of({"a": tensor(0, 10**12)}, b"\0" * 4)),
    "endless nesting": (DAMAGED, lambda _: made_of(b"[" * 100_000)),
}


def test_a_damaged_file_is_named_with_the_way_out(folder: Path) -> None:
    wrong = []
    for file in (folder / WEIGHTS, folder / "2_Dense" / WEIGHTS):
        whole = file.read_bytes()
        for damage, (expected, spoil) in DAMAGE.items():
            file.write_bytes(spoil(whole))
            sentence = refusal(folder)
            if not sentence.startswith(f"{file}: {expected}") or not sentence.endswith((AGAIN, "run git lfs pull")):
                wrong.append((damage, sentence))
        file.write_bytes(whole)

    assert not wrong


def test_a_tensor_of_any_dtype_has_a_shape(tmp_path: Path) -> None:
    """Nothing is loaded, so that numpy need not have the dtype."""
    dtypes = (("BF16", 4), ("F8_E4M3", 2), ("F8_E5M2", 2), ("F8_E8M0", 2), ("I8", 2), ("C64", 16), ("BOOL", 2))
    for dtype, size in dtypes:
        header = {"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, size]}}
        (tmp_path / dtype).write_bytes(made_of(header, bytes(size)))

    assert [{"a": (2,)}] * len(dtypes) == [tensor_shapes(tmp_path / dtype) for dtype, _ in dtypes]


@pytest.mark.parametrize("at", [0, 1])
def test_of_several_files_the_damaged_one_is_named(at: int, folder: Path) -> None:
    file = in_shards(folder)[at]
    file.write_bytes(file.read_bytes()[:-1])

    assert refusal(folder).startswith(f"{file}: is truncated or damaged (")


@pytest.mark.parametrize("at", [0, 1])
def test_a_file_that_the_index_names_must_be_there(at: int, folder: Path) -> None:
    file = in_shards(folder)[at]
    file.unlink()

    assert f"{folder / INDEX}: lists {file.name}, which is missing; download that file" == refusal(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}], ids=str)
def test_an_index_without_files_is_refused(index: object, folder: Path) -> None:
    in_shards(folder)
    write_files(folder, {INDEX: index})

    assert f"{folder / INDEX}: its weight_map lists no files; download it again" == refusal(folder)


def test_an_index_is_ignored_if_there_is_a_single_file(folder: Path) -> None:
    """Conversions to one file leave it behind, and transformers doesn't look at it."""
    write_files(folder, {INDEX: {"weight_map": {"a": "model-00001-of-00009.safetensors"}}})

    refuse_damaged(folder, read_recipe(folder))


def test_a_file_that_nothing_loads_may_be_a_pointer(folder: Path) -> None:
    """A clone of a repository may have fetched only the weights that are needed."""
    write_files(folder, {"model.fp16.safetensors": POINTER})

    refuse_damaged(folder, read_recipe(folder))
    in_shards(folder)
    refuse_damaged(folder, read_recipe(folder))


def test_without_an_index_the_shards_names_state_their_count(folder: Path) -> None:
    first, second = in_shards(folder, index=False)
    first.unlink()

    expected = f"{first}: is missing, and so is {INDEX}; download both"
    assert expected == refusal(folder)
    assert second.is_file()


def test_a_file_that_this_user_may_not_read_needs_no_download(folder: Path) -> None:
    """Root reads every file, so the system's error is made here."""
    error = unreadable(folder / WEIGHTS, PermissionError(errno.EACCES, "Permission denied"))

    assert f"{folder / WEIGHTS}: can't be read (Permission denied); let this user read it" == str(error)


def test_a_link_to_a_file_that_is_gone_is_refused(folder: Path) -> None:
    """A cleaned-up cache leaves such links."""
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / "gone")

    assert f"{folder / WEIGHTS}: can't be read (No such file or directory); download the model again" == refusal(folder)


def test_a_tensors_file_is_found_with_or_without_a_prefix(folder: Path) -> None:
    first, second = in_shards(folder)

    inner = next(iter(tensor_shapes(first))).partition(".")[2]

    assert first == find_tensor_file(folder, next(iter(tensor_shapes(first))))
    assert first == find_tensor_file(folder, inner)
    assert second == find_tensor_file(folder, f"bert.{next(iter(tensor_shapes(second)))}")
    assert folder == find_tensor_file(folder, "no.such.array")


def test_a_header_may_have_metadata(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / WEIGHTS, {"format": "pt"})

    assert {"a": (3,)} == tensor_shapes(tmp_path / WEIGHTS)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../b", "..", "", "a\0b", "ä" * 128])
def test_an_index_may_not_name_a_file_elsewhere(name: str, folder: Path) -> None:
    in_shards(folder)
    write_files(folder, {INDEX: {"weight_map": {"a": name}}})

    assert f"{folder / INDEX}: lists {name!r}, which isn't a file in the folder; download it again" == refusal(folder)


def test_an_endless_file_is_not_read_to_the_end(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "many zeros")
    with (folder / "many zeros").open("wb") as sparse:
        sparse.truncate(10**12)

    with pytest.raises(CheckpointError, match=r"config\.json: has over 200,000,000 bytes"):
        read_recipe(folder)


def parameters_of(folder: Path) -> int:
    from transformers import AutoModel

    return sum(parameter.numel() for parameter in AutoModel.from_pretrained(folder).parameters())


def test_every_parameter_counts_with_the_bytes_of_its_dtype(bert: Path) -> None:
    parameters = parameters_of(bert)

    weights = read_weight_sizes(bert, read_recipe(bert))

    sizes = {dtype: weights.bytes_in_memory(dtype) for dtype in ("float32", "float16", "bfloat16", "int8")}
    assert {
        "float32": 4 * parameters,
        "float16": 2 * parameters,
        "bfloat16": 2 * parameters,
        "int8": parameters,
    } == sizes


def test_an_unknown_dtype_counts_as_float32(bert: Path) -> None:
    weights = read_weight_sizes(bert, read_recipe(bert))

    assert weights.bytes_in_memory("float32") == weights.bytes_in_memory("auto")


def test_dense_layers_count_too(bert: Path) -> None:
    parameters = parameters_of(bert)
    write_steps(bert, "mean")

    weights = read_weight_sizes(bert, read_recipe(bert))

    assert parameters + 12 * 32 + 12 == weights.parameters


def test_weights_in_several_files_are_counted_once_each(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = write_transformer(tmp_path / "bert", "bert")
    parameters = parameters_of(folder)
    (folder / "model.safetensors").unlink()
    AutoModel.from_config(
        AutoModel.from_pretrained(write_transformer(tmp_path / "same", "bert")).config
    ).save_pretrained(folder, max_shard_size="50KB")

    weights = read_weight_sizes(folder, read_recipe(folder))

    assert len(list(folder.glob("*.safetensors"))) > 1
    assert parameters == weights.parameters


def test_quantized_weights_take_the_bytes_of_their_file(bert: Path) -> None:
    recipe = msgspec.structs.replace(read_recipe(bert), quantized=True)

    weights = read_weight_sizes(bert, recipe)

    size = (bert / "model.safetensors").stat().st_size
    assert {size} == {weights.bytes_in_memory(dtype) for dtype in ("float32", "auto", "4 bits")}


@pytest.mark.parametrize("has_prefix", [False, True])
def test_only_a_layer_without_the_prefix_may_lack_it(tmp_path: Path, *, has_prefix: bool) -> None:
    """sentence-transformers refuses a Dense step without it; BGE-M3's own layers have none."""
    file = tmp_path / "layer.safetensors"
    layer = Dense(file=file, in_features=2, out_features=3, bias=False, has_prefix=has_prefix)
    names = {True: "linear.weight", False: "weight"}
    save_file({names[has_prefix]: np.ones((3, 2), np.float32)}, file)
    assert find_layer_tensors(layer) == {"linear.weight": names[has_prefix]}

    save_file({names[not has_prefix]: np.ones((3, 2), np.float32)}, file)

    with pytest.raises(CheckpointError, match=r"has no linear\.weight, which .* asks for"):
        find_layer_tensors(layer)
