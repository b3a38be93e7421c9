"""Files, uploads and batches as they are stored and sent: https://platform.openai.com/docs/api-reference/batch."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from nearfar.core.caller import Scope

Purpose = Literal["batch", "batch_output"]
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
UploadStatus = Literal["pending", "completed", "cancelled", "expired"]
ENDED: tuple[BatchStatus, ...] = ("failed", "completed", "expired", "cancelled")


class File(Struct, frozen=True, kw_only=True):
    """A stored file. Times are in seconds since 1970."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"
    status_details: None = None


class Upload(Struct, frozen=True, kw_only=True):
    """A file that is uploaded in parts, as it is sent. ``bytes`` is its size, and ``file`` what it became."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch"] = "batch"
    status: UploadStatus = "pending"
    file: File | None = None


class StoredUpload(Struct, frozen=True, kw_only=True):
    """An upload with its owner, how long its file is kept, and the parts of which the file was made."""

    owner: str
    upload: Upload
    keep_s: int
    part_ids: list[str] = []


class UploadPart(Struct, frozen=True, kw_only=True):
    """A part of an upload, as it is sent."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class Fault(Struct, frozen=True):
    """Why a batch failed. ``line`` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Faults(Struct, frozen=True):
    """The faults that were found in a batch's input."""

    data: list[Fault]
    object: Literal["list"] = "list"


class RequestCounts(Struct, frozen=True):
    """How many lines a batch has, and how many were answered, with and without an error."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def is_done(self) -> bool:
        """Return whether all lines were answered."""
        return self.completed + self.failed == self.total


class InputDetails(Struct, frozen=True):
    """Details of the input's tokens."""

    cached_tokens: int = 0


class OutputDetails(Struct, frozen=True):
    """Details of the output's tokens."""

    reasoning_tokens: int = 0


class BatchUsage(Struct, frozen=True):
    """The tokens of all lines that were answered."""

    input_tokens: int = 0
    total_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: InputDetails = InputDetails()
    output_tokens_details: OutputDetails = OutputDetails()


class Batch(Struct, frozen=True, kw_only=True):
    """A batch, as it is sent. Times are in seconds since 1970."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    # Of its lines, if all have the same.
    model: str | None = None
    errors: Faults | None = None
    input_file_id: str
    completion_window: str
    status: BatchStatus = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage = BatchUsage()
    metadata: dict[str, str] | None = None


class Progress(Struct, frozen=True, kw_only=True):
    """How far a batch has come, and what else its runner needs.

    Its lines are stored in order. The answers to those before ``offset`` of its input are in its output files.
    """

    scopes: tuple[Scope, ...]
    # How long the output files are kept.
    keep_s: int
    output_id: str
    error_id: str
    offset: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    # How often the batch was started at this offset.
    starts: int = 0

    def files(self, batch_id: str, now: int) -> list[File]:
        """Return the output and error files of a batch that ends now, without one that has no line."""
        return [
            File(
                id=file_id,
                bytes=size,
                created_at=now,
                expires_at=now + self.keep_s,
                filename=f"{batch_id}_{kind}.jsonl",
                purpose="batch_output",
            )
            for kind, file_id, size in (
                ("output", self.output_id, self.output_bytes),
                ("error", self.error_id, self.error_bytes),
            )
            if size
        ]


class StoredBatch(Struct, frozen=True, kw_only=True):
    """A batch with its owner, the name of a key."""

    owner: str
    batch: Batch
    progress: Progress

    def advance(self, progress: Progress, answered: RequestCounts, tokens: int) -> StoredBatch:
        """Return the batch after so many more lines, and the tokens of their answers."""
        counts, usage = self.batch.request_counts, self.batch.usage
        counts = replace(
            counts, completed=counts.completed + answered.completed, failed=counts.failed + answered.failed
        )
        total = usage.total_tokens + tokens
        usage = replace(usage, input_tokens=total, total_tokens=total)
        return replace(self, progress=progress, batch=replace(self.batch, request_counts=counts, usage=usage))
