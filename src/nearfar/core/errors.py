"""Every error this package raises, as one tree of causes. No HTTP status, no vendor's wording.

NearfarError
├── RequestError                    the client can fix it
│   ├── InputError                  a field of the request is wrong
│   │   ├── MalformedBody           the body isn't JSON
│   │   ├── EncodingNotSupported    the body has a content encoding or charset that the server can't read
│   │   ├── BodyTooLarge            more bytes or values than the server reads
│   │   ├── BodyTimeout             the body arrives too slowly
│   │   ├── AmbiguousLength         a transfer encoding that programs in between may read differently
│   │   ├── ModelRequired           no model is named, and the protocol requires one
│   │   ├── EmptyInput              nothing to embed or rank
│   │   ├── TooManyItems            more items than the protocol allows
│   │   ├── AnswerTooLarge          the answer would have more bytes than the server sends
│   │   ├── TextTooLong             one text has too many tokens
│   │   ├── TooManyTokens           all texts together have too many tokens
│   │   ├── InvalidDimensions       a vector length that the model can't return
│   │   └── InvalidTokenIds         ids that no known vocabulary decodes
│   ├── ModelNotFound               no model has this name
│   ├── WrongTask                   the model does something else
│   ├── PathNotFound                no route has this path
│   ├── MethodNotAllowed            the route exists, with another method
│   ├── ApiKeyMissing               no API key
│   ├── ApiKeyInvalid               an unknown API key
│   ├── Forbidden                   the API key lacks the scope
│   ├── HostNotAllowed              an unknown Host header or web page
│   ├── HeadTooLarge                too many headers
│   ├── ObjectNotFound              no file or batch of this caller has the id
│   └── ClientDisconnected          the client closed the connection before the answer
├── ServingError                    the client can only retry
│   ├── Overloaded                  the queue is full
│   ├── DeadlineExceeded            it took too long
│   ├── ModelNotReady               a model is still loading, or failed to load
│   ├── ShuttingDown                the server is shutting down
│   ├── StorageUnavailable          files and batches can't be read or written
│   │   └── StorageFull             the disk is full
│   ├── EngineError                 the engine raised, or returned an invalid result
│   ├── DeviceOutOfMemory           one text alone needs more memory than the device has
│   └── InternalError               a bug; the log has the traceback
└── SetupError                      the operator can fix it; the server doesn't start
    ├── SettingsError               a setting
    ├── CheckpointError             a model's files
    ├── EngineUnavailable           an engine that can't run here
    └── ServiceManagerError         systemd or launchd
"""

from __future__ import annotations

from typing import ClassVar

from nearfar.core.types import QueueCapacity

MAX_RETRY_AFTER_S = 60  # clients stop retrying altogether when the server asks them to wait much longer


class NearfarError(Exception):
    """Base class of every error that this package raises on purpose."""


class RequestError(NearfarError):
    """Raised if the request can't be answered as it is; the client can change it."""


class InputError(RequestError):
    """Raised if a field of the request is wrong. ``param`` is the field, as the client spells it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class MalformedBody(InputError):
    """Raised if the body isn't JSON: cut short, not UTF-8, or nested too deeply."""


class EncodingNotSupported(InputError):
    """Raised if the body has a content encoding or a charset that the server can't read."""


class BodyTooLarge(InputError):
    """Raised if the body has more bytes than ``max_body_bytes``, or more values than are decoded at once."""


class BodyTimeout(InputError):
    """Raised if the body doesn't arrive within ``receive_timeout_s``."""


class AmbiguousLength(InputError):
    """Raised if the transfer encoding is not ``chunked`` alone: programs in between may see another end of the body."""


class ModelRequired(InputError):
    """Raised if the request names no model, and its protocol has no default."""


class EmptyInput(InputError):
    """Raised if there is nothing to embed or rank."""


class TooManyItems(InputError):
    """Raised if a list is longer than the protocol or ``max_inputs`` allows."""

    def __init__(self, param: str, count: int, limit: int) -> None:
        super().__init__(f"{param} has {count} items; at most {limit} are allowed", param)
        self.count = count
        self.limit = limit


class AnswerTooLarge(InputError):
    """Raised if the answer would have more bytes than ``max_answer_bytes``."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the answer would have about {size / 1e6:,.0f} MB, and this server sends at most {limit / 1e6:,.0f} MB "
            "(max_answer_bytes); send fewer texts at once"
        )


class TextTooLong(InputError):
    """Raised if a text has more tokens than the protocol or, with ``on_overflow = "error"``, the model takes."""

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        super().__init__(f"text {index} has {tokens} tokens; at most {limit} are allowed")
        self.index = index
        self.tokens = tokens
        self.limit = limit


class TooManyTokens(InputError):
    """Raised if all texts of a request together have more tokens than the protocol takes."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"the texts have {tokens} tokens together; at most {limit} are allowed")
        self.tokens = tokens
        self.limit = limit


class InvalidDimensions(InputError):
    """Raised if the request asks for a vector length that the model can't return."""

    def __init__(self, dimensions: int, limit: int) -> None:
        reason = f"exceeds this model's {limit}" if dimensions > limit else "is less than 1"
        super().__init__(f"dimensions={dimensions} {reason}", "dimensions")
        self.dimensions = dimensions
        self.limit = limit


class InvalidTokenIds(InputError):
    """Raised if token ids can't be decoded into text."""


class ModelNotFound(RequestError):
    """Raised if no served model has the name. ``listing``: the request only asked for its description."""

    def __init__(self, model: str, *, listing: bool = False) -> None:
        self.model = model[:200]  # the message repeats it, and it may be a book
        super().__init__(f"model {self.model!r} is not served here")
        self.listing = listing


class WrongTask(RequestError):
    """Raised if the model can't do the task, such as a reranker that is asked to embed."""

    _WORDS: ClassVar = {"multi_vector": "return a vector for each token", "sparse": "return sparse vectors"}

    def __init__(self, model: str, task: str) -> None:
        super().__init__(f"model {model!r} can't {self._WORDS.get(task, task)}")
        self.model = model
        self.task = task


class PathNotFound(RequestError):
    """Raised if no route has the path."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"no such path: {method} {path}")
        self.method = method
        self.path = path


class MethodNotAllowed(RequestError):
    """Raised if the route exists, but only for the ``allowed`` methods."""

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed on {path}, only {', '.join(allowed)}")
        self.allowed = allowed


class ApiKeyMissing(RequestError):
    """Raised if the server requires an API key and the request has none."""


class ApiKeyInvalid(RequestError):
    """Raised if the API key is unknown. The error doesn't contain the key."""


class Forbidden(RequestError):
    """Raised if the API key lacks the ``scope`` that the route needs. ``name`` is the key's name, from its file."""

    def __init__(self, name: str, scope: str) -> None:
        super().__init__(f"the key {name!r} has no scope {scope!r}")
        self.name = name
        self.scope = scope


class HostNotAllowed(RequestError):
    """Raised if the Host header isn't in ``allowed_hosts``, or the web page's origin isn't in ``cors_origins``."""


class HeadTooLarge(RequestError):
    """Raised if a request has too many headers."""


class ObjectNotFound(RequestError):
    """Raised if the caller has no such object with this id. ``kind`` is such as ``File`` or ``Batch``."""

    def __init__(self, kind: str, object_id: str) -> None:
        super().__init__(f"No such {kind} object: {object_id[:100]}")


class ClientDisconnected(RequestError):
    """Raised if the client closed the connection before the answer; its queued work is dropped."""


class ServingError(NearfarError):
    """Raised if a valid request can't be answered now. ``retry_after_s`` is when to retry, if known."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(ServingError):
    """Raised if a queue or a rate limit is full. ``capacity`` is that of the model's queue; None for other limits."""

    def __init__(self, message: str, retry_after_s: float | None = None, capacity: QueueCapacity | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.capacity = capacity


class DeadlineExceeded(ServingError):
    """Raised if the answer takes longer than ``request_timeout_s``."""


class ModelNotReady(ServingError):
    """Raised if the model is still loading, or failed to load."""


class ShuttingDown(ServingError):
    """Raised if the server is shutting down and accepts no new requests."""


class StorageUnavailable(ServingError):
    """Raised if the state folder can't be read or written, or another server uses it."""


class StorageFull(StorageUnavailable):
    """Raised if the disk of the state folder is full."""


class EngineError(ServingError):
    """Raised if the engine raised, or returned an invalid result. The cause is chained, and never sent."""


class DeviceOutOfMemory(ServingError):
    """Raised if a text needs more memory than the device has, even in a batch of one."""


class InternalError(ServingError):
    """Raised if there is a bug. The log has the traceback; the client gets only this."""


class SetupError(NearfarError):
    """Raised if the server can't start. The message is one sentence, with what to change."""


class SettingsError(SetupError):
    """Raised if a setting is unknown or has an invalid value. The message begins with the place it was read from."""


class CheckpointError(SetupError):
    """Raised if a model's files are missing or damaged, or need something that this version can't do."""


class EngineUnavailable(SetupError):
    """Raised if an engine isn't installed, or can't run on this machine."""


class ServiceManagerError(SetupError):
    """Raised if a command of systemd or launchd fails, or a unit can't be written."""
