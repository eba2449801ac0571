"""A trained model as a self-describing folder: config.json, weights.safetensors, history.csv.
Nothing is unpickled.

And named tensors in files: the one way in which weights, checkpoints and sheets are written and
read. Ours are safetensors with a record in the header, or beside them in config.json; torch's
format is read without unpickling.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from vaearr import names as n
from vaearr import schema
from vaearr.computing.device import pick_device
from vaearr.config import Config, ModelConfig, PreprocessConfig
from vaearr.config.parts import trusted_names
from vaearr.errors import DataError, NoInputError, UntrustedError, UsageError
from vaearr.models import build_model
from vaearr.models.preprocess import Preprocess, undo
from vaearr.store import run_folder
from vaearr.store.folders import replace_file
from vaearr.store.listing import SEAL, read_seal

FORMAT = 1
CONFIG, WEIGHTS = n.MODEL_CONFIG, n.MODEL_WEIGHTS
VALUES_AT_ONCE = (
    2**20
)  # pixels of samples that a network with feature maps of their size takes at once
SEEN = "seen"  # of the patterns that a run was trained on, where they are not the store's own
KEPT_ATTRS = (n.NAVIGATION_DIMS, n.SIGNAL_DIMS, "units")  # of patterns, by their reconstruction
Array = TypeVar("Array", xr.DataArray, np.ndarray)
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


class ModelRecord(Config):
    """What makes a trained model beside its weights, as config.json says it."""

    model: ModelConfig
    preprocess: PreprocessConfig
    input_shape: tuple[int, ...]
    signal_dims: tuple[str, ...]
    input_dtype: str
    label: str | None = None
    classes: tuple[int, ...] = ()


class TrainedModel(nn.Module):
    """Preprocessing and network together: from patterns as they were stored to latents, and back.

    `encode_batch` and `decode_batch` work on torch batches `(B, C, …)`; `encode` and `decode` on
    arrays. `label` and
    `classes`: the map that a linear head on the posterior mean learned to tell, and its class
    numbers. record: the fields of `ModelRecord`. trust: see `vaearr.models.build`.
    """

    def __init__(self, *, trust: Collection[str] = (), **record: Any) -> None:
        super().__init__()
        self.record = about = ModelRecord.from_attrs(record)
        self.model_config, self.preprocess_config = about.model, about.preprocess
        self.input_shape, self.signal_dims = about.input_shape, about.signal_dims
        self.label, self.classes = about.label, about.classes
        self.preprocess = Preprocess(about.preprocess, self.input_shape)
        self.network = build_model(about.model, self.seen_shape, trust)
        self.classifier = (
            nn.Linear(self.latent_shape[0], len(self.classes)) if self.classes else None
        )

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """`(C, …)` of a sample as the network sees it: `input_shape`, or fewer pixels where the
        steps bin them.
        """
        return tuple(self.preprocess.background.shape)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """`(latent,)` of a vector latent, `(latent, [lz,] ly, lx)` of a spatial one."""
        return tuple(self.network.latent_shape)

    def fitting(self, batch_size: int) -> int:
        """The batch size, made smaller for a spatial latent, whose feature maps are as large as its
        samples.
        """
        if len(self.latent_shape) == 1:
            return batch_size
        return max(1, min(batch_size, VALUES_AT_ONCE // math.prod(self.seen_shape)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def encode(self, patterns: Array, *, batch_size: int = 1024) -> Array:
        """Posterior mean of patterns as they were stored, `(…, [C,] H, W) -> (…, *latent_shape)`;
        deterministic.

        A DataArray is read by the names of its dims and keeps its navigation coordinates; of dask
        chunks it is lazy. Patterns with NaN or infinite values give NaN. Raises DataError when the
        patterns have other dims or another shape than the model knows.
        """

        def step(stored: torch.Tensor) -> torch.Tensor:
            return self.encode_batch(stored)[0]

        sizes = dict(zip(n.latent_dims(len(self.latent_shape)), self.latent_shape, strict=True))
        latents = self._applied(
            step, self._labelled_patterns(patterns), self.signal_dims, sizes, batch_size
        )
        latents = latents.assign_coords({n.LATENT: np.arange(self.latent_shape[0])})
        return _as_given(patterns, latents.rename(n.LATENTS).assign_attrs(n.ATTRS[n.LATENTS]))

    def reconstruct(self, patterns: Array, *, batch_size: int = 1024) -> Array:
        """Patterns as they were stored, encoded (posterior mean) and decoded, in stored units and
        of the same shape.

        What the preprocessing took from a pattern, such as its mean and scale, is given back to it.
        Otherwise as `encode`.
        """

        def step(stored: torch.Tensor) -> torch.Tensor:
            raw, decoded = (
                stored.to(self.device).float(),
                self.decode_batch(self.encode_batch(stored)[0]),
            )
            return undo(decoded, raw, self.preprocess.background, self.preprocess_config)

        labelled = self._labelled_patterns(patterns)
        rebuilt = self._applied(step, labelled, self.signal_dims, self._signal_sizes(), batch_size)
        rebuilt = rebuilt.transpose(*labelled.dims)
        rebuilt = rebuilt.assign_coords(
            {dim: labelled[dim] for dim in self.signal_dims if dim in labelled.coords}
        )
        attrs = {key: labelled.attrs[key] for key in KEPT_ATTRS if key in labelled.attrs}
        rebuilt = rebuilt.rename(n.RECONSTRUCTION).assign_attrs(
            attrs | {"long_name": "decoded posterior mean"}
        )
        return _as_given(patterns, rebuilt)

    def decode(self, latents: Array, *, batch_size: int = 1024) -> Array:
        """Patterns that the decoder expects for latents `(…, *latent_shape)`: `(…, [C,] H, W)`, in
        preprocessed units.

        A DataArray is read by the names of its latent dims; of dask chunks it is lazy. NaN latents
        give NaN patterns. Raises DataError when the latents are not of the model's shape.
        """

        def step(z: torch.Tensor) -> torch.Tensor:
            return self.preprocess.enlarged(self.decode_batch(z))

        n_dims: int = len(self.latent_shape)
        labelled: Any = latents
        if not isinstance(latents, xr.DataArray):
            self._check_latents(np.shape(latents)[-n_dims:])
            labelled = xr.DataArray(
                latents, dims=[*_axes(np.ndim(latents) - n_dims), *n.latent_dims(n_dims)]
            )
        found = [str(dim) for dim in labelled.dims if str(dim).startswith(n.LATENT)]
        if len(found) != 1:
            raise DataError(
                f"the array has dims {labelled.dims}; expected exactly one latent dim, such as 'latent'."
            )
        core = (found[0], *schema.position_dims(labelled))
        self._check_latents(tuple(labelled.sizes[dim] for dim in core))
        decoded = self._applied(
            step, labelled.astype(np.float32), core, self._signal_sizes(), batch_size
        )
        attrs = {
            "long_name": "decoded pattern",
            "units": "1",
            n.SIGNAL_DIMS: list(self.signal_dims),
        }
        return _as_given(latents, decoded.rename("decoded").assign_attrs(attrs))

    def _signal_sizes(self) -> dict[str, int]:
        return dict(zip(self.signal_dims, self.input_shape[-len(self.signal_dims) :], strict=True))

    def _labelled_patterns(self, patterns: Any) -> xr.DataArray:
        """Patterns with the names of their signal dims. Raises DataError for those that the model
        does not know.
        """
        sizes = self._signal_sizes()
        labelled = patterns
        if not isinstance(patterns, xr.DataArray):
            if (
                patterns.shape[-len(self.input_shape) :] == self.input_shape
            ):  # with a channel dim in any case
                patterns = patterns.reshape(
                    *patterns.shape[: -len(self.input_shape)], *sizes.values()
                )
            labelled = xr.DataArray(patterns, dims=[*_axes(patterns.ndim - len(sizes)), *sizes])
        if any(labelled.sizes.get(dim) != size for dim, size in sizes.items()):
            raise DataError(
                f"patterns have {dict(labelled.sizes)}; the model was trained on samples of {sizes}."
            )
        return labelled

    def _check_latents(self, shape: tuple[int, ...]) -> None:
        if shape != self.latent_shape:
            raise DataError(
                f"latents have shape {shape} in their last dims; the model's have {self.latent_shape}."
            )

    def _applied(
        self,
        step: Callable[[torch.Tensor], torch.Tensor],
        array: xr.DataArray,
        core: Sequence[str],
        sizes: Mapping[str, int],
        batch_size: int,
    ) -> xr.DataArray:
        """What a step makes of batches of samples over the dims `core`, over dims of these sizes;
        lazy on dask chunks.

        Samples with values that are not finite give NaN.
        """
        size = self.fitting(batch_size)
        sample_shape = self.latent_shape if core[0].startswith(n.LATENT) else self.input_shape

        def kernel(values: np.ndarray) -> np.ndarray:
            flat = np.ascontiguousarray(values).reshape(-1, *sample_shape)
            flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
            result = np.empty((len(flat), *sizes.values()), np.float32)
            for start in range(0, len(flat), size):
                batch = step(torch.from_numpy(flat[start : start + size]))
                result[start : start + size] = batch.cpu().numpy().reshape(-1, *sizes.values())
            if flat.dtype.kind == "f":
                result[~np.isfinite(flat).all(axis=tuple(range(1, flat.ndim)))] = np.nan
            return result.reshape(*values.shape[: values.ndim - len(core)], *sizes.values())

        found: xr.DataArray = xr.apply_ufunc(
            kernel,
            array,
            input_core_dims=[core],
            output_core_dims=[tuple(sizes)],
            exclude_dims=set(core),
            dask="parallelized",
            output_dtypes=[np.float32],
            dask_gufunc_kwargs={"output_sizes": dict(sizes), "allow_rechunk": True},
            keep_attrs=False,
        )
        return found.reset_coords(
            [name for name in found.coords if name not in found.dims], drop=True
        )

    @torch.inference_mode()
    def encode_batch(self, patterns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log-variance `(B, *latent_shape)` of stored patterns `(B, C, …)`;
        nothing is learned.
        """
        self.eval()
        mean, logvar = self.network.encode(self.preprocess(patterns.to(self.device)))
        return mean.float(), logvar.float()

    @torch.inference_mode()
    def decode_batch(self, z: torch.Tensor) -> torch.Tensor:
        """Decoded patterns `(B, *seen_shape)`, in preprocessed units."""
        self.eval()
        decoded: torch.Tensor = self.network.decode(z.to(self.device))
        return decoded.float()


def _axes(count: int) -> list[str]:
    """Names for the leading dims of a plain array."""
    return [f"axis_{i}" for i in range(count)]


def _as_given(given: Any, result: xr.DataArray) -> Any:
    """A DataArray for a DataArray, else a plain array."""
    return result if isinstance(given, xr.DataArray) else result.values


def pooled(latents: torch.Tensor) -> torch.Tensor:
    """Mean over the positions of spatial latents, `(B, L, …) -> (B, L)`; vector latents as they
    are.
    """
    return latents.flatten(2).mean(2) if latents.ndim > 2 else latents


def save_model(model: TrainedModel, folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write weights, then config.json that describes and seals them; returns what config.json
    holds.
    """
    sha256 = write_tensors(folder / WEIGHTS, model.state_dict())
    record = model.record.to_attrs() | {"signal_dims": list(model.signal_dims)}
    described = {"format": FORMAT, **record, "weights_sha256": sha256, **about}
    replace_file(folder / CONFIG, json.dumps(described, indent=2).encode())
    return described


def read_about(folder: Path) -> dict[str, Any]:
    """What config.json in an artefact folder says, held against the folder's checksums; raises as
    `load_folder`.
    """
    try:
        text = (folder / CONFIG).read_bytes()
        sealed = (read_seal(folder) or {}).get(CONFIG)
        about = json.loads(text)
        if sealed not in (None, hashlib.sha256(text).hexdigest()):
            raise ValueError(
                f"it is not as it was published, its checksum is not the one in {SEAL}"
            )
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f"it describes no model of vaearr's format {FORMAT}")
    except FileNotFoundError:
        raise NoInputError(
            f"{folder} holds no {CONFIG}, so no trained model; give a run's model folder."
        ) from None
    except ValueError as error:
        raise DataError(
            f"{folder / CONFIG} cannot be used ({error}); restore it from a copy or train again."
        ) from None
    return about


def load_folder(
    folder: Path, *, device: str | torch.device = "cpu", trust: str | Collection[str] = ()
) -> TrainedModel:
    """The model in an artefact folder, ready to encode. Raises NoInputError or DataError for one
    that is not whole.

    Checksum, names, shapes and finiteness of the weights are checked before they are taken. Raises
    UntrustedError for a model of a package that the user does not trust, see `load_model`.
    """
    about, path = read_about(folder), folder / WEIGHTS
    record = {name: about[name] for name in ModelRecord.model_fields if name in about}
    names = trusted_names(trust)
    try:
        model = TrainedModel(**record, trust=names)
        state, _ = read_tensors(path, sha256=str(about["weights_sha256"]))
        check_finite(state, path)
        model.load_state_dict(state, strict=True)
    except UntrustedError as error:
        raise UntrustedError(f"{folder} is not loaded: {error}") from None
    except (UsageError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{folder / CONFIG} describes no model ({reason}); restore it or train again."
        ) from None
    return model.to(device).eval()


def load_model(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    *,
    device: str = "cpu",
    trust: str | Collection[str] = (),
) -> TrainedModel:
    """Load the trained model of a run, with its weights checked.

    Parameters
    ----------
    store
        Path of the store.
    run
        Name of the run.
    device
        Device of the weights.
    trust
        Networks of your own packages that the run may name, as `package.module:Name`. Such a name
        in a store is refused otherwise, because loading it imports and runs that package.

    Returns
    -------
    TrainedModel
        Its `encode` and `decode` take arrays and DataArrays.

    Raises
    ------
    UntrustedError
        If the run names a network that is neither vaearr's, an entry point of an installed package,
        nor in `trust`.
    """
    folder = run_folder(store, run) / n.MODEL
    return load_folder(folder, device=pick_device(device), trust=trust)


def check_network(manifest: Mapping[str, Any], run: str, use: str) -> None:
    """Raise NoInputError for a run whose latents were attached; use: what a network is wanted for,
    in a verb.
    """
    if manifest.get("kind") == n.ATTACHED:
        raise NoInputError(
            f"the latents of run {run!r} were attached: it has no network to {use} with."
        )


def check_fits(
    ds: xr.Dataset, manifest: Mapping[str, Any], model: TrainedModel, *, is_given: bool = False
) -> None:
    """Raise UsageError, naming both sides, unless the model was trained on samples such as these:
    those of a store, or those that the caller has compared (`is_given`).
    """
    trained = f"run {manifest.get('run')!r} was trained on"
    if SEEN in manifest.get("data", {}) and not is_given:
        ways_out = "give that Dataset, as in va.encode(ds, run=…), or make a store of it: va.ingest(ds, 'NEW.zarr')"
        raise UsageError(f"{trained} a Dataset whose patterns are not the store's own; {ways_out}.")
    if model.input_shape != (shape := schema.input_shape(ds)):
        raise UsageError(
            f"{trained} samples of shape {model.input_shape}, the store has {shape}; train a run on it."
        )


# ---- named tensors in files ------------------------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Tensors, header: Mapping[str, Any] | None = None) -> str:
    """Write tensors as safetensors, with JSON in the header, aside and then renamed in; returns the
    sha256.
    """
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    text = json.dumps(header) if header else ""
    data = save(
        plain, metadata={HEADER: text, CHECKSUM: _checksum(plain, text)} if header else None
    )
    replace_file(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(
    path: Path, *, sha256: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of such a file, held against the checksum in the header or in a record
    beside it.

    sha256: of the whole file. Raises NoInputError or DataError for one that is missing or not
    whole.
    """
    with _opened(path) as (file, header), path.open("rb") as data:
        tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        is_whole = CHECKSUM not in about or about[CHECKSUM] == _checksum(
            tensors, about.get(HEADER, "")
        )
        if not is_whole or sha256 not in (
            None,
            sha256 and hashlib.file_digest(data, "sha256").hexdigest(),
        ):
            raise DataError(
                f"{path} is damaged: its checksum is not the recorded one; restore it, or use another one."
            )
    return tensors, header


def read_header(path: Path) -> dict[str, Any]:
    """The header of such a file alone."""
    with _opened(path) as (_, header):
        return header


def check_finite(tensors: Tensors, path: Path) -> None:
    """Raise DataError unless all values are finite."""
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(
                f"{path} holds values that are not finite in {key!r}; use another copy, or train again."
            )


def check_fit(wanted: Tensors, found: Tensors, what: str) -> None:
    """Raise DataError, with names and counts, unless names and shapes are those of a network. what:
    is found, in words that a sentence begins with.
    """
    pairs = {
        key: (tuple(found[key].shape), tuple(wanted[key].shape)) for key in wanted if key in found
    }
    wrong = {
        "missing in the file": [key for key in wanted if key not in found],
        "unexpected in it": sorted(found.keys() - wanted.keys()),
        "of another shape": [
            f"{key} {has}, the network's {own}" for key, (has, own) in pairs.items() if has != own
        ],
    }
    if parts := [f"{len(names)} {words}: {some(names)}" for words, names in wrong.items() if names]:
        raise DataError(
            f"{what}: {'; '.join(parts)}. Nothing was loaded; give the file that belongs to the settings."
        )


def some(names: Sequence[str]) -> str:
    """The first names and how many more there are."""
    return ", ".join(names[:SHOWN]) + (
        f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )


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
        raise NoInputError(
            f"{path} is missing; restore it from a copy, or give the path of one."
        ) from None
    except (SafetensorError, OSError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a whole safetensors file ({error}); use another one."
        ) from None


def named_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name, those in nested dicts joined with a dot; mapped from
    disk where that can be.

    A file ending in .safetensors, or in torch's format, of which nothing but tensors and plain
    values is unpickled. Raises NoInputError for a path without a file, DataError for a file that is
    damaged, holds other objects than tensors and plain values, or no tensor at all.
    """
    if not path.is_file():
        raise NoInputError(
            f"the checkpoint {path} is not there; give a .safetensors, .pt, .pth or .ckpt file."
        )
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
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(_Empty, name) for name in BESIDE]),
        ):
            warnings.simplefilter(
                "ignore"
            )  # about archives of compiled modules, which are then refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # the reader has errors of its own for each kind of damage
        text = " ".join(str(error).split())
        if held := re.search(r"GLOBAL ([\w.]+)", text):
            what = f"holds a pickled {held[1]}, not only tensors, and is not opened: that could run any program"
        elif "TorchScript" in text:
            what = "is a compiled (TorchScript) module, not a dict of tensors"
        else:
            what = (
                "is not a whole file of tensors (damaged, or pickled objects, which are not opened)"
            )
        raise DataError(f"{path} {what}; {SAVE_PLAIN}.") from None


def _flat(content: Any, before: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor) and before:
        yield before, content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _flat(value, f"{before}.{key}" if before else key)
