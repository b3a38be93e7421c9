"""The settings, merged from four places: defaults ← TOML file ← ``NEARFAR_*`` variables ← command line.

The only module that reads the environment. Each place is checked separately, so that an error can name it:
``NEARFAR_PORT: expected an integer``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct
from platformdirs import user_cache_path

from nearfar.core.errors import SettingsError

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "float16", "bfloat16", "int8"]
OnOverflow = Literal["truncate", "error"]
LogFormat = Literal["auto", "human", "json"]
ModelTask = Literal["embed", "rank", "multi_vector", "sparse", "classify"]
Load = Literal["start", "demand"]
WhileLoading = Literal["wait", "refuse"]

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
HostName = Annotated[str, Meta(pattern=r"^(\*|(\*\.)?[\w-]+(\.[\w-]+)*)$")]
Origin = Annotated[str, Meta(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/*?# ]+)$")]
Size = Positive | Annotated[str, Meta(pattern=r"(?i)^\d+(\.\d+)? ?([kmgt]i?)?b?$")]

_CHOICES: dict[str, object] = {
    "device": Device,
    "dtype": Dtype,
    "on_overflow": OnOverflow,
    "log_format": LogFormat,
    "load": Load,
    "while_loading": WhileLoading,
}
_RENAMED = {  # keys of earlier versions
    "api_keys": "api_keys_file",
    "cache": "cache_dir",
    "deadline_s": "request_timeout_s",
    "drain_s": "drain_timeout_s",
    "forward_limit_s": "forward_timeout_s",
    "idle_s": "idle_timeout_s",
    "receive_s": "receive_timeout_s",
    "tls_cert": "tls_cert_file",
    "tls_key": "tls_key_file",
    "trace_share": "trace_sample_ratio",
}
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
    task: ModelTask | None = None  # for files that allow two; a model that can't do it is refused


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a server. ``create_app`` takes one; nothing else configures it."""

    models: Annotated[tuple[ModelSettings, ...], Meta(min_length=1)] = (ModelSettings(name=BUILTIN_MODEL),)
    engine: str = "auto"  # torch, openvino, mlx or a plugin's; auto: the best that runs here
    device: Device = "auto"
    dtype: Dtype = "auto"  # auto: the fastest that keeps the model's precision
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9000  # 0: any free one, which the log names
    api_key: Annotated[str, Meta(pattern=r"^[!-~]+$")] | None = None  # only what an Authorization header can carry
    api_keys_file: str | None = None  # TOML file of keys with names, scopes and limits
    no_auth: bool = False  # allows a public host without a key
    allowed_hosts: tuple[HostName, ...] = ()  # Host headers to accept; see http/hosts.py for the default
    cors_origins: tuple[Origin, ...] = ()  # web pages that may send requests
    tls_cert_file: str | None = None  # PEM; set with tls_key_file, or neither for plain HTTP
    tls_key_file: str | None = None
    offline: bool = False  # never download anything
    hub_endpoint: str | None = None  # a mirror of the Hugging Face Hub
    cache_dir: str | None = None  # for converted models; None: the system's cache folder
    threads: Positive | None = None  # CPU threads of the models; None: all cores
    on_overflow: OnOverflow = "truncate"  # texts over a model's limit: truncate them, or answer with an error
    log_format: LogFormat = "auto"  # auto: human on a terminal, json elsewhere
    otlp_endpoint: Annotated[str, Meta(pattern="^https?://")] | None = None  # OpenTelemetry collector for traces
    trace_sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0  # of requests that carry no trace of their client
    max_body_bytes: Positive = 10_000_000
    receive_timeout_s: Seconds = 60.0  # for the headers of a request to arrive, and again for its body
    batch_tokens: Positive | None = None  # None: the engine's default for its device
    queue_tokens: Positive = 600_000  # that may wait for a model: two of OpenAI's largest requests
    queue_requests: Positive = 10_000  # that may wait for a model
    request_timeout_s: Seconds = 300.0  # from arrival to answer
    forward_timeout_s: Seconds = 120.0  # of one forward pass; the worker is restarted if it takes longer
    drain_timeout_s: Seconds = 30.0  # for requests in flight to finish when the server stops
    load: Load = "start"  # load models at the start, or on demand
    while_loading: WhileLoading = "wait"  # requests for a model that is loading: wait, or refuse with a 503
    memory_budget: Size | None = None  # for the weights of all loaded models; None: no limit
    idle_timeout_s: Seconds | None = None  # unload a model after that long without requests; None: never

    @property
    def cache_path(self) -> Path:
        """Return the folder for converted models and other files that can be made again."""
        return Path(self.cache_dir).expanduser() if self.cache_dir else user_cache_path("nearfar")

    @property
    def api_keys_path(self) -> Path | None:
        """Return the file of keys."""
        return Path(self.api_keys_file).expanduser() if self.api_keys_file else None

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
    environ = os.environ if environ is None else environ
    ours = {name: value for name, value in environ.items() if name.startswith("NEARFAR_")}
    named = ours.pop("NEARFAR_CONFIG", None)
    file = file or (Path(named) if named else None)
    merged: dict[str, object] = {}
    if file:
        merged |= _checked(_read_toml(file), str(file))
    merged |= _from_environment(ours)
    merged |= _checked(dict(argv or {}), "command line")
    settings = msgspec.convert(merged, Settings)
    _require_key_for_public_host(settings)
    return settings


def nearfar_variables() -> dict[str, str]:
    """Return the NEARFAR_ variables of the environment, except the one that names the TOML file."""
    return {name: text for name, text in os.environ.items() if name.startswith("NEARFAR_") and name != "NEARFAR_CONFIG"}


def pop_notify_socket() -> str | None:
    """Return the address that systemd wants state reports at, and hide it from child processes."""
    return os.environ.pop("NOTIFY_SOCKET", None)


def _read_toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: can't be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8 and numbers of 5,000 digits are ValueErrors
        raise SettingsError(f"{file}: is not TOML: {error}") from error


def _checked(values: dict[str, object], place: str, *, strict: bool = True) -> dict[str, object]:
    """Validate the values of one place and return them, converted."""
    try:
        whole = msgspec.convert(values, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(place, str(error))) from error
    return {name: getattr(whole, name) for name in values}


def _explain(place: str, message: str) -> str:
    """Rewrite msgspec's message: ``FILE: models[0].dtype: invalid enum value 'x'; one of: …``."""
    message, _, path = message.partition(" - at `")
    where = path.rstrip("`").removeprefix("$").removeprefix(".")
    if unknown := re.search(r"unknown field `(.+)`", message):
        known = (ModelSettings if where.startswith("models") else Settings).__struct_fields__
        where, message = (f"{where}.{unknown[1]}" if where else unknown[1]), _unknown_key(unknown[1], known)
    choices = get_args(_CHOICES.get(where.rpartition(".")[2] or place.removeprefix("NEARFAR_").lower()))
    if choices:
        message += f"; one of: {', '.join(choices)}"
    if message.startswith("Expected `bool`"):
        message += "; true or false"
    if "matching regex" in message and (where or place.lower()).endswith("memory_budget"):
        message = "expected bytes, or a size such as 8GB or 500MiB"
    return ": ".join(part for part in (place, where, message[:1].lower() + message[1:]) if part)


def _unknown_key(key: str, known: Sequence[str], prefix: str = "") -> str:
    """Return the message for an unknown key, with its new name or the most similar key if there is one."""
    near = [_RENAMED.get(key, ""), *get_close_matches(key, known, n=1, cutoff=0.6)]
    name = next((name for name in near if name in known), "")
    return f"unknown key; did you mean {prefix}{name.upper() if prefix else name}?" if name else "unknown key"


def _from_environment(ours: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for variable, text in ours.items():
        field = variable.removeprefix("NEARFAR_").lower()
        if field not in Settings.__struct_fields__:
            raise SettingsError(f"{variable}: {_unknown_key(field, Settings.__struct_fields__, 'NEARFAR_')}")
        value: object = text
        if field == "models":
            value = [{"name": name.strip()} for name in text.split(",") if name.strip()]
        elif field in _LISTS:
            value = [part.strip() for part in text.split(",") if part.strip()]
        try:
            values |= _checked({field: value}, variable, strict=False)
        except SettingsError as error:
            raise SettingsError(str(error).replace(f"{variable}: {field}", variable, 1)) from error
    return values


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
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Return whether the host is an IP address instead of a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_openmp_spinning() -> None:
    """Make OpenMP's threads sleep after 2,000 spins of waiting for each other, unless the variable is set already.

    They spin 30 billion times by default. With another busy process on one of two cores, a forward pass then took
    750 ms instead of 23 ms; without one, the limit costs nothing. Must run before torch is imported.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
