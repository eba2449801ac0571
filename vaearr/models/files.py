"""Named tensors in files: the one way in which weights, checkpoints and sheets are written and read.

Ours are safetensors with a record in the header, or beside them in a config.json; torch's format is read without
unpickling.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
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
SHOWN = 4  # names in a message
Tensors = Mapping[str, torch.Tensor]
SAVE_PLAIN = "save its state_dict() alone, as safetensors at best"


def write_tensors(path: Path, tensors: Tensors, header: Mapping[str, Any] | None = None) -> str:
    """Write tensors as safetensors, with JSON in the header, aside and then renamed in; returns the sha256."""
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    text = json.dumps(header) if header else ""
    data = save(plain, metadata={HEADER: text, CHECKSUM: _checksum(plain, text)} if header else None)
    replace_file(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path, *, sha256: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of such a file, held against the checksum in the header or in a record beside it.

    sha256: of the whole file. Raises NoInputError or DataError for one that is missing or not whole.
    """
    with _opened(path) as (file, header), path.open("rb") as data:
        tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        is_whole = CHECKSUM not in about or about[CHECKSUM] == _checksum(tensors, about.get(HEADER, ""))
        if not is_whole or sha256 not in (None, sha256 and hashlib.file_digest(data, "sha256").hexdigest()):
            raise DataError(f"{path} is damaged: its checksum is not the recorded one; restore it, or use another one.")
    return tensors, header


def read_header(path: Path) -> dict[str, Any]:
    """The header of such a file alone."""
    with _opened(path) as (_, header):
        return header


def check_finite(tensors: Tensors, path: Path) -> None:
    """Raise DataError unless all values are finite."""
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(f"{path} holds values that are not finite in {key!r}; use another copy, or train again.")


def check_fit(wanted: Tensors, found: Tensors, what: str) -> None:
    """Raise DataError, with names and counts, unless names and shapes are those of a network. what: is found, in words
    that a sentence begins with."""
    pairs = {key: (tuple(found[key].shape), tuple(wanted[key].shape)) for key in wanted if key in found}
    wrong = {
        "missing in the file": [key for key in wanted if key not in found],
        "unexpected in it": sorted(found.keys() - wanted.keys()),
        "of another shape": [f"{key} {has}, the network's {own}" for key, (has, own) in pairs.items() if has != own],
    }
    if parts := [f"{len(names)} {words}: {some(names)}" for words, names in wrong.items() if names]:
        raise DataError(f"{what}: {'; '.join(parts)}. Nothing was loaded; give the file that belongs to the settings.")


def some(names: Sequence[str]) -> str:
    """The first names and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _checksum(tensors: Tensors, header: str) -> str:
    """sha256 over names, types, shapes and bytes of the tensors and over the header."""
    seal = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        value = tensors[key]
        seal.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        seal.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return seal.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A file, and its header."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            yield file, header if isinstance(header, dict) else {}
    except FileNotFoundError:
        raise NoInputError(f"{path} is missing; restore it from a copy, or give the path of one.") from None
    except (SafetensorError, OSError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}); use another one.") from None


def named_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name, those in nested dicts joined with a dot; mapped from disk where that can be.

    A file ending in .safetensors, or in torch's format, of which nothing but tensors and plain values is unpickled.
    Raises NoInputError for a path without a file, DataError for a file that is damaged, holds other objects than
    tensors and plain values, or no tensor at all.
    """
    if not path.is_file():
        raise NoInputError(f"the checkpoint {path} is not there; give a .safetensors, .pt, .pth or .ckpt file.")
    is_plain = path.suffix.lower() == ".safetensors"
    tensors = read_tensors(path)[0] if is_plain else dict(_flat(_torch_content(path)))
    if not tensors:
        raise DataError(f"{path} holds no named tensors; {SAVE_PLAIN}.")
    return tensors


class _Empty:
    """Stands in for an object that is not needed and keeps nothing of what is handed to it."""

    def __init__(self, *parts: object) -> None: ...

    __setstate__ = __setitem__ = __init__


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
