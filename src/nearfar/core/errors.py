"""What can go wrong, as one tree. Knows causes; knows no HTTP status and no dialect's wording.

NearfarError
├── RequestError                the caller can mend it
│   ├── InputError              a field of the request is wrong
│   │   ├── MalformedBody       not JSON
│   │   ├── BodyTooLarge        more bytes than the server reads
│   │   ├── BodyTimeout            the body takes too long to arrive
│   │   ├── ModelRequired             no model is named where the protocol wants one
│   │   ├── EmptyInput          nothing to embed or rank
│   │   ├── TooManyItems             more items than the protocol allows
│   │   ├── TextTooLong             one text has too many tokens
│   │   ├── TooManyTokens       all texts together have too many tokens
│   │   ├── InvalidDimensions       a vector length the model can't give
│   │   └── InvalidTokenIds         ids that no known vocabulary decodes
│   ├── ModelNotFound            no model of that name
│   ├── WrongTask               the model does something else
│   ├── PathNotFound             no such route
│   ├── MethodNotAllowed             the route exists, the method doesn't
│   ├── ApiKeyMissing, ApiKeyInvalid    the API key
│   ├── Forbidden               the key is right, and not for this
│   ├── HostNotAllowed               a host, or a web page, that this server doesn't know
│   └── ClientDisconnected              the caller hung up before the answer
├── ServingError                the caller can only try again
│   ├── Overloaded              the queue is full
│   ├── DeadlineExceeded          it took too long
│   ├── ModelNotReady                a model is still loading, or failed to load
│   ├── ShuttingDown                the server is shutting down
│   ├── EngineError            the engine raised, or answered with something that is not an answer
│   ├── DeviceOutOfMemory             a text that the device's memory can't hold by itself
│   └── InternalError           a bug of ours; the log has it
└── SetupError                  the operator can mend it; the server doesn't start
    ├── SettingsError             an option
    ├── CheckpointError         a model's files
    ├── EngineUnavailable       an engine that can't run here
    └── ServiceManagerError          a service that can't be installed, removed or asked
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from nearfar.core.types import QueueCapacity


class NearfarError(Exception):
    """Anything this package raises on purpose."""


class RequestError(NearfarError):
    """The request can't be answered as it stands; the caller can change it."""


class InputError(RequestError):
    """A field of the request is wrong. ``param`` names the field in the caller's own spelling."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class MalformedBody(InputError):
    """The body isn't JSON: cut short, not UTF-8, or nested too deeply to be meant."""


class BodyTooLarge(InputError):
    """The body has more bytes than the server agreed to read."""


class BodyTimeout(InputError):
    """The body didn't arrive in the time that the server waits for one."""


class ModelRequired(InputError):
    """The request names no model, and its protocol has no default."""


class EmptyInput(InputError):
    """There is nothing to embed or rank."""


class TooManyItems(InputError):
    """A list is longer than the protocol allows."""

    def __init__(self, param: str, count: int, limit: int) -> None:
        super().__init__(f"{param} has {count} items; at most {limit} are allowed", param)
        self.count = count
        self.limit = limit


class TextTooLong(InputError):
    """One text has more tokens than the protocol, or the model under ``on_overflow = "error"``, takes."""

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        super().__init__(f"text {index} has {tokens} tokens; at most {limit} are allowed")
        self.index = index
        self.tokens = tokens
        self.limit = limit


class TooManyTokens(InputError):
    """The texts of one request have more tokens together than the protocol takes."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"the texts have {tokens} tokens together; at most {limit} are allowed")
        self.tokens = tokens
        self.limit = limit


class InvalidDimensions(InputError):
    """The request asks for a vector length the model can't give."""

    def __init__(self, dimensions: int, limit: int) -> None:
        super().__init__(f"dimensions={dimensions} is outside 1 to {limit}, what this model can give", "dimensions")
        self.dimensions = dimensions
        self.limit = limit


class InvalidTokenIds(InputError):
    """Token ids that can't be turned back into text."""


class ModelNotFound(RequestError):
    """The request names a model that isn't served here; ``listing`` when it only asked about the model."""

    def __init__(self, model: str, *, listing: bool = False) -> None:
        self.model = model[:200]  # it is told back to the caller, who may have sent a book
        super().__init__(f"model {self.model!r} is not served here")
        self.listing = listing


class WrongTask(RequestError):
    """The model exists but does something else, such as ranking when asked to embed."""

    _WORDS: ClassVar = {"multi_vector": "give a vector for each token", "sparse": "give sparse weights"}

    def __init__(self, model: str, task: str) -> None:
        super().__init__(f"model {model!r} can't {self._WORDS.get(task, task)}")
        self.model = model
        self.task = task


class PathNotFound(RequestError):
    """No route has this path."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"no such path: {method} {path}")
        self.method = method
        self.path = path


class MethodNotAllowed(RequestError):
    """The route exists but only for the ``allowed`` methods."""

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed on {path}, only {', '.join(allowed)}")
        self.allowed = allowed


class ApiKeyMissing(RequestError):
    """The server asks for an API key and the request has none."""


class ApiKeyInvalid(RequestError):
    """The request's API key is not one the server knows. The key itself is never kept in the error."""


class Forbidden(RequestError):
    """The key is one that the server knows, but not for what was asked. ``name`` is what the operator calls it."""

    def __init__(self, name: str, scope: str) -> None:
        super().__init__(f"the key {name!r} is not for {scope}; its scopes say what it is for")
        self.name = name
        self.scope = scope


class HostNotAllowed(RequestError):
    """The request names a host that isn't this server, or comes from a web page that may not ask it."""


class ClientDisconnected(RequestError):
    """The caller closed the connection before the answer was ready; its queued work is dropped."""


class ServingError(NearfarError):
    """The request is fine and the server couldn't answer it now. ``retry_after_s`` says when to try again."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(ServingError):
    """A queue or a rate limit is full. ``capacity`` is that of the model's queue; None for any other limit."""

    def __init__(self, message: str, retry_after_s: float | None = None, capacity: QueueCapacity | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.capacity = capacity


class DeadlineExceeded(ServingError):
    """The answer took longer than the server's deadline for one request."""


class ModelNotReady(ServingError):
    """The model is still loading, or failed to load."""


class ShuttingDown(ServingError):
    """The server is shutting down and takes no new work."""


class EngineError(ServingError):
    """The engine raised, or returned something that isn't an answer. The cause is chained and never sent."""


class DeviceOutOfMemory(ServingError):
    """One of the request's texts needs more memory than the model's device has, even by itself."""


class InternalError(ServingError):
    """Something that should not happen happened; the log has the traceback and the caller only this."""


class SetupError(NearfarError):
    """The server can't start as it is set up; the message is one sentence with the way out."""


class SettingsError(SetupError):
    """An option is unknown or has a bad value. The message opens with where it was read."""


class CheckpointError(SetupError):
    """A model's files are missing, damaged, or ask for something this version can't honour."""


class EngineUnavailable(SetupError):
    """An engine isn't installed or can't run on this machine."""


class ServiceManagerError(SetupError):
    """The system's service manager can't be told what it was to be told."""
