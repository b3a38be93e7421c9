"""No file makes the program fail: settings and models' files are read, or refused in a sentence that names them."""

from __future__ import annotations

import json
import shutil
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from answering import place, sample  # noqa: F401 — fixtures
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from inputs import RAW, SCALARS, VALUES, bytes_near, near, written
from settings_fields import FIELDS

from nearfar.core.errors import CheckpointError, SettingsError, SetupError
from nearfar.core.settings import Settings, load_settings
from nearfar.models.files.safetensors import tensor_shapes
from nearfar.models.files.tokenizer_json import open_tokenizer
from nearfar.models.reading.reader import read_recipe
from nearfar.models.reading.refusals import refuse_damaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LINES = st.sampled_from([line for _, line, _ in FIELDS.values()])

FUZZ = settings.get_profile("fuzz")


def said_by(refusal: type[SetupError], read: Callable[[], object]) -> str:
    """Give what the refusal says; nothing where it was read, and any other error as it is."""
    try:
        read()
    except refusal as error:
        return str(error)
    return ""


# By name, since Hypothesis would write them out.
_BOMBS = {"array": b"a = " + b"[" * 50_000, "key": b"a." * 2000 + b"b = 1", "digits": b"port = " + b"9" * 9000}


@FUZZ
@given(
    content=st.one_of(
        st.lists(_LINES, max_size=4).map("\n".join).flatmap(lambda text: bytes_near(text.encode())),
        st.tuples(st.sampled_from([*Settings.__struct_fields__, "[[models]]\nname", "models"]), SCALARS).map(
            lambda pair: f"{pair[0]} = {json.dumps(pair[1])}".encode()
        ),
        st.binary(max_size=200),
        st.sampled_from([*_BOMBS]),
    )
)
def test_no_file_of_settings_makes_the_reader_fail(content: bytes | str, place: Path) -> None:
    file = place / "nearfar.toml"
    file.write_bytes(content if isinstance(content, bytes) else _BOMBS[content])

    said = said_by(SettingsError, lambda: load_settings(file=file, environ={}))

    assert not said or str(file) in said or said.startswith("host: ")


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

    said = said_by(SettingsError, lambda: load_settings(environ=environ))

    assert not said or any(name in said for name in environ) or said.startswith("host: ")


_ARRAYS = st.dictionaries(
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
    header = draw(st.one_of(_ARRAYS.map(written), VALUES.map(written), RAW))
    length = draw(st.one_of(st.just(len(header)), st.integers(0, 2**64 - 1), st.integers(0, 60)))
    whole = struct.pack("<Q", length) + header + b"\0" * draw(st.integers(0, 60))
    return draw(bytes_near(whole)) if draw(st.booleans()) else whole


@FUZZ
@given(content=safetensors())
def test_no_file_of_weights_makes_the_reader_fail(content: bytes, place: Path) -> None:
    file = place / "model.safetensors"
    file.write_bytes(content)

    said = said_by(CheckpointError, lambda: tensor_shapes(file))

    assert not said or str(file) in said


RECIPE = (
    *("config.json", "modules.json", "1_Pooling/config.json", "2_Dense/config.json", "3_Normalize/config.json"),
    *("sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "tokenizer.json", "model.safetensors.index.json"),
)


def sample_files(place: Path, sample: Path) -> Path:
    """Copy the sample to where its files may be damaged."""
    folder = place / "tried"
    if not folder.exists():
        shutil.copytree(sample, folder)
    return folder


@pytest.mark.parametrize("name", RECIPE)
@FUZZ
@given(data=st.data())
def test_no_file_of_a_model_makes_the_reader_fail(name: str, data: st.DataObject, place: Path, sample: Path) -> None:
    whole = (sample / name).read_bytes()
    told = [msgspec.json.decode(whole)]
    content: Any = st.one_of(
        near(told).map(written), near(told).map(written), bytes_near(whole), RAW, VALUES.map(written)
    )
    folder = sample_files(place, sample)

    (folder / name).write_bytes(data.draw(content))
    try:
        said = said_by(CheckpointError, lambda: read(folder, name))
    finally:
        (folder / name).write_bytes(whole)

    assert not said or str(folder) in said


def read(folder: Path, name: str) -> None:
    refuse_damaged(folder, read_recipe(folder))
    if name.startswith(("tokenizer", "special")):
        open_tokenizer(folder)
