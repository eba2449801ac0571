"""A trained model as a self-describing folder: config.json, weights.safetensors, history.csv. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr import schema
from vaearr.computing.device import pick_device
from vaearr.config import Config, ModelConfig, PreprocessConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.models import build_model
from vaearr.models.files import check_finite, read_tensors, write_tensors
from vaearr.models.preprocess import Preprocess
from vaearr.store import run_folder
from vaearr.store.folders import replace_file
from vaearr.store.listing import SEAL, read_seal
from vaearr.store.places import Folder

FORMAT = 1
CONFIG, WEIGHTS = n.MODEL_CONFIG, n.MODEL_WEIGHTS
VALUES_AT_ONCE = 2**20  # pixels of samples that a network with feature maps of their size takes at once
SEEN = "seen"  # of the patterns that a run was trained on, where they are not the store's own
Array = TypeVar("Array", xr.DataArray, np.ndarray)


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

    `encode_batch` and `decode_batch` work on torch batches `(B, C, …)`; `encode` and `decode` on arrays. `label` and
    `classes`: the map that a linear head on the posterior mean learned to tell, and its class numbers. record: the
    fields of `ModelRecord`.
    """

    def __init__(self, **record: Any) -> None:
        super().__init__()
        self.record = about = ModelRecord.from_attrs(record)
        self.model_config, self.preprocess_config = about.model, about.preprocess
        self.input_shape, self.signal_dims = about.input_shape, about.signal_dims
        self.label, self.classes = about.label, about.classes
        self.preprocess = Preprocess(about.preprocess, self.input_shape)
        self.network = build_model(about.model, self.input_shape)
        self.classifier = nn.Linear(about.model.latent_dim, len(self.classes)) if self.classes else None

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """`(latent,)` of a vector latent, `(latent, [lz,] ly, lx)` of a spatial one."""
        return tuple(self.network.latent_shape)

    def fitting(self, batch_size: int) -> int:
        """The batch size, made smaller for a spatial latent, whose feature maps are as large as its samples."""
        if len(self.latent_shape) == 1:
            return batch_size
        return max(1, min(batch_size, VALUES_AT_ONCE // math.prod(self.input_shape)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def encode(self, patterns: Array, *, batch_size: int = 1024) -> Array:
        """Posterior mean of patterns as they were stored, `(…, [C,] H, W) -> (…, *latent_shape)`; deterministic.

        A DataArray is read by the names of its dims and keeps its navigation coordinates; of dask chunks it is lazy.
        Patterns with NaN or infinite values give NaN. Raises DataError when the patterns have other dims or another
        shape than the model knows.
        """

        def encoded(values: np.ndarray, n_lead: int) -> np.ndarray:
            flat = np.ascontiguousarray(values).reshape(-1, *self.input_shape)
            flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
            found = self._by_batches(lambda part: self.encode_batch(part)[0], flat, self.latent_shape, batch_size)
            if flat.dtype.kind == "f":
                found[~np.isfinite(flat).all(axis=tuple(range(1, flat.ndim)))] = np.nan
            return found.reshape(*np.shape(values)[:n_lead], *self.latent_shape)

        if not isinstance(patterns, xr.DataArray):
            return encoded(patterns, np.ndim(patterns) - len(self._signal(np.shape(patterns))))
        if lacking := [dim for dim in self.signal_dims if dim not in patterns.dims]:
            known = f"the model knows samples over {self.signal_dims}"
            raise DataError(f"the array has dims {patterns.dims} and lacks {', '.join(lacking)}; {known}.")
        self._signal(tuple(patterns.sizes[dim] for dim in self.signal_dims))
        sizes = dict(zip(n.latent_dims(len(self.latent_shape)), self.latent_shape, strict=True))
        found = _applied(encoded, patterns, self.signal_dims, sizes)
        found = found.assign_coords({n.LATENT: np.arange(self.latent_shape[0])})
        return found.rename(n.LATENTS).assign_attrs(n.ATTRS[n.LATENTS])

    def decode(self, latents: Array, *, batch_size: int = 1024) -> Array:
        """Patterns that the decoder expects for latents `(…, *latent_shape)`: `(…, [C,] H, W)`, in preprocessed units.

        A DataArray is read by the names of its latent dims; of dask chunks it is lazy. NaN latents give NaN patterns.
        Raises DataError when the latents are not of the model's shape.
        """
        shape = self.input_shape[-len(self.signal_dims) :]

        def decoded(values: np.ndarray, n_lead: int) -> np.ndarray:
            flat = np.asarray(values, np.float32).reshape(-1, *self.latent_shape)
            made = self._by_batches(self.decode_batch, flat, self.input_shape, batch_size)
            return made.reshape(*np.shape(values)[:n_lead], *shape)

        if not isinstance(latents, xr.DataArray):
            n_lead = max(np.ndim(latents) - len(self.latent_shape), 0)
            self._check_latents(np.shape(latents)[n_lead:])
            return decoded(latents, n_lead)
        labelled: xr.DataArray = latents
        found = [str(dim) for dim in labelled.dims if str(dim).startswith(n.LATENT)]
        if len(found) != 1:
            raise DataError(f"the array has dims {labelled.dims}; expected exactly one latent dim, such as 'latent'.")
        own = (found[0], *schema.position_dims(labelled))
        self._check_latents(tuple(labelled.sizes[dim] for dim in own))
        attrs = {"long_name": "decoded pattern", "units": "1", n.SIGNAL_DIMS: list(self.signal_dims)}
        made = _applied(decoded, labelled, own, dict(zip(self.signal_dims, shape, strict=True)))
        return made.rename("decoded").assign_attrs(attrs)

    def _check_latents(self, shape: tuple[int, ...]) -> None:
        if shape != self.latent_shape:
            raise DataError(f"latents have shape {shape} in their last dims; the model's have {self.latent_shape}.")

    def _by_batches(
        self, step: Callable[[torch.Tensor], torch.Tensor], flat: np.ndarray, shape: tuple[int, ...], batch_size: int
    ) -> np.ndarray:
        values, size = np.empty((len(flat), *shape), np.float32), self.fitting(batch_size)
        for start in range(0, len(flat), size):
            values[start : start + size] = step(torch.from_numpy(flat[start : start + size])).cpu().numpy()
        return values

    @torch.inference_mode()
    def encode_batch(self, patterns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log-variance `(B, *latent_shape)` of stored patterns `(B, C, …)`; nothing is learned."""
        self.eval()
        mean, logvar = self.network.encode(self.preprocess(patterns.to(self.device)))
        return mean.float(), logvar.float()

    @torch.inference_mode()
    def decode_batch(self, z: torch.Tensor) -> torch.Tensor:
        """Decoded patterns `(B, C, …)`, in preprocessed units."""
        self.eval()
        decoded: torch.Tensor = self.network.decode(z.to(self.device))
        return decoded.float()

    @torch.inference_mode()
    def classify(self, latents: np.ndarray) -> np.ndarray:
        """Class number that the head gives each latent, `(…, *latent_shape) -> (…)`; -1 for NaN.

        The head sees the mean over the positions of a spatial latent. Raises DataError for a model that was trained
        without labels.
        """
        if self.classifier is None:
            raise DataError("the model has no classification head; train with objective.label set to a map of classes.")
        lead = np.shape(latents)[: np.ndim(latents) - len(self.latent_shape)]
        values = pooled(torch.from_numpy(np.array(latents, np.float32)).reshape(-1, *self.latent_shape)).to(self.device)
        chosen = self.classifier(values).argmax(-1).cpu().numpy()
        found = np.where(np.isnan(values.cpu().numpy()).any(-1), -1, np.array(self.classes)[chosen])
        return np.asarray(found.reshape(lead))

    def _signal(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        plain = self.input_shape[1:]
        if self.input_shape[0] == 1 and shape[-len(plain) :] == plain and shape[-len(plain) - 1 : -len(plain)] != (1,):
            return plain
        if shape[-len(self.input_shape) :] == self.input_shape:
            return self.input_shape
        raise DataError(f"patterns have shape {shape}; the model was trained on samples of shape {self.input_shape}.")


def _applied(
    function: Callable[[np.ndarray, int], np.ndarray], array: xr.DataArray, core: tuple[str, ...], sizes: dict[str, int]
) -> xr.DataArray:
    """A function of plain arrays on the last dims, `core` before and those of `sizes` after; lazy on dask chunks."""
    found: xr.DataArray = xr.apply_ufunc(
        function,
        array,
        array.ndim - len(core),
        input_core_dims=[core, []],
        output_core_dims=[tuple(sizes)],
        exclude_dims=set(core),
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": sizes, "allow_rechunk": True},
        keep_attrs=False,
    )
    return found.reset_coords([name for name in found.coords if name not in found.dims], drop=True)


def pooled(latents: torch.Tensor) -> torch.Tensor:
    """Mean over the positions of spatial latents, `(B, L, …) -> (B, L)`; vector latents as they are."""
    return latents.flatten(2).mean(2) if latents.ndim > 2 else latents


def save_model(model: TrainedModel, folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write weights, then config.json that describes and seals them; returns what config.json holds."""
    sha256 = write_tensors(folder / WEIGHTS, model.state_dict())
    record = model.record.to_attrs() | {"signal_dims": list(model.signal_dims)}
    described = {"format": FORMAT, **record, "weights_sha256": sha256, **about}
    replace_file(folder / CONFIG, json.dumps(described, indent=2).encode())
    return described


def read_about(folder: Path) -> dict[str, Any]:
    """What config.json in an artefact folder says, held against the folder's checksums; raises as `load_folder`."""
    try:
        text = (folder / CONFIG).read_bytes()
        sealed = (read_seal(Folder(folder), "") or {}).get(CONFIG)
        about = json.loads(text)
        if sealed not in (None, hashlib.sha256(text).hexdigest()):
            raise ValueError(f"it is not as it was published, its checksum is not the one in {SEAL}")
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f"it describes no model of vaearr's format {FORMAT}")
    except FileNotFoundError:
        raise NoInputError(f"{folder} holds no {CONFIG}, so no trained model; give a run's model folder.") from None
    except ValueError as error:
        raise DataError(f"{folder / CONFIG} cannot be used ({error}); restore it from a copy or train again.") from None
    return about


def load_folder(folder: Path, *, device: str | torch.device = "cpu") -> TrainedModel:
    """The model in an artefact folder, ready to encode. Raises NoInputError or DataError for one that is not whole.

    Checksum, names, shapes and finiteness of the weights are checked before they are taken.
    """
    about, path = read_about(folder), folder / WEIGHTS
    try:
        model = TrainedModel(**{name: about[name] for name in ModelRecord.model_fields if name in about})
        state, _ = read_tensors(path, sha256=str(about["weights_sha256"]))
        check_finite(state, path)
        model.load_state_dict(state, strict=True)
    except (UsageError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{folder / CONFIG} describes no model ({reason}); restore it or train again.") from None
    return model.to(device).eval()


def load_model(store: str | Path, run: str = n.DEFAULT_RUN, *, device: str = "cpu") -> TrainedModel:
    """The trained model of a run, with its weights checked; `.encode` and `.decode` take arrays and DataArrays."""
    return load_folder(run_folder(store, run) / n.MODEL, device=pick_device(device))


def check_network(manifest: Mapping[str, Any], run: str, use: str) -> None:
    """Raise NoInputError for a run whose latents were attached; use: what a network is wanted for, in a verb."""
    if manifest.get("kind") == n.ATTACHED:
        raise NoInputError(f"the latents of run {run!r} were attached: it has no network to {use} with.")


def check_fits(ds: xr.Dataset, manifest: Mapping[str, Any], model: TrainedModel, *, is_given: bool = False) -> None:
    """Raise UsageError, naming both sides, unless the model was trained on samples such as these: those of a store, or
    those that the caller has compared (`is_given`)."""
    trained = f"run {manifest.get('run')!r} was trained on"
    if SEEN in manifest.get("data", {}) and not is_given:
        ways_out = "give that Dataset, as in va.encode(ds, run=…), or make a store of it: va.ingest(ds, 'NEW.zarr')"
        raise UsageError(f"{trained} a Dataset whose patterns are not the store's own; {ways_out}.")
    if model.input_shape != (shape := schema.input_shape(ds)):
        raise UsageError(f"{trained} samples of shape {model.input_shape}, the store has {shape}; train a run on it.")
