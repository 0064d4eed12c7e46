"""Whether an error means that memory ran out, on a device or on the processor. Imports no torch."""

from __future__ import annotations

import errno
import sys

# What allocators, and libraries that lack room for their workspace, raise in words alone.
_LACKS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
)
# of the loader of shared libraries
_UNLOADED = (
    "failed to map segment from shared object",
    "cannot allocate memory in static TLS block",
    "cannot create shared object descriptor",
    "Cannot allocate memory",
)


class Lacking(MemoryError):
    """Memory ran out; the message says for what, and what helps."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out."""
    torch = sys.modules.get("torch")  # without it, none of its errors
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    kinds = {RuntimeError: _LACKS, ImportError: _UNLOADED, OSError: _UNLOADED}
    return any(isinstance(error, kind) and any(said in str(error) for said in words) for kind, words in kinds.items())
