"""A trained model as a self-describing folder: config.json, weights.safetensors, history.csv."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
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
from vaearr.config.parts import trusted_names
from vaearr.errors import DataError, NoInputError, UntrustedError, UsageError
from vaearr.models import build_model
from vaearr.models.preprocess import Preprocess
from vaearr.models.tensors import check_finite, read_tensors, write_tensors
from vaearr.store import run_folder
from vaearr.store.folders import replace_file
from vaearr.store.listing import SEAL, read_seal

FORMAT = 1
CONFIG, WEIGHTS = n.MODEL_CONFIG, n.MODEL_WEIGHTS
MAX_VALUES = 2**20  # pixels of samples at once in a network with feature maps of their size
# key of a manifest, for the sampled identity of patterns other than the store's
OTHER_PATTERNS = "seen"
KEPT_ATTRS = (n.NAVIGATION_DIMS, n.SIGNAL_DIMS, "units")  # of patterns, in their reconstruction
Array = TypeVar("Array", xr.DataArray, np.ndarray)


class ModelRecord(Config):
    """What a trained model is made from besides its weights, as stored in config.json."""

    model: ModelConfig
    preprocess: PreprocessConfig
    input_shape: tuple[int, ...]
    signal_dims: tuple[str, ...]
    input_dtype: str
    label: str | None = None
    classes: tuple[int, ...] = ()


class TrainedModel(nn.Module):
    """Preprocessing and network: from stored patterns to latents, and back.

    `encode_batch` and `decode_batch` work on torch batches `(B, C, …)`; `encode`, `reconstruct` and
    `decode` on arrays. `label` and `classes`: the map whose classes a linear head on the posterior
    mean learned, and their numbers.

    Parameters
    ----------
    trust : collection of str
        See `vaearr.models.build`.
    **record
        Fields of `ModelRecord`.
    """

    def __init__(self, *, trust: Collection[str] = (), **record: Any) -> None:
        super().__init__()
        self.record = ModelRecord.from_attrs(record)
        self.model_config = self.record.model
        self.preprocess_config = self.record.preprocess
        self.input_shape = self.record.input_shape
        self.signal_dims = self.record.signal_dims
        self.label = self.record.label
        self.classes = self.record.classes
        self.preprocess = Preprocess(self.preprocess_config, self.input_shape)
        self.network = build_model(self.model_config, self.preprocess.shape, trust)
        self.classifier = None
        if self.classes:
            self.classifier = nn.Linear(self.latent_shape[0], len(self.classes))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape `(latent,)` of a vector latent, `(latent, [lz,] ly, lx)` of a spatial one."""
        return tuple(self.network.latent_shape)

    def fitting(self, batch_size: int) -> int:
        """Return the batch size, smaller for spatial latents, whose feature maps are as large as
        the samples.
        """
        if len(self.latent_shape) == 1:
            return batch_size
        return max(1, min(batch_size, MAX_VALUES // math.prod(self.preprocess.shape)))

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.network.parameters()).device

    def encode(self, patterns: Array, *, batch_size: int = 1024) -> Array:
        """Encode stored patterns to their posterior means.

        Parameters
        ----------
        patterns : xarray.DataArray or numpy.ndarray
            `(…, *signal dims)`. A DataArray may have its dims in any order; on dask chunks the
            result is lazy.
        batch_size : int
            Samples at once.

        Returns
        -------
        xarray.DataArray or numpy.ndarray
            `(…, *latent_shape)`, of the type given; NaN for patterns with values that are not
            finite.

        Raises
        ------
        DataError
            If the patterns have other dims or another shape than the model.
        """
        dims = n.latent_dims(len(self.latent_shape))
        sizes = dict(zip(dims, self.latent_shape, strict=True))
        labelled = self._labelled_patterns(patterns)
        latents = self._in_batches(self._means, labelled, self.signal_dims, sizes, batch_size)
        latents = latents.assign_coords({n.LATENT: np.arange(self.latent_shape[0])})
        latents = latents.rename(n.LATENTS).assign_attrs(n.ATTRS[n.LATENTS])
        return _like(patterns, latents)

    def reconstruct(self, patterns: Array, *, batch_size: int = 1024) -> Array:
        """Encode stored patterns (posterior mean) and decode them, in stored units.

        Parameters, results and errors are those of `encode`; the result has the shape of the
        patterns. The scale of each pattern, which the preprocessing removes, is that of the input.
        """
        labelled = self._labelled_patterns(patterns)
        sizes = self._signal_sizes()
        decoded = self._in_batches(self._restored, labelled, self.signal_dims, sizes, batch_size)
        coords = {dim: labelled[dim] for dim in self.signal_dims if dim in labelled.coords}
        attrs = {key: labelled.attrs[key] for key in KEPT_ATTRS if key in labelled.attrs}
        attrs["long_name"] = "decoded posterior mean"
        decoded = decoded.transpose(*labelled.dims).assign_coords(coords)
        return _like(patterns, decoded.rename(n.RECONSTRUCTION).assign_attrs(attrs))

    def decode(self, latents: Array, *, batch_size: int = 1024) -> Array:
        """Decode latents to patterns in preprocessed units.

        Parameters
        ----------
        latents : xarray.DataArray or numpy.ndarray
            `(…, *latent_shape)`. A DataArray may have its dims in any order; on dask chunks the
            result is lazy.
        batch_size : int
            Samples at once.

        Returns
        -------
        xarray.DataArray or numpy.ndarray
            `(…, [C,] H, W)`, of the type given; NaN for latents that are NaN.

        Raises
        ------
        DataError
            If the latents do not have the shape of the model's.
        """
        labelled: xr.DataArray = _labelled(latents, n.latent_dims(len(self.latent_shape)))
        latent_dims = [str(dim) for dim in labelled.dims if str(dim).startswith(n.LATENT)]
        if len(latent_dims) != 1:
            raise DataError(
                f"the array has dims {labelled.dims}; expected exactly one latent dim, such as "
                "'latent'."
            )
        core = (latent_dims[0], *schema.position_dims(labelled))
        shape = tuple(labelled.sizes[dim] for dim in core)
        if shape != self.latent_shape:
            raise DataError(
                f"latents have shape {shape} in their last dims; the model's have "
                f"{self.latent_shape}."
            )
        sizes = self._signal_sizes()
        values = labelled.astype(np.float32)
        decoded = self._in_batches(self._enlarged, values, core, sizes, batch_size)
        attrs = {
            "long_name": "decoded pattern",
            "units": "1",
            n.SIGNAL_DIMS: list(self.signal_dims),
        }
        return _like(latents, decoded.rename("decoded").assign_attrs(attrs))

    def _means(self, stored: torch.Tensor) -> torch.Tensor:
        return self.encode_batch(stored)[0]

    def _restored(self, stored: torch.Tensor) -> torch.Tensor:
        decoded = self.decode_batch(self._means(stored))
        return self.preprocess.undo(decoded, stored.to(self.device))

    def _enlarged(self, z: torch.Tensor) -> torch.Tensor:
        return self.preprocess.enlarged(self.decode_batch(z))

    def _signal_sizes(self) -> dict[str, int]:
        return dict(zip(self.signal_dims, self.input_shape[-len(self.signal_dims) :], strict=True))

    def _labelled_patterns(self, patterns: Any) -> xr.DataArray:
        labelled = _labelled(patterns, self.signal_dims)
        sizes = self._signal_sizes()
        if any(labelled.sizes.get(dim) != size for dim, size in sizes.items()):
            raise DataError(
                f"patterns have {dict(labelled.sizes)}; the model was trained on samples of "
                f"{sizes}."
            )
        return labelled

    def _in_batches(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        array: xr.DataArray,
        core: Sequence[str],
        sizes: Mapping[str, int],
        batch_size: int,
    ) -> xr.DataArray:
        """Apply a function to batches of samples over the dims `core`, lazily on dask chunks.

        sizes: of the dims of its results. Samples with values that are not finite give NaN.
        """
        shape = self.latent_shape if core[0].startswith(n.LATENT) else self.input_shape
        size = self.fitting(batch_size)

        def kernel(values: np.ndarray) -> np.ndarray:
            samples = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
            samples = samples.reshape(-1, *shape)
            result = np.empty((len(samples), *sizes.values()), np.float32)
            for start in range(0, len(samples), size):
                batch = function(torch.from_numpy(samples[start : start + size]))
                result[start : start + size] = batch.cpu().numpy().reshape(-1, *sizes.values())
            if samples.dtype.kind == "f":
                is_finite = np.isfinite(samples).all(axis=tuple(range(1, samples.ndim)))
                result[~is_finite] = np.nan
            return result.reshape(*values.shape[: values.ndim - len(core)], *sizes.values())

        result: xr.DataArray = xr.apply_ufunc(
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
        return result.reset_coords(drop=True)

    @torch.inference_mode()
    def encode_batch(self, patterns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return posterior mean and log-variance `(B, *latent_shape)` of stored patterns."""
        self.eval()
        mean, logvar = self.network.encode(self.preprocess(patterns.to(self.device)))
        return mean.float(), logvar.float()

    @torch.inference_mode()
    def decode_batch(self, z: torch.Tensor) -> torch.Tensor:
        """Decode latents to patterns `(B, C, …)`, in preprocessed units and pixels."""
        self.eval()
        decoded: torch.Tensor = self.network.decode(z.to(self.device))
        return decoded.float()


def _labelled(array: Any, last_dims: Sequence[str]) -> xr.DataArray:
    """A DataArray as it is, another array with names for its last dims."""
    if isinstance(array, xr.DataArray):
        return array
    values = np.asarray(array)
    leading = [f"axis_{i}" for i in range(values.ndim - len(last_dims))]
    dims = [*leading, *last_dims]
    if values.ndim != len(dims):
        raise DataError(f"the array has {values.ndim} dims; expected (…, {', '.join(last_dims)}).")
    return xr.DataArray(values, dims=dims)


def _like(array: Any, result: xr.DataArray) -> Any:
    return result if isinstance(array, xr.DataArray) else result.values


def pooled(latents: torch.Tensor) -> torch.Tensor:
    """Average spatial latents over positions, `(B, L, …) -> (B, L)`; vectors stay as they are."""
    return latents.flatten(2).mean(2) if latents.ndim > 2 else latents


def save_model(model: TrainedModel, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write weights, then config.json with their checksum; return the contents of config.json."""
    sha256 = write_tensors(folder / WEIGHTS, model.state_dict())
    record = model.record.to_attrs() | {"signal_dims": list(model.signal_dims)}
    described = {"format": FORMAT, **record, "weights_sha256": sha256, **facts}
    replace_file(folder / CONFIG, json.dumps(described, indent=2).encode())
    return described


def read_about(folder: Path) -> dict[str, Any]:
    """Read config.json of a model folder and check its checksum; raises as `load_folder`."""
    path = folder / CONFIG
    try:
        text = path.read_bytes()
        checksum = (read_seal(folder) or {}).get(CONFIG)
        described = json.loads(text)
    except FileNotFoundError:
        raise NoInputError(
            f"{folder} holds no {CONFIG}, so no trained model; give a run's model folder."
        ) from None
    except ValueError as error:
        raise _unusable(path, str(error)) from None
    if checksum not in (None, hashlib.sha256(text).hexdigest()):
        raise _unusable(path, f"its checksum is not the published one in {SEAL}")
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise _unusable(path, f"it describes no model of vaearr's format {FORMAT}")
    return described


def _unusable(path: Path, reason: str) -> DataError:
    return DataError(f"{path} cannot be used ({reason}); restore it from a copy or train again.")


def load_folder(
    folder: Path, *, device: str | torch.device = "cpu", trust: str | Collection[str] = ()
) -> TrainedModel:
    """Load the model in a folder.

    Checksum, names, shapes and finiteness of the weights are checked. Raises NoInputError or
    DataError for an incomplete or damaged folder, UntrustedError for a model of a package that the
    user does not trust, see `load_model`.
    """
    described = read_about(folder)
    path = folder / WEIGHTS
    record = {name: described[name] for name in ModelRecord.model_fields if name in described}
    names = trusted_names(trust)
    try:
        model = TrainedModel(**record, trust=names)
        state, _ = read_tensors(path, sha256=str(described["weights_sha256"]))
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

    Examples
    --------
    >>> model = va.load_model("scan.zarr")
    >>> model.encode(ds.patterns[:2]).dims
    ('y', 'x', 'latent')
    """
    folder = run_folder(store, run) / n.MODEL
    return load_folder(folder, device=pick_device(device), trust=trust)


def check_network(manifest: Mapping[str, Any], run: str, use: str) -> None:
    """Raise NoInputError for a run with attached latents. use: what the network is needed for, a
    verb.
    """
    if manifest.get("kind") == n.ATTACHED:
        raise NoInputError(
            f"the latents of run {run!r} were attached: it has no network to {use} with."
        )


def check_fits(
    ds: xr.Dataset, manifest: Mapping[str, Any], model: TrainedModel, *, is_compared: bool = False
) -> None:
    """Raise UsageError unless the model was trained on samples such as those of a Dataset.

    is_compared: the caller has compared the patterns, which need not be those of the store.
    """
    trained = f"run {manifest.get('run')!r} was trained on"
    if OTHER_PATTERNS in manifest.get("data", {}) and not is_compared:
        raise UsageError(
            f"{trained} a Dataset whose patterns are not the store's own; give that Dataset, as in "
            "va.encode(ds, run=…), or make a store of it: va.ingest(ds, 'NEW.zarr')."
        )
    shape = schema.input_shape(ds)
    if model.input_shape != shape:
        raise UsageError(
            f"{trained} samples of shape {model.input_shape}, the store has {shape}; train a run "
            "on it."
        )
