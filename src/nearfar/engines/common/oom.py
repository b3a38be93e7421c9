"""Recognizes out-of-memory errors by the messages of torch, OpenVINO, MLX, numpy and Linux. Imports none of them."""

from __future__ import annotations

# torch: "DefaultCPUAllocator: can't allocate memory: you tried to allocate 137438953472 bytes", "CUDA out of memory";
# openvino: "std::bad_alloc", "Failed to allocate 4294967296 bytes of memory"; mlx: "Attempting to allocate 5 bytes",
# "Insufficient Memory"; numpy: "Unable to allocate 8.00 GiB for an array"; Linux itself: "Cannot allocate memory".
_MESSAGES = (
    *("out of memory", "insufficient memory", "not enough memory", "bad_alloc"),
    *("attempting to allocate", "unable to allocate", "failed to allocate", "can't allocate", "cannot allocate"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory for a forward could not be allocated; a smaller one may still run."""
    return isinstance(error, MemoryError) or any(message in str(error).lower() for message in _MESSAGES)
