"""The settings come from four places, each over the one below, and nothing doubtful is let through."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from nearfar.core.errors import SettingsError
from nearfar.core.settings import BUILTIN_MODEL, ModelSettings, Settings, is_loopback, load_settings

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a-key-that-must-stay-secret"
UNGUARDED = (
    "is reachable from other machines and no API key is set; "
    "set one (--api-key or NEARFAR_API_KEY), or say --no-auth to serve everyone"
)

# Every field of Settings but models: as text in the environment, as a line of TOML, and what either becomes.
FIELDS = {
    "engine": ("fake", 'engine = "fake"', "fake"),
    "device": ("cuda", 'device = "cuda"', "cuda"),
    "dtype": ("bfloat16", 'dtype = "bfloat16"', "bfloat16"),
    "host": ("127.0.0.2", 'host = "127.0.0.2"', "127.0.0.2"),
    "port": ("9001", "port = 9001", 9001),
    "api_key": (KEY, f'api_key = "{KEY}"', KEY),
    "api_keys_file": ("keys.toml", 'api_keys_file = "keys.toml"', "keys.toml"),
    "no_auth": ("true", "no_auth = true", True),
    "allowed_hosts": (
        "a.test, *.b.test",
        'allowed_hosts = ["a.test", "*.b.test"]',
        ("a.test", "*.b.test"),
    ),
    "cors_origins": ("https://a.test", 'cors_origins = ["https://a.test"]', ("https://a.test",)),
    "offline": ("1", "offline = true", True),
    "hub_endpoint": ("http://hub.test", 'hub_endpoint = "http://hub.test"', "http://hub.test"),
    "cache_dir": ("a/cache", 'cache_dir = "a/cache"', "a/cache"),
    "threads": ("3", "threads = 3", 3),
    "on_overflow": ("error", 'on_overflow = "error"', "error"),
    "tls_cert_file": ("cert.pem", 'tls_cert_file = "cert.pem"', "cert.pem"),
    "tls_key_file": ("key.pem", 'tls_key_file = "key.pem"', "key.pem"),
    "log_format": ("json", 'log_format = "json"', "json"),
    "otlp_endpoint": ("http://trace.test:4318", 'otlp_endpoint = "http://trace.test:4318"', "http://trace.test:4318"),
    "trace_sample_ratio": ("0.25", "trace_sample_ratio = 0.25", 0.25),
    "tei_metrics": ("true", "tei_metrics = true", True),
    "max_body_bytes": ("1000", "max_body_bytes = 1_000", 1000),
    "receive_timeout_s": ("5", "receive_timeout_s = 5", 5.0),
    "batch_tokens": ("64", "batch_tokens = 64", 64),
    "queue_tokens": ("128", "queue_tokens = 128", 128),
    "queue_requests": ("16", "queue_requests = 16", 16),
    "request_timeout_s": ("0.5", "request_timeout_s = 0.5", 0.5),
    "forward_timeout_s": ("9", "forward_timeout_s = 9", 9.0),
    "drain_timeout_s": ("2", "drain_timeout_s = 2", 2.0),
    "load": ("demand", 'load = "demand"', "demand"),
    "while_loading": ("refuse", 'while_loading = "refuse"', "refuse"),
    "memory_budget": ("8GB", 'memory_budget = "8GB"', "8GB"),
    "idle_timeout_s": ("600", "idle_timeout_s = 600", 600.0),
}


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "nearfar.toml"


@pytest.mark.parametrize(
    ("expected", "in_file", "in_environment", "in_argv"),
    [
        (9000, None, None, None),
        (9001, 9001, None, None),
        (9002, None, 9002, None),
        (9003, None, None, 9003),
        (9002, 9001, 9002, None),
        (9003, 9001, None, 9003),
        (9003, None, 9002, 9003),
        (9003, 9001, 9002, 9003),
    ],
)
def test_each_place_overrides_the_ones_below(
    expected: int, in_file: int | None, in_environment: int | None, in_argv: int | None, toml: Path
) -> None:
    toml.write_text(f"port = {in_file}" if in_file else "")
    environ = {"NEARFAR_PORT": str(in_environment)} if in_environment else {}
    argv = {"port": in_argv} if in_argv else {}

    settings = load_settings(argv, file=toml, environ=environ)

    assert expected == settings.port


def test_places_are_merged_field_by_field(toml: Path) -> None:
    toml.write_text('engine = "fake"\nport = 9001\noffline = true')

    settings = load_settings({"dtype": "float16"}, file=toml, environ={"NEARFAR_PORT": "9002"})

    assert Settings(engine="fake", port=9002, offline=True, dtype="float16") == settings


def test_without_any_place_the_defaults_hold() -> None:
    settings = load_settings(environ={})

    assert Settings() == settings
    assert (ModelSettings(name=BUILTIN_MODEL),) == settings.models


def test_the_table_of_fields_here_is_whole() -> None:
    assert set(Settings.__struct_fields__) == {"models", *FIELDS}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_can_be_set_in_the_environment(field: str) -> None:
    text, _, expected = FIELDS[field]

    settings = load_settings(environ={f"NEARFAR_{field.upper()}": text})

    assert expected == getattr(settings, field)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_can_be_set_in_the_file(field: str, toml: Path) -> None:
    _, line, expected = FIELDS[field]
    toml.write_text(line)

    settings = load_settings(file=toml, environ={})

    assert expected == getattr(settings, field)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_can_be_set_on_the_command_line(field: str) -> None:
    _, _, expected = FIELDS[field]

    settings = load_settings({field: expected}, environ={})

    assert expected == getattr(settings, field)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (5000, 5000),
        ("5000", 5000),
        ("2kB", 2000),
        ("1.5 MB", 1_500_000),
        ("8GB", 8_000_000_000),
        ("8gib", 8 * 1024**3),
        ("1T", 10**12),
        (None, None),
    ],
)
def test_a_memory_budget_is_bytes_in_thousands_or_in_1024s(said: int | str | None, expected: int | None) -> None:
    settings = load_settings({"memory_budget": said}, environ={})

    assert expected == settings.memory_budget_bytes


@pytest.mark.parametrize("said", ["much", "-1", "8 GB of it", "GB", "1e9", ""])
def test_a_memory_budget_that_is_no_size_is_refused_with_one_that_is(said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ={"NEARFAR_MEMORY_BUDGET": said})

    assert "NEARFAR_MEMORY_BUDGET: expected bytes, or a size such as 8GB or 500MiB" == str(refused.value)


def test_a_model_in_the_file_has_settings_of_its_own(toml: Path) -> None:
    toml.write_text(
        """
        [[models]]
        name = "owner/first@v2"
        aliases = ["text-embedding-3-small", "small"]
        dtype = "float16"
        max_tokens = 128
        load = "demand"
        idle_timeout_s = 60
        pin = true

        [[models]]
        name = "./second"
        engine = "fake"
        device = "cpu"
        on_overflow = "error"
        """
    )

    settings = load_settings(file=toml, environ={})

    first, second = settings.models
    assert (
        ModelSettings(
            name="owner/first@v2",
            aliases=("text-embedding-3-small", "small"),
            dtype="float16",
            max_tokens=128,
            load="demand",
            idle_timeout_s=60.0,
            pin=True,
        )
        == first
    )
    assert ModelSettings(name="./second", engine="fake", device="cpu", on_overflow="error") == second


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (["one"], "one"),
        (["one", "owner/two@main"], "one,owner/two@main"),
        (["one", "/a folder/with spaces"], " one , /a folder/with spaces ,"),
    ],
)
def test_the_environment_lists_models_by_comma(expected: list[str], text: str) -> None:
    settings = load_settings(environ={"NEARFAR_MODELS": text})

    assert expected == [model.name for model in settings.models]


def test_a_list_of_models_replaces_the_list_below_instead_of_adding_to_it(toml: Path) -> None:
    toml.write_text('[[models]]\nname = "from the file"')

    settings = load_settings(file=toml, environ={"NEARFAR_MODELS": "from the environment"})

    assert ["from the environment"] == [model.name for model in settings.models]


@pytest.mark.parametrize(
    ("expected", "text"), [(True, "true"), (True, "1"), (True, "TRUE"), (False, "false"), (False, "0")]
)
def test_a_flag_in_the_environment_is_true_false_1_or_0(expected: bool, text: str) -> None:
    settings = load_settings(environ={"NEARFAR_OFFLINE": text})

    assert expected is settings.offline


@pytest.mark.parametrize("text", ["yes", "on", "2", "", "tru"])
def test_a_flag_in_the_environment_that_is_neither_is_refused(text: str) -> None:
    """A guess would either open the server or break the operator's script."""
    with pytest.raises(SettingsError, match=r"^NEARFAR_NO_AUTH: expected `bool`"):
        load_settings(environ={"NEARFAR_NO_AUTH": text})


@pytest.mark.parametrize("text", ["null", "None", "true", "12345"])
def test_an_api_key_is_taken_as_it_is_written(text: str) -> None:
    settings = load_settings(environ={"NEARFAR_API_KEY": text})

    assert text == settings.api_key


@pytest.mark.parametrize(
    ("expected", "line"),
    [
        ("prot: unknown key; did you mean port?", "prot = 9000"),
        ("deadline_s: unknown key; did you mean request_timeout_s?", "deadline_s = 9"),
        ("server: unknown key", "[server]\nport = 9000"),
        ("NO_AUTH: unknown key", "NO_AUTH = true"),
        ("port: expected `int`, got `str`", 'port = "9000"'),
        ("port: expected `int`, got `bool`", "port = true"),
        ("port: expected `int`, got `float`", "port = 9000.5"),
        ("port: expected `int` >= 1", "port = 0"),
        ("port: expected `int` <= 65535", "port = 65536"),
        ("device: invalid enum value 'tpu'; one of: auto, cpu, cuda, mps", 'device = "tpu"'),
        ("dtype: invalid enum value 'float64'", 'dtype = "float64"'),
        ("on_overflow: invalid enum value 'ignore'", 'on_overflow = "ignore"'),
        ("log_format: invalid enum value 'xml'", 'log_format = "xml"'),
        ("api_key: expected `str` matching regex '^[!-~]+$'", 'api_key = ""'),
        ("otlp_endpoint: expected `str` matching regex '^https?://'", 'otlp_endpoint = "collector:4317"'),
        ("no_auth: expected `bool`, got `str`", 'no_auth = "false"'),
        ("max_body_bytes: expected `int` >= 1", "max_body_bytes = 0"),
        ("batch_tokens: expected `int` >= 1", "batch_tokens = -1"),
        ("request_timeout_s: expected `float` > 0.0", "request_timeout_s = 0"),
        ("request_timeout_s: expected `float` > 0.0", "request_timeout_s = nan"),
        ("models: expected `array` of length >= 1", "models = []"),
        ("models: expected `array`, got `object`", '[models]\nname = "a"'),
        ("models[0]: expected `object`, got `str`", 'models = ["a"]'),
        ("models[0]: object missing required field `name`", '[[models]]\naliases = ["b"]'),
        ("models[0].name: expected `str` of length >= 1", '[[models]]\nname = ""'),
        (
            "models[1].dtpye: unknown key; did you mean dtype?",
            '[[models]]\nname = "a"\n[[models]]\nname = "b"\ndtpye = "float16"',
        ),
        ("models[1].dtype: invalid enum value 'f8'", '[[models]]\nname = "a"\n[[models]]\nname = "b"\ndtype = "f8"'),
        ("models[0].aliases: expected `array`, got `str`", '[[models]]\nname = "a"\naliases = "b"'),
        ("models[0].aliases[1]: expected `str`, got `int`", '[[models]]\nname = "a"\naliases = ["b", 1]'),
        ("models[0].max_tokens: expected `int` >= 1", '[[models]]\nname = "a"\nmax_tokens = 0'),
    ],
)
def test_a_bad_line_of_the_file_is_refused_with_the_file_and_the_path_in_it(
    expected: str, line: str, toml: Path
) -> None:
    toml.write_text(line)

    with pytest.raises(SettingsError) as refused:
        load_settings(file=toml, environ={})

    said = str(refused.value)
    assert said.startswith(f"{toml}: {expected}")


@pytest.mark.parametrize(
    ("expected", "variable", "text"),
    [
        ("unknown key; did you mean NEARFAR_PORT?", "NEARFAR_PROT", "9000"),
        ("unknown key; did you mean NEARFAR_CACHE_DIR?", "NEARFAR_CACHE", "9000"),
        ("unknown key", "NEARFAR_", "x"),
        ("unknown key", "NEARFAR_MODELS__0__NAME", "x"),
        ("expected `int`", "NEARFAR_PORT", "nine"),
        ("expected `int`", "NEARFAR_PORT", ""),
        ("expected `int` >= 1", "NEARFAR_PORT", "0"),
        ("invalid enum value 'float8'", "NEARFAR_DTYPE", "float8"),
        ("expected `str` matching regex '^[!-~]+$'", "NEARFAR_API_KEY", ""),
        ("expected `float` > 0.0", "NEARFAR_REQUEST_TIMEOUT_S", "-1"),
        ("expected `array` of length >= 1", "NEARFAR_MODELS", " , "),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(expected: str, variable: str, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ={variable: text})

    said = str(refused.value)
    assert said.startswith(f"{variable}: {expected}")


@pytest.mark.parametrize(
    ("expected", "argv"),
    [
        ("prot: unknown key; did you mean port?", {"prot": 9000}),
        ("port: expected `int`, got `str`", {"port": "9000"}),
        ("device: invalid enum value 'tpu'; one of: auto, cpu, cuda, mps", {"device": "tpu"}),
        ("models[0].bad: unknown key", {"models": [{"name": "a", "bad": 1}]}),
    ],
)
def test_a_bad_option_is_refused_with_its_path(expected: str, argv: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(argv, environ={})

    assert f"command line: {expected}" == str(refused.value)


def test_a_bad_value_is_refused_even_where_a_higher_place_overrides_it(toml: Path) -> None:
    toml.write_text("port = 0")

    with pytest.raises(SettingsError, match="port: expected `int` >= 1"):
        load_settings({"port": 9003}, file=toml, environ={})


def test_variables_of_other_programs_are_none_of_ours() -> None:
    settings = load_settings(environ={"PORT": "x", "nearfar_port": "x", "MY_NEARFAR_PORT": "x", "NEARFARPORT": "x"})

    assert Settings() == settings


def test_the_environment_can_name_the_file(toml: Path) -> None:
    toml.write_text("port = 9001")

    settings = load_settings(environ={"NEARFAR_CONFIG": str(toml)})

    assert settings.port == 9001


def test_a_file_named_on_the_command_line_replaces_the_one_named_in_the_environment(toml: Path, tmp_path: Path) -> None:
    toml.write_text("port = 9001")

    settings = load_settings(file=toml, environ={"NEARFAR_CONFIG": str(tmp_path / "never read.toml")})

    assert settings.port == 9001


def test_a_missing_file_is_refused(toml: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ={"NEARFAR_CONFIG": str(toml)})

    assert f"{toml}: can't be read (No such file or directory)" == str(refused.value)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(file=tmp_path, environ={})

    assert f"{tmp_path}: can't be read (Is a directory)" == str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"port = ",
        b'{"port": 9000}',
        b"port = 1\nport = 2",
        b'host = "\xff"',
        b"a = " + b"[" * 9000,
        b"port = " + b"9" * 9000,
    ],
)
def test_a_file_that_is_not_toml_is_refused(content: bytes, toml: Path) -> None:
    toml.write_bytes(content)

    with pytest.raises(SettingsError, match=f"^{re.escape(str(toml))}: is not TOML: "):
        load_settings(file=toml, environ={})


LOOPBACK = ("127.0.0.1", "127.8.9.10", "::1", "0:0:0:0:0:0:0:1", "localhost")
PUBLIC = ("0.0.0.0", "::", "192.168.1.5", "203.0.113.9", "2001:db8::1", "fe80::1", "server.example", "")  # noqa: S104 — nothing binds here


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_bind_without_a_key_is_refused(host: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({"host": host}, environ={})

    assert f"host: {host} {UNGUARDED}" == str(refused.value)


@pytest.mark.parametrize("host", PUBLIC)
@pytest.mark.parametrize("guard", [{"api_key": KEY}, {"no_auth": True}], ids=["a key", "no_auth"])
def test_a_public_bind_is_allowed_with(guard: dict[str, object], host: str) -> None:
    settings = load_settings({"host": host, **guard}, environ={})

    assert host == settings.host
    assert not is_loopback(host)


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_loopback_bind_needs_no_key(host: str) -> None:
    settings = load_settings({"host": host}, environ={})

    assert host == settings.host
    assert is_loopback(host)


def test_the_guard_and_the_host_may_come_from_different_places(toml: Path) -> None:
    toml.write_text(f'api_key = "{KEY}"')

    settings = load_settings({"host": "::"}, file=toml, environ={})

    assert KEY == settings.api_key


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format], ids=["repr", "str", "format", "format !r"])
def test_the_key_is_never_shown(show: type[str]) -> None:
    settings = Settings(api_key=KEY)

    shown = show(settings)

    assert KEY not in shown
    assert "api_key='set'" in shown


def test_the_key_is_never_shown_in_a_traceback_drawn_by_rich() -> None:
    """Litestar brings rich along, and rich asks an object for its fields before it asks for its repr."""
    settings = Settings(api_key=KEY)

    fields = dict(settings.__rich_repr__())

    assert KEY not in fields.values()


def test_no_key_is_shown_as_none() -> None:
    assert "api_key=None" in repr(Settings())


def test_settings_are_frozen() -> None:
    settings = Settings()

    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc]  # the point of the test
