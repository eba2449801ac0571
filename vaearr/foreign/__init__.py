"""Weights from elsewhere into our networks: nothing unpickled, every name accounted for, nothing left to chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import nn

from vaearr.config import ModelConfig
from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.foreign.files import named_tensors
from vaearr.foreign.layouts import ANCHORS, LAYOUTS, MONAI, OWN, Tensors, names_in, options_in, prepared
from vaearr.models.autoencoder_kl import AutoencoderKL

__all__ = ["Architecture", "Foreign", "Report", "infer_options", "load_foreign", "read_foreign"]

AUTO = "auto"
MODEL = "autoencoder-kl"
GROUPS = 32  # of the group norms in every published checkpoint; the weights do not say
OF_TRAINING = ("loss.", "discriminator.", "perceptual.", "model_ema.")  # beside an autoencoder under the same prefix
SHOWN = 4


@dataclass(frozen=True)
class Foreign:
    """Tensors of the one autoencoder in a file, without their prefix, and how many others the file holds."""

    path: Path
    layout: str
    prefix: str
    tensors: Mapping[str, torch.Tensor]
    n_ignored: int


@dataclass(frozen=True)
class Architecture:
    """What the shapes in a checkpoint say about its network; `groups` is an assumption where they cannot say it."""

    layout: str
    n_channels: int
    n_spatial_dims: int
    model: ModelConfig


@dataclass(frozen=True)
class Report:
    """What became of a checkpoint's weights, by their names in the file.

    n_loaded: weights of the network that were set. missing, unexpected: those that `allow` let pass; the missing ones
    keep the values that the network had. ignored: tensors that belong to other networks. added: layers that the file's
    network does not have, set so that they change nothing.
    """

    layout: str
    prefix: str
    n_loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    ignored: int
    added: tuple[str, ...]

    def in_words(self) -> str:
        """One line for the user."""
        parts = [f"{self.n_loaded} weights read, layout {self.layout}" + f" under {self.prefix!r}" * bool(self.prefix)]
        parts += [f"{self.ignored} tensors of other networks ignored"] * bool(self.ignored)
        parts += [f"without effect, as the file has none: {', '.join(self.added)}"] * bool(self.added)
        parts += [f"NOT in the file and left as they were: {_some(self.missing)}"] * bool(self.missing)
        parts += [f"in the file and not used: {_some(self.unexpected)}"] * bool(self.unexpected)
        return "; ".join(parts)


def read_foreign(
    path: str | Path, *, layout: str = AUTO, prefix: str | None = None, network: nn.Module | None = None
) -> Foreign:
    """The autoencoder in a checkpoint: `.safetensors`, or torch's format, where nothing but tensors is unpickled.

    layout: ldm, diffusers, monai or vaearr; auto tells it by the names. prefix: what stands before all its names, such
    as `first_stage_model.`; found by itself where only one fits. network: ours, whose own names are looked for then.
    Raises NoInputError for a file that is not there, DataError for one that is damaged, holds more than tensors, no
    autoencoder in these layouts or several, and UsageError for an unknown layout.
    """
    if layout not in (AUTO, *LAYOUTS):
        raise UsageError(f"there is no layout {layout!r}.{did_you_mean(layout, [AUTO, *LAYOUTS])}")
    file = Path(path).expanduser()
    tensors = named_tensors(file)
    anchors = _anchors(layout, network)
    found = _places(tensors, anchors, prefix)
    if not found:
        where = "" if prefix is None else f" under the prefix {prefix!r}"
        raise DataError(
            f"{file} holds {len(tensors)} tensors and no autoencoder in the layout {' or '.join(anchors)}{where}; its "
            f"names are {_some(list(tensors))}."
        )
    if len(found) > 1:
        several = ", ".join(f"{start!r} ({kind})" for kind, start in found)
        raise DataError(
            f"{file} holds {len(found)} autoencoders, under {several}; choose one with prefix=… (--prefix)."
        )
    kind, start = found[0]
    own = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    kept = {name: value for name, value in own.items() if not name.startswith(OF_TRAINING)}
    return Foreign(file, kind, start, kept, len(tensors) - len(kept))


def load_foreign(
    network: nn.Module,
    source: str | Path | Foreign,
    *,
    layout: str = AUTO,
    prefix: str | None = None,
    allow: Sequence[str] = (),
) -> Report:
    """Set all weights of a network from a checkpoint made elsewhere, or none.

    Layouts other than our own need an `AutoencoderKL`. allow: patterns such as `decoder.*` of names, as the file has
    them, that may be missing (those weights stay as they are) or not be used. Raises DataError, with the names and
    counts, unless all names and shapes fit and all values are finite; for the rest see `read_foreign`.
    """
    given = (
        source if isinstance(source, Foreign) else read_foreign(source, layout=layout, prefix=prefix, network=network)
    )
    if isinstance(network, AutoencoderKL):
        names = names_in(given.layout, network)
        tensors, added = prepared(given.layout, given.tensors, network)
    else:
        names, added = {name: name for name in network.state_dict()}, []
        tensors = dict(given.tensors)
    own = network.state_dict()
    missing = [other for other in names.values() if other not in tensors]
    unexpected = sorted(tensors.keys() - set(names.values()))
    values = {name: _of_shape(tensors[other], own[name]) for name, other in names.items() if other in tensors}
    differing = [
        f"{names[name]} {tuple(value.shape)}, the network's {tuple(own[name].shape)}"
        for name, value in values.items()
        if value.shape != own[name].shape
    ]
    _refuse(given, [m for m in missing if not _matches(m, allow)], [u for u in unexpected if not _matches(u, allow)],
            differing)  # fmt: skip
    values = {name: _of_dtype(value, own[name], names[name], given.path) for name, value in values.items()}
    network.load_state_dict({**own, **values}, strict=True)
    return Report(given.layout, given.prefix, len(values), tuple(missing), tuple(unexpected), given.n_ignored,
                  tuple(added))  # fmt: skip


def infer_options(source: str | Path | Foreign, *, layout: str = AUTO, prefix: str | None = None) -> Architecture:
    """The `autoencoder-kl` that a checkpoint was made with, from the names and shapes of its weights.

    Raises DataError where they describe none; for the rest see `read_foreign`.
    """
    given = source if isinstance(source, Foreign) else read_foreign(source, layout=layout, prefix=prefix)
    try:
        options = options_in(given.layout, given.tensors)
        first = next(given.tensors[name] for name in FIRST if name in given.tensors)
    except (KeyError, ValueError, IndexError, StopIteration) as error:
        raise DataError(
            f"{given.path} is not a whole autoencoder in the layout {given.layout}: {error or 'no first layer'} does "
            "not fit; give another file, or name the model yourself."
        ) from None
    latent_dim = options.pop("latent_dim")
    groups = math.gcd(GROUPS, *options["channels"])
    return Architecture(
        given.layout,
        int(first.shape[1]),
        first.ndim - 2,
        ModelConfig(name=MODEL, latent_dim=latent_dim, options={**options, "groups": groups}),
    )


FIRST = ("encoder.conv_in.weight", "encoder.blocks.0.conv.weight", "encoder.blocks.0.conv.conv.weight")


def _anchors(layout: str, network: nn.Module | None) -> dict[str, str]:
    anchors = dict(ANCHORS)
    if network is not None:
        anchors[OWN] = next(iter(network.state_dict()))
        if not isinstance(network, AutoencoderKL):
            anchors = {OWN: anchors[OWN]}
            if layout not in (AUTO, OWN):
                raise UsageError(f"weights in the layout {layout!r} fit the model {MODEL!r} alone, not this network.")
    return anchors if layout == AUTO else {layout: anchors[layout]}


def _places(tensors: Tensors, anchors: Mapping[str, str], prefix: str | None) -> list[tuple[str, str]]:
    """Layouts and prefixes at which the file has what only that layout has."""
    found = [
        (kind, name.removesuffix(anchor))
        for kind, anchor in anchors.items()
        for name in tensors
        if name == anchor or name.endswith(f".{anchor}")
    ]
    monai = {start for kind, start in found if kind == MONAI}
    found = [(kind, start) for kind, start in found if not (kind == OWN and start in monai)]
    if prefix is None:
        return found
    wanted = {prefix, f"{prefix}."}
    return [(kind, start) for kind, start in found if start in wanted]


def _of_shape(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A 1 x 1 convolution as the matrix that it is, where ours is one."""
    is_matrix = like.ndim == 2 and value.ndim > 2 and set(value.shape[2:]) == {1}
    return value.flatten(1) if is_matrix else value


def _of_dtype(value: torch.Tensor, like: torch.Tensor, name: str, path: Path) -> torch.Tensor:
    if like.is_floating_point() and not value.is_floating_point():
        raise DataError(
            f"{path}: {name} is {value.dtype}, not a floating-point type; use a file that is not quantised."
        )
    value = value.to(like.dtype)
    if like.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise DataError(f"{path} holds values that are not finite in {name!r}; use another copy.")
    return value


def _refuse(given: Foreign, missing: list[str], unexpected: list[str], differing: list[str]) -> None:
    """Raise DataError unless nothing is wrong."""
    if not (missing or unexpected or differing):
        return
    parts = [f"{len(missing)} missing in the file: {_some(missing)}"] * bool(missing)
    parts += [f"{len(unexpected)} unexpected in it: {_some(unexpected)}"] * bool(unexpected)
    parts += [f"{len(differing)} of another shape: {_some(differing)}"] * bool(differing)
    raise DataError(
        f"{given.path} (layout {given.layout}, prefix {given.prefix!r}) does not fit the network: {'; '.join(parts)}. "
        "Nothing was loaded; give the options that the checkpoint was made with."
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
