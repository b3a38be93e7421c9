"""The settings, merged from four places: defaults ← TOML file ← ``NEARFAR_*`` variables ← command line.

Each place is checked separately, so that an error can name it: ``NEARFAR_PORT: expected an integer``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct
from platformdirs import user_cache_path, user_state_path

from nearfar.core import environment
from nearfar.core.errors import SettingsError
from nearfar.core.settings_messages import explain, unknown_key
from nearfar.core.toml_files import read_toml, strip_text
from nearfar.core.types import TokenVocabulary

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "float16", "bfloat16", "int8"]
OnOverflow = Literal["truncate", "error"]
LogFormat = Literal["auto", "human", "json"]
ModelTask = Literal["embed", "rank", "multi_vector", "sparse", "classify"]
Load = Literal["start", "demand"]
WhileLoading = Literal["wait", "refuse"]

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
HostName = Annotated[str, Meta(pattern=r"^(\*|(\*\.)?[\w-]+(\.[\w-]+)*)\Z")]
# A * stands for any port, or for any part of a scheme or host.
Origin = Annotated[
    str, Meta(pattern=r"^(\*|null|[a-z*][a-z0-9+.*-]*://(\[[0-9a-f:.]+\]|[^/?#@:\[\]\s]*)(:(\d+|\*))?)\Z")
]
RootPath = Annotated[str, Meta(pattern=r"^((/[^/?#\s]+)+)?\Z")]
Url = Annotated[str, Meta(pattern="^https?://")]
Size = Positive | Annotated[str, Meta(pattern=r"(?i)^\d+(\.\d+)? ?([kmgt]i?)?b?\Z")]

_CHOICES = {
    name: ", ".join(get_args(choices))
    for name, choices in {
        "device": Device,
        "dtype": Dtype,
        "on_overflow": OnOverflow,
        "log_format": LogFormat,
        "load": Load,
        "while_loading": WhileLoading,
        "token_ids": TokenVocabulary,
    }.items()
}
_LOOPBACK_NAMES = {"localhost", "ip6-localhost", "ip6-loopback"}
_LISTS = ("allowed_hosts", "cors_origins")  # separated by commas in the environment
BUILTIN_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model to serve. A field that is None takes the server's setting of the same name, if there is one."""

    name: Annotated[str, Meta(min_length=1)]  # the built-in model, a folder, or a Hugging Face name[@revision]
    aliases: tuple[str, ...] = ()
    engine: str | None = None
    device: Device | None = None
    dtype: Dtype | None = None
    on_overflow: OnOverflow | None = None
    max_tokens: Positive | None = None  # lowers the model's own limit
    # For texts without a role: query, document, one of the model's prompts, or "" for none. None: the files' default.
    prompt: str | None = None
    load: Load | None = None
    pin: bool = False  # never evict it to load another
    idle_timeout_s: Seconds | None = None
    int8_range: Annotated[float, Meta(gt=0)] | None = None  # R of int8 vectors: -R to R map to bytes; None: by dim
    prompts: dict[str, str] | None = None  # replace the files' prompts; ranking uses those named query and document
    verify: bool | None = None
    # What token ids at /v1/embeddings are, unless the request's own ``token_ids`` differs.
    token_ids: TokenVocabulary = "openai"  # noqa: S105 — no password
    openai_limits: bool | None = None  # whether OpenAI's limits apply at /v1/embeddings; None: for its own model names
    task: ModelTask | None = None  # for files that allow two; a model that can't do it is refused


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a server. ``create_app`` takes one; nothing else configures it."""

    models: Annotated[tuple[ModelSettings, ...], Meta(min_length=1)] = (ModelSettings(name=BUILTIN_MODEL),)
    engine: str = "auto"  # torch, openvino, mlx or a plugin's; auto: the best that runs here
    device: Device = "auto"
    dtype: Dtype = "auto"  # auto: the fastest that keeps the model's precision
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9000  # 0: any free one, which the log names
    api_key: Annotated[str, Meta(pattern=r"^[!-~]+\Z")] | None = None  # only what an Authorization header can carry
    api_keys_file: str | None = None  # TOML file of keys with names, scopes and limits
    no_auth: bool = False  # allows a public host without a key
    allowed_hosts: tuple[HostName, ...] = ()  # Host headers to accept; see http/gate/hosts.py for the default
    cors_origins: tuple[Origin, ...] = ()  # web pages that may send requests
    root_path: RootPath = ""  # a prefix of every path that a proxy in front passes on
    tls_cert_file: str | None = None  # PEM; set with tls_key_file, or neither for plain HTTP
    tls_key_file: str | None = None
    offline: bool = False  # never download anything
    hub_endpoint: Url | None = None  # a mirror of the Hugging Face Hub
    cache_dir: str | None = None  # for converted models; None: the system's cache folder
    state_dir: str | None = None  # for files and batches; None: the system's folder for what programs keep
    threads: Positive | None = None  # CPU threads of the models; None: all cores
    single_row_models: bool = True  # compile a model again for rows that run alone, if the engine can
    verify: bool = True  # compare a model with the library that wrote it, at its first load
    on_overflow: OnOverflow = "truncate"  # texts over a model's limit: truncate them, or answer with an error
    log_format: LogFormat = "auto"  # auto: human on a terminal, json elsewhere
    otlp_endpoint: Url | None = None  # OpenTelemetry collector for traces
    trace_sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0  # of requests that carry no trace of their client
    rerank_documents: bool = False  # /rerank returns documents to all but Infinity's clients, as vLLM does
    max_body_bytes: Positive = 10_000_000
    max_inputs: Positive = 65_536  # texts, pairs or documents of one request; a protocol's own limit may be lower
    max_answer_bytes: Positive = 128_000_000  # of the numbers in one answer, 12 bytes each
    receive_timeout_s: Seconds = 60.0  # for the body of a request to arrive
    keep_alive_timeout_s: Seconds = 120.0  # for the headers of the next request to arrive on a connection
    max_upload_bytes: Positive = 512_000_000  # of large bodies that arrive at once
    write_timeout_s: Seconds = 60.0  # for a client to read the next part of its answer
    max_unread_bytes: Positive = 512_000_000  # of large answers that clients haven't read yet
    max_file_bytes: Positive = 512_000_000  # of an uploaded file
    max_stored_bytes: Positive = 20_000_000_000  # of all files of one key
    max_stored_files: Positive = 100_000  # of one key
    max_batch_requests: Positive = 50_000  # lines of a batch, and texts in all of them
    batch_tokens: Positive | None = None  # None: the engine's default for its device
    queue_tokens: Positive = 600_000  # that may wait for a model: two of OpenAI's largest requests
    queue_requests: Positive = 10_000  # that may wait for a model
    request_timeout_s: Seconds = 300.0  # from arrival to answer
    forward_timeout_s: Seconds = 120.0  # of one forward pass; the worker is restarted if it takes longer
    drain_timeout_s: Seconds = 30.0  # for requests in flight to finish when the server stops
    heartbeat_timeout_s: Seconds = 60.0  # a worker that is stuck for that long is replaced
    reload_timeout_s: Seconds = 1800.0  # for a reload's worker to open its models, some of which may be downloaded
    load: Load = "start"  # load models at the start, or on demand
    while_loading: WhileLoading = "wait"  # requests for a model that is loading: wait, or refuse with a 503
    memory_budget: Size | None = None  # for the weights of all loaded models; None: no limit
    idle_timeout_s: Seconds | None = None  # unload a model after that long without requests; None: never

    @property
    def cache_path(self) -> Path | None:
        """Return the folder for converted models and other files that can be made again; None without a home folder."""
        try:
            return Path(self.cache_dir).expanduser() if self.cache_dir else user_cache_path("nearfar")
        except RuntimeError:  # neither HOME nor an entry in passwd
            return None

    @property
    def state_path(self) -> Path | None:
        """Return the folder for files and batches; None without a home folder."""
        try:
            return Path(self.state_dir).expanduser() if self.state_dir else user_state_path("nearfar")
        except RuntimeError:  # neither HOME nor an entry in passwd
            return None

    @property
    def api_keys_path(self) -> Path | None:
        """Return the file of keys. Raises SettingsError for ``~`` without a home folder."""
        try:
            return Path(self.api_keys_file).expanduser() if self.api_keys_file else None
        except RuntimeError as error:
            why = f"api_keys_file: {self.api_keys_file} needs a home folder, and there is none; use an absolute path"
            raise SettingsError(why) from error

    @property
    def memory_budget_bytes(self) -> int | None:
        """Return the budget in bytes."""
        return None if self.memory_budget is None else _bytes_of(self.memory_budget)

    def __repr__(self) -> str:
        """Return all fields but the key, so that logs and tracebacks can't leak it."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return the fields that rich prints in tracebacks: the same as ``repr``."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["api_key"] = "set" if self.api_key else None
        return list(shown.items())


def load_settings(
    argv: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Merge the four places into one Settings.

    ``argv`` has only the options that are on the command line. Raises SettingsError, with the place and the path inside
    it, for an unknown key, an invalid value, an unreadable file, or a public host without a key.
    """
    ours = environment.our_variables(environ)
    named = ours.pop("NEARFAR_CONFIG", None)
    file = file or (Path(named) if named else None)
    merged: dict[str, object] = {}
    if file:
        merged |= _checked(read_toml(file), str(file))
    merged |= _from_environment(ours)
    merged |= _checked(dict(argv or {}), "command line")
    settings = msgspec.convert(merged, Settings)
    _refuse_urls_as_hosts(settings.host)
    _refuse_devices_as_engines(settings)
    _require_key_for_public_host(settings)
    return settings


def _refuse_urls_as_hosts(host: str) -> None:
    name = host.rpartition("//")[2].partition("/")[0]
    if not is_address(host) and name.count(":") == 1:
        name, _, port = name.partition(":")
        raise SettingsError(f"host: {host} has a port; use --host {name} --port {port}")
    if name != host:
        raise SettingsError(f"host: {host} is a URL; use --host {name}")
    if host == "*":
        raise SettingsError("host: * isn't an address; use 0.0.0.0 for all addresses of IPv4, or :: for IPv6, too")


def _refuse_devices_as_engines(settings: Settings) -> None:
    for engine in (settings.engine, *(model.engine for model in settings.models)):
        if engine in {"cpu", "cuda", "mps", "gpu"}:
            device = "cuda" if engine == "gpu" else engine
            raise SettingsError(f"engine: {engine} is a device; use --device {device}, and leave the engine to auto")


def _checked(values: Mapping[str, object], place: str, *, strict: bool = True) -> dict[str, object]:
    """Validate the values of one place and return them, converted."""
    stripped = {name: _strip(name, value) for name, value in values.items()}
    if stripped.get("api_key") == "":
        raise SettingsError(f"{place}: api_key: is empty; take it out, or set a key")
    try:
        whole = msgspec.convert(stripped, Settings, strict=strict)
    except msgspec.ValidationError as error:
        known = {"": Settings.__struct_fields__, "models": ModelSettings.__struct_fields__}
        raise SettingsError(explain(place, str(error), known=known, choices=_CHOICES)) from error
    return {name: getattr(whole, name) for name in values}


def _strip(name: str, value: object, depth: int = 3) -> object:
    """Remove white space around each string of a value; prompts keep it, because models are trained with it.

    No setting is nested more deeply than ``depth``.
    """
    if isinstance(value, str):
        text = strip_text(value)
        if name == "host":
            return text.removeprefix("[").removesuffix("]")
        if name == "cors_origins":
            return re.sub(r"(?<=[^/])/$", "", text).lower()
        return text.rstrip("/") if name == "root_path" else text
    if isinstance(value, list | tuple) and depth:
        return [_strip(name, item, depth - 1) for item in value]
    if isinstance(value, dict) and depth:
        return {key: item if key == "prompts" else _strip(key, item, depth - 1) for key, item in value.items()}
    return value


def _from_environment(ours: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for variable, text in ours.items():
        field = variable.removeprefix(environment.PREFIX).lower()
        if field not in Settings.__struct_fields__:
            raise SettingsError(f"{variable}: {unknown_key(field, Settings.__struct_fields__, environment.PREFIX)}")
        value: object = text
        if not text and field not in _LISTS:
            raise SettingsError(f"{variable}: is empty; unset it, or give it a value")
        if field == "models":
            value = [{"name": name} for name in _items(text)]
        elif field in _LISTS:
            value = _items(text)
        try:
            values |= _checked({field: value}, variable, strict=False)
        except SettingsError as error:
            raise SettingsError(str(error).replace(f"{variable}: {field}", variable, 1)) from error
    return values


def _items(text: str) -> list[str]:
    """Parse a list in a variable: ``a, b``, one item a line as in YAML's blocks, or JSON's ``["a", "b"]``."""
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(text, type=list[str])
    return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]


def _bytes_of(size: int | str) -> int:
    """Parse a size: ``500``, ``8GB`` (10^9), ``8GiB`` (2^30)."""
    number, unit = re.findall(r"([\d.]+) ?(\w*)", str(size).lower())[0]
    base = 1024 if "i" in unit else 1000
    return int(float(number) * base ** " kmgt".index(unit[:1].replace("b", "") or " "))


def _require_key_for_public_host(settings: Settings) -> None:
    if settings.api_key or settings.api_keys_file or settings.no_auth or is_loopback(settings.host):
        return
    raise SettingsError(
        f"host: {settings.host} is reachable from other machines and no API key is set; "
        "set one (--api-key or NEARFAR_API_KEY), or use --no-auth to serve all clients"
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server bound to ``host``."""
    return host.lower() in _LOOPBACK_NAMES or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Return whether the host is an IP address instead of a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
