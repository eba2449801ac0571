"""The device and the number format of computations."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vaearr.errors import UsageError

CPU = torch.device("cpu")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """Return the named device, with `auto` the first available of CUDA, MPS and CPU.

    Raises UsageError if it is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"there is no device {name!r}; use auto, cpu, cuda, cuda:0 or mps."
        ) from None
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise UsageError(f"device {name!r} is not available on this machine; use auto or cpu.")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the named number format, with `auto` bfloat16 where the device computes it fast.

    That is on CUDA, and on CPUs with AMX or AVX512-BF16.
    """
    if name != "auto":
        return PRECISIONS[name]
    is_fast = False
    if device.type == "cuda":
        is_fast = torch.cuda.is_bf16_supported()
    elif device.type == "cpu":
        for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            is_fast = is_fast or getattr(torch.cpu, probe, bool)()
    return torch.bfloat16 if is_fast else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[None]:
    """Compute the block in mixed precision, unless it is float32."""
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)


def host_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Allocate memory of the host, pinned for CUDA, so that copies to the device do not block."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
