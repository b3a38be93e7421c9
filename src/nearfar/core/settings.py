"""The settings, from four places: defaults ← TOML file ← ``NEARFAR_*`` ← command line.

The only module that reads the environment. Every value is checked where it was read, so that a
complaint can name the place: ``NEARFAR_PORT: expected an integer``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct
from platformdirs import user_cache_path

from nearfar.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
_RENAMED = {
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
_LISTS = ("allowed_hosts", "cors_origins")  # by commas, in the environment
BUILTIN_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model to serve. Fields left None take the server's own setting of that name.

    ``name`` is the built-in model, a folder, or a Hugging Face name, optionally with ``@revision``. ``prompt`` names
    what is put before texts whose caller can't say what they are: ``query``, ``document``, one of the model's own
    prompts, or the empty name for none; None leaves it to the model's files. ``task`` says what a model is for whose
    files may be read in two ways, and refuses one that isn't for that. ``prompts`` take the place of those that
    the files, or the family, know; ``query`` and ``document`` are the names that ranking looks for. A model with
    ``pin`` stays in memory once it is there, unless it is told to go. ``int8_range`` is the R of int8 and uint8
    vectors: components from -R to R are told apart. None takes what suits unit vectors of the model's length.
    """

    name: Annotated[str, Meta(min_length=1)]
    aliases: tuple[str, ...] = ()
    engine: str | None = None
    device: Device | None = None
    dtype: Dtype | None = None
    on_overflow: OnOverflow | None = None
    max_tokens: Positive | None = None
    prompt: str | None = None
    load: Load | None = None
    pin: bool = False
    idle_timeout_s: Seconds | None = None
    int8_range: Annotated[float, Meta(gt=0)] | None = None
    prompts: dict[str, str] | None = None
    task: ModelTask | None = None


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator can decide. ``create_app`` takes one; nothing else configures the server."""

    models: Annotated[tuple[ModelSettings, ...], Meta(min_length=1)] = (ModelSettings(name=BUILTIN_MODEL),)
    engine: str = "auto"
    device: Device = "auto"
    dtype: Dtype = "auto"
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 9000
    api_key: Annotated[str, Meta(pattern=r"^[!-~]+$")] | None = None  # what an Authorization header can carry
    api_keys_file: str | None = None  # a file of them
    no_auth: bool = False
    allowed_hosts: tuple[HostName, ...] = ()  # Host headers to answer; hosts.py says what none means
    cors_origins: tuple[Origin, ...] = ()  # web pages that may ask
    tls_cert_file: str | None = None  # both, or neither: then http
    tls_key_file: str | None = None
    offline: bool = False
    hub_endpoint: str | None = None
    cache_dir: str | None = None  # None: this system's folder for caches
    threads: Positive | None = None  # None: all cores
    on_overflow: OnOverflow = "truncate"
    log_format: LogFormat = "auto"
    otlp_endpoint: Annotated[str, Meta(pattern="^https?://")] | None = None
    trace_sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0  # of requests whose callers don't say whether to trace
    tei_metrics: bool = False  # text-embeddings-inference's names beside ours
    max_body_bytes: Positive = 10_000_000
    receive_timeout_s: Seconds = 60.0  # for a request to arrive: its head, and then its body
    batch_tokens: Positive | None = None  # None: what the engine says suits its device
    queue_tokens: Positive = 600_000  # two of OpenAI's largest requests
    queue_requests: Positive = 10_000
    request_timeout_s: Seconds = 300.0
    forward_timeout_s: Seconds = 120.0  # a forward that takes longer hangs, and the worker is restarted
    drain_timeout_s: Seconds = 30.0
    load: Load = "start"
    while_loading: WhileLoading = "wait"
    memory_budget: Size | None = None  # for the weights of all loaded models; None: no limit
    idle_timeout_s: Seconds | None = None  # None: a model that nobody uses stays loaded

    @property
    def cache_path(self) -> Path:
        """Give the folder for what can be made again, such as converted models."""
        return Path(self.cache_dir).expanduser() if self.cache_dir else user_cache_path("nearfar")

    @property
    def api_keys_path(self) -> Path | None:
        """Give the file of keys."""
        return Path(self.api_keys_file).expanduser() if self.api_keys_file else None

    @property
    def memory_budget_bytes(self) -> int | None:
        """Give the budget in bytes."""
        return None if self.memory_budget is None else _bytes_of(self.memory_budget)

    def __repr__(self) -> str:
        """Show everything but the key, so that a log or a traceback can't leak it."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Give rich, which draws tracebacks where it is installed, the same fields as ``repr``."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["api_key"] = "set" if self.api_key else None
        return list(shown.items())


def load_settings(
    argv: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Merge the four places into one checked Settings.

    ``argv`` holds only what was said on the command line. Raises SettingsError, naming the place and the
    path inside it, for an unknown key, a bad value, an unreadable file, or an unguarded public bind.
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
    _refuse_unguarded_bind(settings)
    return settings


def our_variables() -> dict[str, str]:
    """Give the variables that set something, but for the one that names a file."""
    return {name: text for name, text in os.environ.items() if name.startswith("NEARFAR_") and name != "NEARFAR_CONFIG"}


def _read_toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: can't be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8 and numbers of 5,000 digits are ValueErrors
        raise SettingsError(f"{file}: is not TOML: {error}") from error


def _checked(values: dict[str, object], place: str, *, strict: bool = True) -> dict[str, object]:
    """Check one place's values on their own and return them, converted."""
    try:
        whole = msgspec.convert(values, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(place, str(error))) from error
    return {name: getattr(whole, name) for name in values}


def _explain(place: str, message: str) -> str:
    """Turn msgspec's wording into ours: ``FILE: models[0].dtype: invalid enum value 'x'``."""
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
    """Return what to say about a key that no setting has: its new name, or the nearest one where one is near."""
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
    """Read a size: ``500``, ``8GB`` (thousands), ``8GiB`` (1024s)."""
    number, unit = re.findall(r"([\d.]+) ?(\w*)", str(size).lower())[0]
    base = 1024 if "i" in unit else 1000
    return int(float(number) * base ** " kmgt".index(unit[:1].replace("b", "") or " "))


def _refuse_unguarded_bind(settings: Settings) -> None:
    if settings.api_key or settings.api_keys_file or settings.no_auth or is_loopback(settings.host):
        return
    raise SettingsError(
        f"host: {settings.host} is reachable from other machines and no API key is set; "
        "set one (--api-key or NEARFAR_API_KEY), or say --no-auth to serve everyone"
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a server bound to ``host``."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Tell whether the host is a number instead of a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def calm_openmp() -> None:
    """Let Torch's threads wait for each other for 2,000 turns and then sleep, unless the operator has said otherwise.

    They would turn for 30 billion: beside a neighbour on one of two cores a forward then took 750 ms instead of 23 ms,
    and with this nothing is lost when there is none. Must be called before torch is imported.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
