"""Named tensors in files: weights, checkpoints and sheets. Nothing is unpickled.

Files of vaearr are safetensors with a record in the header; torch's format is read without
unpickling.
"""

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

from vaearr.errors import DataError, NoInputError, listed
from vaearr.store.folders import replace_file

HEADER, CHECKSUM = "vaearr", "sha256"  # entries of a file's metadata
# what training frameworks write besides the weights: read as an empty object
FRAMEWORK_OBJECTS = (
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
Tensors = Mapping[str, torch.Tensor]


def write_tensors(path: Path, tensors: Tensors, header: Mapping[str, Any] | None = None) -> str:
    """Write tensors and a JSON header as safetensors, by renaming; return the file's sha256."""
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    metadata = None
    if header:
        text = json.dumps(header)
        metadata = {HEADER: text, CHECKSUM: _checksum(plain, text)}
    data = save(plain, metadata=metadata)
    replace_file(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(
    path: Path, *, sha256: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and header of such a file, and check the checksum in the header, if any.

    sha256: of the complete file, checked too. Raises NoInputError for a missing file, DataError for
    a damaged one.
    """
    with _opened(path) as (file, header):
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    is_intact = True
    if CHECKSUM in metadata:
        is_intact = metadata[CHECKSUM] == _checksum(tensors, metadata.get(HEADER, ""))
    if sha256 is not None:
        with path.open("rb") as data:
            is_intact = is_intact and sha256 == hashlib.file_digest(data, "sha256").hexdigest()
    if not is_intact:
        raise DataError(
            f"{path} is damaged: its checksum is not the recorded one; restore it, or use another "
            "one."
        )
    return tensors, header


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of such a file."""
    with _opened(path) as (_, header):
        return header


def check_finite(tensors: Tensors, path: Path) -> None:
    """Raise DataError unless all values are finite."""
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(
                f"{path} holds values that are not finite in {key!r}; use another copy, or train "
                "again."
            )


def check_fit(expected: Tensors, found: Tensors, what: str) -> None:
    """Raise DataError, with names and counts, unless names and shapes are those of a network.

    what: the tensors, as the beginning of a sentence.
    """
    missing = []
    reshaped = []
    for key, value in expected.items():
        if key not in found:
            missing.append(key)
        elif found[key].shape != value.shape:
            shape = tuple(found[key].shape)
            reshaped.append(f"{key} {shape}, the network's {tuple(value.shape)}")
    differences = {
        "missing in the file": missing,
        "unexpected in it": sorted(found.keys() - expected.keys()),
        "of another shape": reshaped,
    }
    counted = []
    for text, keys in differences.items():
        if keys:
            counted.append(f"{len(keys)} {text}: {listed(keys)}")
    if counted:
        raise DataError(
            f"{what}: {'; '.join(counted)}. Nothing was loaded; give the file that belongs to the "
            "settings."
        )


def _checksum(tensors: Tensors, header: str) -> str:
    """sha256 over names, types, shapes and bytes of the tensors and over the header."""
    digest = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The file, and its header."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            yield file, header if isinstance(header, dict) else {}
    except FileNotFoundError:
        raise NoInputError(
            f"{path} is missing; restore it from a copy, or give the path of one."
        ) from None
    except (SafetensorError, OSError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a complete safetensors file ({error}); use another one."
        ) from None


def named_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a checkpoint, names in nested dicts joined with a dot.

    A file ending in .safetensors, or in torch's format, of which only tensors and plain values are
    unpickled. Raises NoInputError for a missing file, DataError for a file that is damaged, holds
    other objects, or no tensor at all.
    """
    if not path.is_file():
        raise NoInputError(
            f"the checkpoint {path} does not exist; give a .safetensors, .pt, .pth or .ckpt file."
        )
    if path.suffix.lower() == ".safetensors":
        tensors = read_tensors(path)[0]
    else:
        tensors = dict(_flat(_torch_content(path)))
    if not tensors:
        raise DataError(f"{path} holds no named tensors; {SAVE_PLAIN}.")
    return tensors


class _Empty:
    """Replaces an object that is not needed; ignores everything passed to it."""

    def __init__(self, *parts: object) -> None: ...

    __setstate__ = __setitem__ = __init__


def _torch_content(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)  # else the format of old versions, which cannot be mapped
    allowed = torch.serialization.safe_globals([(_Empty, name) for name in FRAMEWORK_OBJECTS])
    try:
        with warnings.catch_warnings(), allowed:
            # about archives of compiled modules, which are then refused
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # the reader has its errors for each kind of damage
        text = " ".join(str(error).split())
        pickled = re.search(r"GLOBAL ([\w.]+)", text)
        problem = (
            "is not a complete file of tensors (damaged, or pickled objects, which are not opened)"
        )
        if pickled:
            problem = (
                f"holds a pickled {pickled[1]}, not only tensors, and is not opened: "
                "that could run any program"
            )
        elif "TorchScript" in text:
            problem = "is a compiled (TorchScript) module, not a dict of tensors"
        raise DataError(f"{path} {problem}; {SAVE_PLAIN}.") from None


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor) and prefix:
        yield prefix, content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _flat(value, f"{prefix}.{key}" if prefix else key)
