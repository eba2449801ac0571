"""Named tensors of a checkpoint file from elsewhere: safetensors, or torch's format read without unpickling objects."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vaearr.artifacts import read_tensors
from vaearr.errors import DataError, NoInputError

# what training frameworks write beside the weights: read as an empty object
BESIDE = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
SAVE_PLAIN = "save its state_dict() alone, as safetensors at best"


class Empty:
    """Stands in for an object that is not needed and keeps nothing of what is handed to it."""

    def __init__(self, *parts: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...


def named_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name, those in nested dicts joined with a dot; mapped from disk where that can be.

    Raises NoInputError for a path without a file, DataError for a file that is damaged, holds other objects than
    tensors and plain values, or no tensor at all.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise NoInputError(
            f"the checkpoint {path} {what}; give the path of a .safetensors, .pt, .pth or .ckpt "
            "file, or of a run's model folder."
        )
    is_plain = path.suffix.lower() == ".safetensors"
    tensors = read_tensors(path)[0] if is_plain else dict(_flat(_torch_content(path)))
    if not tensors:
        raise DataError(f"{path} holds no named tensors; {SAVE_PLAIN}.")
    return tensors


def _torch_content(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)  # else the format of old versions, which cannot be mapped
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(Empty, name) for name in BESIDE]):
            warnings.simplefilter("ignore")  # about archives of compiled modules, which are then refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # the reader has errors of its own for each kind of damage
        text = " ".join(str(error).split())
        if "TorchScript" in text:
            raise DataError(
                f"{path} is a compiled (TorchScript) module, not a dict of tensors; {SAVE_PLAIN}."
            ) from None
        if held := re.search(r"GLOBAL ([\w.]+)", text):
            raise DataError(
                f"{path} holds a pickled {held[1]}, not only tensors, and is not opened: that could run any program; "
                f"{SAVE_PLAIN}."
            ) from None
        if "Weights only load failed" in text:
            raise DataError(
                f"{path} is not a whole file of tensors (damaged, or pickled objects, which are not opened); "
                f"{SAVE_PLAIN}."
            ) from None
        what = text.split(". ")[0] if " " in text else type(error).__name__
        raise DataError(f"{path} is not a whole torch file ({what}); use another copy.") from None


def _flat(content: Any, before: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor) and before:
        yield before, content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _flat(value, f"{before}.{key}" if before else key)
