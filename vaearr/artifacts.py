"""A trained model as a self-describing folder: config.json, weights.safetensors, history.csv. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors.torch import load, save
from torch import nn

from vaearr import names as n
from vaearr.config import ModelConfig, PreprocessConfig
from vaearr.errors import DataError, NoInputError
from vaearr.models import build_model
from vaearr.preprocess import Preprocess
from vaearr.store.commit import replace_file

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "weights.safetensors"


class TrainedModel(nn.Module):
    """Preprocessing and network together: from patterns as they were stored to latents, and back.

    `forward`, `encode_batch` and `decode_batch` work on torch batches `(B, C, …)`; `encode` and `decode` on arrays.
    """

    def __init__(
        self, *, model: ModelConfig, preprocess: PreprocessConfig, input_shape: tuple[int, ...], dtype: str
    ) -> None:
        super().__init__()
        self.model_config, self.preprocess_config = model, preprocess
        self.input_shape, self.dtype = tuple(input_shape), dtype
        self.preprocess = Preprocess(preprocess, self.input_shape)
        self.network = build_model(model, self.input_shape)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def encode(self, patterns: xr.DataArray | np.ndarray, *, batch_size: int = 1024) -> xr.DataArray | np.ndarray:
        """Posterior mean of patterns as they were stored, `(…, [C,] H, W) -> (…, latent)`; deterministic.

        A DataArray keeps its leading dims and coordinates. Raises DataError when the patterns have another shape than
        the model was trained on.
        """
        signal = self._signal(np.shape(patterns))
        lead = np.shape(patterns)[: len(np.shape(patterns)) - len(signal)]
        flat = np.asarray(patterns).reshape(-1, *self.input_shape)
        parts = [
            self.encode_batch(torch.from_numpy(flat[part]))[0].cpu().numpy() for part in _slices(len(flat), batch_size)
        ]
        values = np.concatenate(parts).reshape(*lead, self.model_config.latent_dim)
        if not isinstance(patterns, xr.DataArray):
            return values
        dims = patterns.dims[: len(lead)]
        coords = {d: patterns[d] for d in dims if d in patterns.coords} | {n.LATENT: np.arange(values.shape[-1])}
        return xr.DataArray(values, dims=(*dims, n.LATENT), coords=coords, name=n.LATENTS, attrs=n.ATTRS[n.LATENTS])

    def decode(self, latents: xr.DataArray | np.ndarray, *, batch_size: int = 1024) -> xr.DataArray | np.ndarray:
        """Patterns that the decoder expects for latents `(…, latent)`: `(…, [C,] H, W)`, in preprocessed units."""
        if np.shape(latents)[-1] != self.model_config.latent_dim:
            raise DataError(
                f"latents have {np.shape(latents)[-1]} dimensions last, the model {self.model_config.latent_dim}."
            )
        lead = np.shape(latents)[:-1]
        flat = np.asarray(latents, np.float32).reshape(-1, self.model_config.latent_dim)
        parts = [
            self.decode_batch(torch.from_numpy(flat[part])).cpu().numpy() for part in _slices(len(flat), batch_size)
        ]
        signal = self.input_shape[1:] if self.input_shape[0] == 1 else self.input_shape
        values = np.concatenate(parts).reshape(*lead, *signal)
        if not isinstance(latents, xr.DataArray):
            return values
        dims = latents.dims[:-1]
        names = (n.CHANNEL, n.DZ, n.DY, n.DX)[-len(signal) :] if len(signal) > 2 else (n.DY, n.DX)
        coords = {d: latents[d] for d in dims if d in latents.coords}
        return xr.DataArray(values, dims=(*dims, *names), coords=coords, name="decoded")

    @torch.inference_mode()
    def encode_batch(self, patterns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log-variance `(B, latent)` of stored patterns `(B, C, …)`; nothing is learned."""
        self.eval()
        mean, logvar = self.network.encode(self.preprocess(patterns.to(self.device)))
        return mean.float(), logvar.float()

    @torch.inference_mode()
    def decode_batch(self, z: torch.Tensor) -> torch.Tensor:
        """Decoded patterns `(B, C, …)`, in preprocessed units."""
        self.eval()
        decoded: torch.Tensor = self.network.decode(z.to(self.device))
        return decoded.float()

    def _signal(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        plain = self.input_shape[1:]
        if self.input_shape[0] == 1 and shape[-len(plain) :] == plain and shape[-len(plain) - 1 : -len(plain)] != (1,):
            return plain
        if shape[-len(self.input_shape) :] == self.input_shape:
            return self.input_shape
        raise DataError(f"patterns have shape {shape}; the model was trained on samples of shape {self.input_shape}.")


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, max(total, 1), size):
        yield slice(start, min(start + size, total))


def save_weights(model: nn.Module, path: Path) -> str:
    """Write the weights as safetensors, aside and then renamed in; returns their sha256."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    data = save(state)
    replace_file(path, data)
    return hashlib.sha256(data).hexdigest()


def save_model(model: TrainedModel, folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write weights, then config.json that describes and seals them; returns what config.json holds."""
    sha256 = save_weights(model, folder / WEIGHTS)
    described = {
        "format": FORMAT,
        "model": model.model_config.to_attrs(),
        "preprocess": model.preprocess_config.to_attrs(),
        "input_shape": list(model.input_shape),
        "input_dtype": model.dtype,
        "weights_sha256": sha256,
        **about,
    }
    replace_file(folder / CONFIG, json.dumps(described, indent=2).encode())
    return described


def load_weights(model: nn.Module, path: Path, *, sha256: str | None = None) -> None:
    """Load safetensors into a model: checksum, names, shapes and finiteness are checked before anything changes."""
    data = path.read_bytes()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{path} is damaged: its checksum is not the one in {CONFIG}; restore it or train again.")
    state = load(data)
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(f"{path} holds values that are not finite in {key!r}; train again.")
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise DataError(f"{path} does not fit its {CONFIG}: {' '.join(str(error).split())}") from None


def load_folder(folder: Path, *, device: str | torch.device = "cpu") -> TrainedModel:
    """The model in an artefact folder, ready to encode. Raises NoInputError or DataError for one that is not whole."""
    try:
        about = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        raise NoInputError(
            f"{folder} holds no {CONFIG}: it is not a trained model; give a run's model folder."
        ) from None
    except ValueError as error:
        raise DataError(f"{folder / CONFIG} is not readable JSON ({error}); restore it or train again.") from None
    if about.get("format") != FORMAT:
        raise DataError(f"{folder} has model format {about.get('format')}, this vaearr knows {FORMAT}.")
    model = TrainedModel(
        model=ModelConfig.from_attrs(about["model"]),
        preprocess=PreprocessConfig.from_attrs(about["preprocess"]),
        input_shape=tuple(about["input_shape"]),
        dtype=about["input_dtype"],
    )
    load_weights(model, folder / WEIGHTS, sha256=about["weights_sha256"])
    return model.to(device).eval()
