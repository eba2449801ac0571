"""Which device and which number format: decided once, from what the machine has."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vaearr.errors import UsageError


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or with `auto` the best there is: CUDA, then MPS, then the CPU. Raises
    UsageError if absent.
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
    """The number format of that name; `auto` is bfloat16 where it is fast (CUDA; CPUs with AMX or
    AVX512-BF16).
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            name
        ]
    fast = {"cuda": torch.cuda.is_bf16_supported, "cpu": _cpu_has_bfloat16}.get(
        device.type, lambda: False
    )
    return torch.bfloat16 if fast() else torch.float32


def _cpu_has_bfloat16() -> bool:
    probes = (
        getattr(torch.cpu, name, None)
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return any(probe is not None and probe() for probe in probes)


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[None]:
    """Mixed precision for the block, or nothing for float32."""
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)


def host_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Empty memory of the host; pinned where it is copied to a CUDA device, so that the copy need
    not wait.
    """
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
