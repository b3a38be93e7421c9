"""The settings come from four places, a later one wins, and an invalid value in any place is refused."""

from __future__ import annotations

import codecs
import json
import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from settings_fields import FIELDS, KEY

import nearfar
from nearfar.core.environment import injected_variables
from nearfar.core.errors import SettingsError
from nearfar.core.settings import BUILTIN_MODEL, ModelSettings, Settings, is_loopback, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK = ("127.0.0.1", "127.8.9.10", "::1", "[::1]", "0:0:0:0:0:0:0:1", "localhost", "Localhost", "ip6-localhost")
PUBLIC = ("0.0.0.0", "::", "192.168.1.5", "203.0.113.9", "2001:db8::1", "fe80::1", "server.example", "")  # noqa: S104 — nothing binds here

BAD_LINES = [
    ("prot: unknown key; did you mean port?", "prot = 9000"),
    ("deadline_s: unknown key; did you mean request_timeout_s?", "deadline_s = 9"),
    ("server: unknown key", "[server]\nport = 9000"),
    ("NO_AUTH: unknown key; did you mean no_auth?", "NO_AUTH = true"),
    ("NEARFAR_PORT: unknown key; did you mean port?", "NEARFAR_PORT = 1"),
    ("port: expected `int`, got `str`", 'port = "9000"'),
    ("port: expected `int`, got `bool`", "port = true"),
    ("port: expected `int`, got `float`", "port = 9000.5"),
    ("port: expected `int` >= 0", "port = -1"),
    ("port: expected `int` <= 65535", "port = 65536"),
    ("device: invalid enum value 'tpu'; one of: auto, cpu, cuda, mps", 'device = "tpu"'),
    ("dtype: invalid enum value 'float64'", 'dtype = "float64"'),
    ("on_overflow: invalid enum value 'ignore'", 'on_overflow = "ignore"'),
    ("log_format: invalid enum value 'xml'", 'log_format = "xml"'),
    ("api_key: is empty; take it out, or set a key", 'api_key = ""'),
    ("api_key: is empty; take it out, or set a key", 'api_key = "\\n"'),
    ("api_key: expected letters, digits and ASCII punctuation without white space", 'api_key = "a b"'),
    ("api_key: expected letters, digits and ASCII punctuation without white space", 'api_key = "schlüssel"'),
    ("otlp_endpoint: expected a URL that begins with http", 'otlp_endpoint = "collector:4317"'),
    ("hub_endpoint: expected a URL that begins with http", 'hub_endpoint = "hf-mirror.example"'),
    ("allowed_hosts[0]: expected a host name without scheme", 'allowed_hosts = ["https://a.example"]'),
    ("cors_origins[1]: expected an origin, such as", 'cors_origins = ["*", "https://a.example/ui"]'),
    ("root_path: expected a path such as", 'root_path = "nearfar"'),
    ("no_auth: expected `bool`, got `str`", 'no_auth = "false"'),
    ("max_body_bytes: expected `int` >= 1", "max_body_bytes = 0"),
    ("batch_tokens: expected `int` >= 1", "batch_tokens = -1"),
    ("request_timeout_s: expected `float` > 0.0", "request_timeout_s = 0"),
    ("request_timeout_s: expected `float` > 0.0", "request_timeout_s = nan"),
    ("models: expected `array` of length >= 1", "models = []"),
    ("models: expected `array`, got `object`; write [[models]] above the keys of each model", '[models]\nname = "a"'),
    ('models[0]: expected `object`, got `str`; write [[models]], and below it name = "…"', 'models = ["a"]'),
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
]
BAD_VARIABLES = [
    ("NEARFAR_PROT", "9000", "unknown key; did you mean NEARFAR_PORT?"),
    ("NEARFAR_CACHE", "9000", "unknown key; did you mean NEARFAR_CACHE_DIR?"),
    ("NEARFAR_", "x", "unknown key"),
    ("NEARFAR_MODELS__0__NAME", "x", "unknown key"),
    ("NEARFAR_PORT", "nine", "expected `int`"),
    ("NEARFAR_PORT", "", "is empty; unset it, or give it a value"),
    ("NEARFAR_MODELS", " ", "is empty; unset it, or give it a value"),
    ("NEARFAR_PORT", " \r\n", "is empty; unset it, or give it a value"),
    ("NEARFAR_PORT", "-1", "expected `int` >= 0"),
    ("NEARFAR_DTYPE", "float8", "invalid enum value 'float8'"),
    ("NEARFAR_API_KEY", "", "is empty; unset it, or give it a value"),
    ("NEARFAR_API_KEY", "a b", "expected letters, digits and ASCII punctuation without white space"),
    ("NEARFAR_API_KEY", "schlüssel", "expected letters, digits and ASCII punctuation without white space"),
    ("NEARFAR_REQUEST_TIMEOUT_S", "-1", "expected `float` > 0.0"),
    ("NEARFAR_MODELS", " , ", "expected `array` of length >= 1"),
    # A guess would either open the server to all or break the operator's script.
    *(("NEARFAR_NO_AUTH", text, "expected `bool`") for text in ("yes", "on", "2", "tru")),
    *(
        ("NEARFAR_MEMORY_BUDGET", text, "expected bytes, or a size such as 8GB or 500MiB")
        for text in ("much", "-1", "8 GB of it", "GB", "1e9")
    ),
]
BAD_OPTIONS: list[tuple[dict[str, object], str]] = [
    ({"prot": 9000}, "prot: unknown key; did you mean port?"),
    ({"port": "9000"}, "port: expected `int`, got `str`"),
    ({"device": "tpu"}, "device: invalid enum value 'tpu'; one of: auto, cpu, cuda, mps"),
    ({"models": [{"name": "a", "bad": 1}]}, "models[0].bad: unknown key"),
]
# variable, text → value
GOOD_VARIABLES = [
    *(("offline", text, value) for text, value in {"true": 1, "1": 1, "TRUE": 1, "false": 0, "0": 0}.items()),
    *(("api_key", text, text) for text in ("null", "None", "true", "12345")),
    *(
        ("memory_budget_bytes", text, size)
        for text, size in {
            "5000": 5000,
            "2kB": 2000,
            "1.5 MB": 1_500_000,
            "8GB": 8_000_000_000,
            "8gib": 8 * 1024**3,
            "1T": 10**12,
        }.items()
    ),
]
# Stray characters around a value: of a file that was mounted or sourced, or of an editor.
STRAY = (("", "\n"), ("", "\r\n"), (" ", ""), ("\t", " \n\n"), ("\ufeff", ""), ("\xa0", "\u200b"))
QUOTED = (('"', '"'), ("'", "'"), ('" ', '"\n'))  # as docker's env files keep them
CORS_ORIGINS = {
    "https://App.example.org/": "https://app.example.org",
    **{
        origin: origin
        for origin in (
            *("*", "null", "file://", "file://*", "http://localhost:*", "https://*.example.org", "https://a.test:8443"),
            *(
                "chrome-extension://*",
                "moz-extension://*",
                "app://obsidian.md",
                "http://192.168.1.*:*",
                "http://[::1]:80",
            ),
        )
    },
}
KUBERNETES = {
    "NEARFAR_PORT": "tcp://10.96.0.12:9000",
    "NEARFAR_SERVICE_HOST": "10.96.0.12",
    "NEARFAR_SERVICE_PORT": "9000",
    "NEARFAR_SERVICE_PORT_HTTP": "9000",
    "NEARFAR_PORT_9000_TCP": "tcp://10.96.0.12:9000",
    "NEARFAR_PORT_9000_TCP_PROTO": "tcp",
    "NEARFAR_PORT_9000_TCP_PORT": "9000",
    "NEARFAR_PORT_9000_TCP_ADDR": "10.96.0.12",
    "NEARFAR_EMBED_V2_PORT": "udp://[fd00::1]:53",  # of a Service called nearfar-embed-v2
    "NEARFAR_EMBED_V2_SERVICE_HOST": "fd00::1",
    "NEARFAR_EMBED_V2_SERVICE_PORT_GRPC_WEB": "53",
    "NEARFAR_EMBED_V2_PORT_53_UDP_ADDR": "fd00::1",
    "NEARFAR_METRICS_PORT_9_SCTP": "sctp://10.0.0.1:9",
    "NEARFAR_NAME": "/web/nearfar",  # of Docker's links
    "NEARFAR_ENV_LANG": "C.UTF-8",
}
MODEL_LISTS = {
    "a/b\nc/d\r\n": ["a/b", "c/d"],
    "one": ["one"],
    "one,owner/two@main": ["one", "owner/two@main"],
    " one , /a folder/with spaces ,": ["one", "/a folder/with spaces"],
    '["one", "owner/two"]': ["one", "owner/two"],
}
NOT_TOML = [
    b"port = ",
    b'{"port": 9000}',
    b"port = 1\nport = 2",
    b'host = "\xff"',
    b"a = " + b"[" * 9000,
    b"port = " + b"9" * 9000,
    "port = 1".encode("utf-16-le"),
    "port = 1".encode("utf-32"),
]


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "nearfar.toml"


def refusal(
    argv: Mapping[str, object] | None = None, *, file: Path | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Return the message of the SettingsError, or nothing if the settings are accepted."""
    try:
        load_settings(argv, file=file, environ=environ or {})
    except SettingsError as error:
        return str(error)
    return ""


def test_a_later_place_overrides_an_earlier_one(toml: Path) -> None:
    offenders = []
    for in_file, in_environment, in_argv in product((0, 9001), (0, 9002), (0, 9003)):
        toml.write_text(f"port = {in_file}" if in_file else "")
        environ = {"NEARFAR_PORT": str(in_environment)} if in_environment else {}
        port = load_settings({"port": in_argv} if in_argv else {}, file=toml, environ=environ).port
        if port != (in_argv or in_environment or in_file or 9000):
            offenders.append((in_file, in_environment, in_argv, port))

    assert [] == offenders


def test_places_are_merged_field_by_field(toml: Path) -> None:
    toml.write_text('engine = "fake"\nport = 9001\noffline = true')

    settings = load_settings({"dtype": "float16"}, file=toml, environ={"NEARFAR_PORT": "9002"})

    assert Settings(engine="fake", port=9002, offline=True, dtype="float16") == settings


def test_without_any_place_the_defaults_apply() -> None:
    settings = load_settings(environ={"PORT": "x", "nearfar_port": "x", "MY_NEARFAR_PORT": "x", "NEARFARPORT": "x"})

    assert Settings() == settings
    assert (ModelSettings(name=BUILTIN_MODEL),) == settings.models


def test_every_field_can_be_set_in_every_place(toml: Path) -> None:
    offenders = {*Settings.__struct_fields__} ^ {"models", *FIELDS}
    for field, (text, line, expected) in FIELDS.items():
        toml.write_text(line)
        in_environment = load_settings(environ={f"NEARFAR_{field.upper()}": text})
        in_file = load_settings(file=toml, environ={})
        in_argv = load_settings({field: expected}, environ={})
        if any(getattr(settings, field) != expected for settings in (in_environment, in_file, in_argv)):
            offenders.add(field)

    assert not offenders


def test_variables_are_parsed_by_the_type_of_their_field() -> None:
    offenders = [
        (field, text)
        for field, text, expected in GOOD_VARIABLES
        for variable in [f"NEARFAR_{field.upper().removesuffix('_BYTES')}"]
        if getattr(load_settings(environ={variable: text}), field) != expected
    ]
    for text, names in MODEL_LISTS.items():
        if [model.name for model in load_settings(environ={"NEARFAR_MODELS": text}).models] != names:
            offenders.append(("models", text))

    assert [] == offenders
    assert load_settings({"memory_budget": None}, environ={}).memory_budget_bytes is None


def test_stray_characters_around_a_value_are_removed_in_every_place(toml: Path) -> None:
    offenders = []
    for field, (text, _, expected) in FIELDS.items():
        for before, after in STRAY + QUOTED:
            environ = {f"NEARFAR_{field.upper()}": before + text + after}
            if getattr(load_settings(environ=environ), field) != expected:
                offenders.append((field, before, after))
    for before, after in STRAY:
        toml.write_text(f"host = {json.dumps(f'{before}[::1]{after}')}\napi_key = {json.dumps(before + KEY + after)}")
        settings = load_settings({"engine": f"{before}torch{after}"}, file=toml, environ={})
        if (settings.host, settings.api_key, settings.engine) != ("::1", KEY, "torch"):
            offenders.append(("TOML", before, after))

    assert [] == offenders


def test_prompts_keep_their_white_space(toml: Path) -> None:
    toml.write_text('[[models]]\nname = " a "\nprompts = {query = "query: ", document = "\\n"}')

    (model,) = load_settings(file=toml, environ={}).models

    assert ("a", {"query": "query: ", "document": "\n"}) == (model.name, model.prompts)


def test_variables_that_kubernetes_injects_are_ignored() -> None:
    """It sets them in every pod of a namespace with a Service called nearfar or nearfar-something."""
    settings = load_settings({"port": 9001}, environ=KUBERNETES | {"NEARFAR_OFFLINE": "true"})

    assert Settings(port=9001, offline=True) == settings
    assert list(KUBERNETES) == injected_variables(KUBERNETES)
    assert [] == injected_variables({"NEARFAR_PORT": "9000", "NEARFAR_HOST": "0.0.0.0"})  # noqa: S104 — nothing binds here
    assert "NEARFAR_PORT_RANGE: unknown key" in refusal(environ={"NEARFAR_PORT_RANGE": "1-2"})


def test_origins_may_have_wildcards_and_a_trailing_slash() -> None:
    settings = load_settings(environ={"NEARFAR_CORS_ORIGINS": ",".join(CORS_ORIGINS)})

    assert tuple(CORS_ORIGINS.values()) == settings.cors_origins


def test_a_file_may_have_a_byte_order_mark_or_be_utf_16(toml: Path) -> None:
    text = '# größe\r\nport = 9001\r\n[[models]]\r\nname = "ä"\r\n'

    found = []
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        toml.write_bytes(text.encode(encoding))
        found.append(load_settings(file=toml, environ={}))
    toml.write_bytes(codecs.BOM_UTF16_BE + text.encode("utf-16-be"))
    found.append(load_settings(file=toml, environ={}))

    assert [Settings(port=9001, models=(ModelSettings(name="ä"),))] * 4 == found


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


def test_a_list_of_models_replaces_that_of_an_earlier_place(toml: Path) -> None:
    toml.write_text('[[models]]\nname = "from the file"')

    settings = load_settings(file=toml, environ={"NEARFAR_MODELS": "from the environment"})

    assert ["from the environment"] == [model.name for model in settings.models]


def test_an_invalid_value_is_refused_with_its_place_and_path(toml: Path) -> None:
    offenders = []
    for expected, line in BAD_LINES:
        toml.write_text(line)
        if not (found := refusal(file=toml)).startswith(f"{toml}: {expected}"):
            offenders.append((line, found))
    for variable, text, expected in BAD_VARIABLES:
        if not (found := refusal(environ={variable: text})).startswith(f"{variable}: {expected}"):
            offenders.append((f"{variable}={text}", found))
    for argv, expected in BAD_OPTIONS:
        if (found := refusal(argv)) != f"command line: {expected}":
            offenders.append((str(argv), found))

    assert [] == offenders


def test_an_invalid_value_is_refused_even_if_a_later_place_overrides_it(toml: Path) -> None:
    toml.write_text("port = -1")

    assert "port: expected `int` >= 0" in refusal({"port": 9003}, file=toml)


def test_the_environment_can_name_the_file_and_the_command_line_replaces_it(toml: Path, tmp_path: Path) -> None:
    toml.write_text("port = 9001")

    named = load_settings(environ={"NEARFAR_CONFIG": str(toml)})
    replaced = load_settings(file=toml, environ={"NEARFAR_CONFIG": str(tmp_path / "never read.toml")})

    assert (9001, 9001) == (named.port, replaced.port)


def test_a_file_that_is_missing_or_not_toml_is_refused(toml: Path, tmp_path: Path) -> None:
    missing = refusal(environ={"NEARFAR_CONFIG": str(toml)})
    folder = refusal(file=tmp_path)
    offenders = []
    for content in NOT_TOML:
        toml.write_bytes(content)
        if not refusal(file=toml).startswith(f"{toml}: is not TOML: "):
            offenders.append(content)

    assert f"{toml}: can't be read (No such file or directory)" == missing
    assert f"{tmp_path}: can't be read (Is a directory)" == folder
    assert [] == offenders


def test_a_public_host_requires_a_key_or_no_auth(toml: Path) -> None:
    toml.write_text(f'api_key = "{KEY}"')
    unguarded = (
        "is reachable from other machines and no API key is set; "
        "set one (--api-key or NEARFAR_API_KEY), or use --no-auth to serve all clients"
    )

    offenders = [host for host in PUBLIC if refusal({"host": host}) != f"host: {host} {unguarded}" or is_loopback(host)]
    offenders += [
        f"{host} with {guard}"
        for host in PUBLIC
        for guard in ({"api_key": KEY}, {"api_keys_file": "keys.toml"}, {"no_auth": True})
        if refusal({"host": host, **guard})
    ]
    offenders += [host for host in PUBLIC if refusal({"host": host}, file=toml)]
    offenders += [host for host in LOOPBACK if refusal({"host": host})]
    offenders += [host for host in LOOPBACK if not is_loopback(host.strip("[]"))]

    assert [] == offenders


def test_the_key_is_never_shown() -> None:
    """Neither by us nor by rich, which asks for the fields before it asks for the repr."""
    settings = Settings(api_key=KEY)

    shown = [repr(settings), str(settings), f"{settings}", f"{settings!r}", str(settings.__rich_repr__())]

    assert [] == [text for text in shown if KEY in text]
    assert "api_key='set'" in shown[0]
    assert "api_key=None" in repr(Settings())


def test_settings_are_frozen() -> None:
    settings = Settings()

    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc]  # the point of the test


def test_no_pattern_of_a_setting_or_key_accepts_a_line_break_at_its_end() -> None:
    r"""``$`` matches before one, ``\Z`` doesn't."""
    source = Path(nearfar.__file__).parent
    found = [
        (file.name, pattern)
        for file in source.rglob("*.py")
        for pattern in re.findall(r"""pattern=r?(".*?"|'.*?')""", file.read_text())
        if pattern.endswith(('$"', "$'"))
    ]

    assert [] == found


HOSTS_WITH_MORE = {
    "http://127.0.0.1": "use --host 127.0.0.1",
    "https://embed.example.org/": "use --host embed.example.org",
    "127.0.0.1:9001": "use --host 127.0.0.1 --port 9001",
    "http://localhost:9001/v1": "use --host localhost --port 9001",
    "*": "use 0.0.0.0 for all addresses",
}


def test_a_host_with_more_than_a_host_is_answered_with_the_options() -> None:
    offenders = {
        host: refusal({"host": host}) for host, words in HOSTS_WITH_MORE.items() if words not in refusal({"host": host})
    }

    assert {} == offenders
