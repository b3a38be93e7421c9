"""No file makes the program fail: settings and models' files are read, or refused with a message that names them."""

from __future__ import annotations

import json
import random
import shutil
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from checkpoints import write_files, write_steps, write_transformer
from fuzz_inputs import (
    FUZZ,
    IS_SHORT,
    MALFORMED,
    SCALARS,
    VALUES,
    corrupt,
    limited_cpu,
    mutate,
    mutated,
    mutated_bytes,
    to_json,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from settings_fields import FIELDS

from nearfar.core.errors import CheckpointError, SettingsError, SetupError
from nearfar.core.settings import Settings, load_settings
from nearfar.models.files.safetensors import tensor_shapes
from nearfar.models.files.tokenizer.tokenizer_json import open_tokenizer
from nearfar.models.reading.reader import read_recipe
from nearfar.models.reading.refusals import refuse_damaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INPUTS_PER_SEED = 10 if IS_SHORT else 50
JSON_FILES = (
    *("config.json", "modules.json", "1_Pooling/config.json", "2_Dense/config.json", "3_Normalize/config.json"),
    *("sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "tokenizer.json", "model.safetensors.index.json"),
)
_LINES = st.sampled_from([line for _, line, _ in FIELDS.values()])
# By name, since Hypothesis would print them.
_DEEP_TOML = {"array": b"a = " + b"[" * 50_000, "key": b"a." * 2000 + b"b = 1", "digits": b"port = " + b"9" * 9000}


def refusal(error: type[SetupError], read: Callable[[], object]) -> str:
    """Return the message of the refusal, or nothing if the file was read. Any other error is raised."""
    with limited_cpu():
        try:
            read()
        except error as refused:
            return str(refused)
    return ""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="session")
def model(folder: Path) -> Path:
    """Write a model with every file that is read."""
    model = write_transformer(folder / "model", "bert")
    write_steps(model, "mean")
    return write_files(
        model,
        {
            "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": True},
            "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
            "model.safetensors.index.json": {"weight_map": {"a": "model.safetensors"}},
            "tokenizer_config.json": {"model_max_length": 48, "do_lower_case": True, "chat_template": "{{ messages }}"},
            "special_tokens_map.json": {"pad_token": "[PAD]"},
            "3_Normalize/config.json": {},
        },
    )


@pytest.fixture(scope="session")
def damaged(folder: Path, model: Path) -> Path:
    """Copy the model to a folder in which the tests damage one file at a time."""
    return shutil.copytree(model, folder / "damaged")


@FUZZ
@given(
    content=st.one_of(
        st.lists(_LINES, max_size=4).map("\n".join).flatmap(lambda text: mutated_bytes(text.encode())),
        st.tuples(st.sampled_from([*Settings.__struct_fields__, "[[models]]\nname", "models"]), SCALARS).map(
            lambda pair: f"{pair[0]} = {json.dumps(pair[1])}".encode()
        ),
        st.binary(max_size=200),
        st.sampled_from([*_DEEP_TOML]),
    )
)
def test_no_settings_file_makes_the_reader_fail(content: bytes | str, folder: Path) -> None:
    file = folder / "nearfar.toml"
    file.write_bytes(content if isinstance(content, bytes) else _DEEP_TOML[content])

    message = refusal(SettingsError, lambda: load_settings(file=file, environ={}))

    assert not message or str(file) in message or message.startswith("host: ")


@FUZZ
@given(
    environ=st.dictionaries(
        st.one_of(
            st.sampled_from([f"NEARFAR_{field.upper()}" for field in ("models", *FIELDS)]),
            st.text(max_size=8).map("NEARFAR_{}".format),
        ),
        st.one_of(st.text(max_size=40), SCALARS.map(str), st.sampled_from([text for text, _, _ in FIELDS.values()])),
        max_size=3,
    )
)
def test_no_environment_makes_the_reader_fail(environ: dict[str, str]) -> None:
    assume("NEARFAR_CONFIG" not in environ)

    message = refusal(SettingsError, lambda: load_settings(environ=environ))

    assert not message or any(name in message for name in environ) or message.startswith("host: ")


_TENSORS = st.dictionaries(
    st.one_of(st.text(max_size=6), st.just("__metadata__")),
    st.one_of(
        VALUES,
        st.fixed_dictionaries(
            {
                "dtype": st.one_of(st.sampled_from(["F32", "F16", "BF16", "I64", "U8", "F4", "C64"]), SCALARS),
                "shape": st.one_of(st.lists(st.integers(-1, 4), max_size=3), st.lists(SCALARS, max_size=3), SCALARS),
                "data_offsets": st.one_of(
                    st.lists(st.integers(-4, 40), min_size=2, max_size=2), st.lists(SCALARS, max_size=3), SCALARS
                ),
            }
        ),
    ),
    max_size=3,
)


@st.composite
def safetensors(draw: st.DrawFn) -> bytes:
    header = draw(st.one_of(_TENSORS.map(to_json), VALUES.map(to_json), MALFORMED))
    length = draw(st.one_of(st.just(len(header)), st.integers(0, 2**64 - 1), st.integers(0, 60)))
    whole = struct.pack("<Q", length) + header + b"\0" * draw(st.integers(0, 60))
    return draw(mutated_bytes(whole)) if draw(st.booleans()) else whole


@FUZZ
@given(content=safetensors())
def test_no_weights_file_makes_the_reader_fail(content: bytes, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(content)

    message = refusal(CheckpointError, lambda: tensor_shapes(file))

    assert not message or str(file) in message


def read(folder: Path, name: str, content: bytes, whole: bytes) -> str:
    """Read the model with another content of one file, which is restored. Returns the refusal, if any."""

    def read_all() -> None:
        if name.endswith(".safetensors"):
            tensor_shapes(folder / name)
            return
        refuse_damaged(folder, read_recipe(folder))
        if name.startswith(("tokenizer", "special")):
            open_tokenizer(folder)

    (folder / name).write_bytes(content)
    try:
        return refusal(CheckpointError, read_all)
    finally:
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", JSON_FILES)
@FUZZ
@given(data=st.data())
def test_no_file_of_a_model_makes_the_reader_fail(name: str, data: st.DataObject, model: Path, damaged: Path) -> None:
    whole = (model / name).read_bytes()
    valid = mutated([msgspec.json.decode(whole)]).map(to_json)
    content: Any = data.draw(st.one_of(valid, valid, mutated_bytes(whole), MALFORMED, VALUES.map(to_json)))

    message = read(damaged, name, content, whole)

    assert not message or str(damaged) in message


@pytest.mark.parametrize("name", [*JSON_FILES, "model.safetensors"])
@settings(FUZZ, max_examples=1 if IS_SHORT else FUZZ.max_examples)
@given(seed=st.integers(0, 2**64 - 1))
def test_no_file_of_many_makes_the_reader_fail(name: str, seed: int, model: Path, damaged: Path) -> None:
    rng = random.Random(seed)  # noqa: S311 — must be reproducible
    whole = (model / name).read_bytes()
    is_json = name.endswith(".json")
    examples = [msgspec.json.decode(whole)] if is_json else []

    for _ in range(INPUTS_PER_SEED if is_json else 4):  # weights take long to copy
        content = mutate(rng, examples) if is_json else whole[:8] + corrupt(rng, whole[8:5000]) + whole[5000:]
        message = read(damaged, name, content, whole)
        assert not message or str(damaged) in message
