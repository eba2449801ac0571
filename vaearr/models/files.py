"""Named tensors in files: ours are safetensors with a sealed header; torch's format is read without unpickling."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vaearr.errors import DataError, NoInputError
from vaearr.store.folders import replace_file

HEADER, CHECKSUM = "vaearr", "sha256"  # entries of a file's metadata
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


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any] | None = None) -> str:
    """Write tensors as safetensors, with JSON in the header, aside and then renamed in; returns the sha256."""
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    text = json.dumps(header) if header else ""
    data = save(plain, metadata={HEADER: text, CHECKSUM: _checksum(plain, text)} if header else None)
    replace_file(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of such a file. Raises NoInputError or DataError for one that is missing or not whole."""
    with _opened(path) as file:
        tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        header = _header(file, path)
    if CHECKSUM in about and about[CHECKSUM] != _checksum(tensors, about.get(HEADER, "")):
        raise DataError(f"{path} is damaged: its checksum is not the one that was written; use another one.")
    return tensors, header


def _checksum(tensors: Mapping[str, torch.Tensor], header: str) -> str:
    """sha256 over names, types, shapes and bytes of the tensors and over the header."""
    seal = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        value = tensors[key]
        seal.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        seal.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return seal.hexdigest()


def read_header(path: Path) -> dict[str, Any]:
    """The header of such a file alone."""
    with _opened(path) as file:
        return _header(file, path)


def _header(file: Any, path: Path) -> dict[str, Any]:
    try:
        found = json.loads((file.metadata() or {}).get(HEADER, "{}"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} has a header that is not JSON ({error}); use another one.") from None
    return found if isinstance(found, dict) else {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise NoInputError(f"there is no file {path}; give the path of one.") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}); use another one.") from None


def named_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name, those in nested dicts joined with a dot; mapped from disk where that can be.

    A file ending in .safetensors, or in torch's format, of which nothing but tensors and plain values is unpickled.
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


class _Empty:
    """Stands in for an object that is not needed and keeps nothing of what is handed to it."""

    def __init__(self, *parts: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...


def _torch_content(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)  # else the format of old versions, which cannot be mapped
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Empty, name) for name in BESIDE]):
            warnings.simplefilter("ignore")  # about archives of compiled modules, which are then refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # the reader has errors of its own for each kind of damage
        text = " ".join(str(error).split())
        if held := re.search(r"GLOBAL ([\w.]+)", text):
            what = f"holds a pickled {held[1]}, not only tensors, and is not opened: that could run any program"
        elif "TorchScript" in text:
            what = "is a compiled (TorchScript) module, not a dict of tensors"
        else:
            what = "is not a whole file of tensors (damaged, or pickled objects, which are not opened)"
        raise DataError(f"{path} {what}; {SAVE_PLAIN}.") from None


def _flat(content: Any, before: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor) and before:
        yield before, content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _flat(value, f"{before}.{key}" if before else key)
