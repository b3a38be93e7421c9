"""Files of weights that aren't whole are told by their headers and sizes, each by its own name, before any engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import lay, write_steps, write_transformer
from safetensors.torch import load_file, save_file

from nearfar.core.errors import CheckpointError
from nearfar.models.files.safetensors_headers import find_tensor_file, tensor_names
from nearfar.models.reading.reader import read_recipe
from nearfar.models.reading.refusals import refuse_damaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:06fb85\nsize 2363431\n"


def made_of(header: object, numbers: bytes = b"") -> bytes:
    """Write a file with this header, whatever it says of the numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def array(start: object, end: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [start, end]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_transformer(tmp_path / "model", "bert")
    write_steps(folder, "mean")
    return folder


def said_of(folder: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        refuse_damaged(folder, read_recipe(folder))
    return str(refused.value)


def in_shards(folder: Path, *, index: bool = True) -> list[Path]:
    """Deal the weights into two files."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for at, name in enumerate(names):
        save_file({key: weights[key] for key in [*weights][at::2]}, folder / name, {"format": "pt"})
    if index:
        lay(folder, {INDEX: {"metadata": {}, "weight_map": {key: names[at % 2] for at, key in enumerate(weights)}}})
    return [folder / name for name in names]


def test_whole_files_pass(folder: Path) -> None:
    refuse_damaged(folder, read_recipe(folder))
    in_shards(folder)
    refuse_damaged(folder, read_recipe(folder))


CUTS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": ("is empty", lambda _: b""),
    "a few bytes": ("isn't safetensors, or its header is cut off", lambda whole: whole[:7]),
    "only the length": ("isn't safetensors, or its header is cut off", lambda whole: whole[:8]),
    "half a header": ("isn't safetensors, or its header is cut off", lambda whole: whole[:100]),
    "one byte less": ("is cut short, ", lambda whole: whole[:-1]),
    "half the numbers": ("is cut short, ", lambda whole: whole[: len(whole) // 2]),
    "more bytes": ("has more in it than its header says, ", lambda whole: whole + b"\0" * 4),
    "a pointer": ("is a Git LFS pointer and not the weights; run git lfs pull", lambda _: POINTER),
    "a page of a website": ("isn't safetensors, or its header is cut off", lambda _: b"<!doctype html><html>" * 50),
    "a header of noise": ("its header is damaged", lambda whole: whole[:8] + b"\xff" + whole[9:]),
    "a header that is no object": ("its header is damaged", lambda _: made_of([1])),
    "an array without its place": ("its header is damaged", lambda _: made_of({"a": {"dtype": "F32"}})),
    "an array that is no object": ("its header is damaged", lambda _: made_of({"a": 1})),
    "an array that ends before it starts": ("its header is damaged", lambda _: made_of({"a": array(0, -4)})),
    "an array that ends at a word": ("its header is damaged", lambda _: made_of({"a": array(0, "x")})),
    "an array with three ends": (
        "its header is damaged",
        lambda _: made_of({"a": array(0, 1) | {"data_offsets": [0, 1, 2]}}),
    ),
    "an array before the start": ("its header is damaged", lambda _: made_of({"a": array(-4, 4)}, b"\0" * 4)),
    "an array that ends within a byte": ("its header is damaged", lambda _: made_of({"a": array(0, 1.0)}, b"\0")),
    "arrays over each other": (
        "its header is damaged ('b' doesn't start where the array before it ends)",
        lambda _: made_of({"a": array(0, 4), "b": array(0, 4)}, b"\0" * 4),
    ),
    "a hole": (
        "its header is damaged ('b' doesn't start where the array before it ends)",
        lambda _: made_of({"a": array(0, 4), "b": array(8, 12)}, b"\0" * 12),
    ),
    "an array of terabytes": (
        "its header is damaged ('a' isn't as long as its shape says)",
        lambda _: made_of({"a": array(0, 4) | {"shape": [2**40]}}, b"\0" * 4),
    ),
    "an array of less than nothing": (
        "its header is damaged",
        lambda _: made_of({"a": array(0, 4) | {"shape": [-1, -1]}}, b"\0" * 4),
    ),
    "an array past the end": ("is cut short, ", lambda _: made_of({"a": array(0, 10**12)}, b"\0" * 4)),
    "a header nested without end": ("its header is damaged", lambda _: made_of(b"[" * 100_000)),
}


@pytest.mark.parametrize("file", [WEIGHTS, f"2_Dense/{WEIGHTS}"])
@pytest.mark.parametrize("damage", CUTS)
def test_a_damaged_file_is_named_with_the_way_out(damage: str, file: str, folder: Path) -> None:
    expected, cut = CUTS[damage]
    (folder / file).write_bytes(cut((folder / file).read_bytes()))

    said = said_of(folder)

    assert said.startswith(f"{folder / file}: {expected}")
    assert "; download it again" in said or "; run git lfs pull" in said


@pytest.mark.parametrize("at", [0, 1])
def test_of_several_files_the_damaged_one_is_named(at: int, folder: Path) -> None:
    file = in_shards(folder)[at]
    file.write_bytes(file.read_bytes()[:-1])

    assert said_of(folder).startswith(f"{file}: is cut short, ")


@pytest.mark.parametrize("at", [0, 1])
def test_a_file_that_the_index_names_must_be_there(at: int, folder: Path) -> None:
    file = in_shards(folder)[at]
    file.unlink()

    assert f"{folder / INDEX}: names {file.name}, which isn't there; download that file" == said_of(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}], ids=str)
def test_an_index_that_names_nothing_is_refused(index: object, folder: Path) -> None:
    in_shards(folder)
    lay(folder, {INDEX: index})

    assert f"{folder / INDEX}: names no file with weights; download it again" == said_of(folder)


def test_an_index_beside_the_one_file_is_of_no_account(folder: Path) -> None:
    """Conversions to one file leave it behind, and transformers doesn't look at it."""
    lay(folder, {INDEX: {"weight_map": {"a": "model-00001-of-00009.safetensors"}}})

    refuse_damaged(folder, read_recipe(folder))


def test_a_file_that_nothing_loads_may_be_a_pointer(folder: Path) -> None:
    """Whoever clones a repository fetches only the weights that are needed."""
    lay(folder, {"model.fp16.safetensors": POINTER})

    refuse_damaged(folder, read_recipe(folder))
    in_shards(folder)
    refuse_damaged(folder, read_recipe(folder))


def test_without_an_index_the_files_own_names_say_how_many_there_are(folder: Path) -> None:
    first, second = in_shards(folder, index=False)
    first.unlink()

    expected = f"{first}: isn't there, and neither is {INDEX}; download both"
    assert expected == said_of(folder)
    assert second.is_file()


def test_a_link_to_a_file_that_is_gone_is_refused(folder: Path) -> None:
    """What a cleaned-up cache leaves."""
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / "gone")

    assert f"{folder / WEIGHTS}: can't be read (No such file or directory); download it again" == said_of(folder)


def test_the_file_an_array_comes_from_is_found_with_or_without_a_prefix(folder: Path) -> None:
    first, second = in_shards(folder)

    inner = tensor_names(first)[0].partition(".")[2]

    assert first == find_tensor_file(folder, tensor_names(first)[0])
    assert first == find_tensor_file(folder, inner)
    assert second == find_tensor_file(folder, f"bert.{tensor_names(second)[0]}")
    assert folder == find_tensor_file(folder, "no.such.array")


def test_a_header_may_tell_of_itself(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / WEIGHTS, {"format": "pt"})

    assert ["a"] == tensor_names(tmp_path / WEIGHTS)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../b", "..", "", "a\0b", "ä" * 128])
def test_an_index_may_not_name_a_file_elsewhere(name: str, folder: Path) -> None:
    in_shards(folder)
    lay(folder, {INDEX: {"weight_map": {"a": name}}})

    assert f"{folder / INDEX}: names {name!r}, which isn't a file beside it; download it again" == said_of(folder)


def test_a_file_without_an_end_is_not_read_to_it(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "many zeros")
    with (folder / "many zeros").open("wb") as sparse:
        sparse.truncate(10**12)

    with pytest.raises(CheckpointError, match=r"config\.json: is over 200,000,000 bytes"):
        read_recipe(folder)
