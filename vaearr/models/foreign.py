"""Weights from elsewhere into our networks: nothing unpickled, every name accounted for, nothing left to chance.

KL autoencoders in four dialects. ldm: CompVis latent-diffusion and Stable Diffusion (its decoder counts levels from
the finest, and so runs backwards); diffusers: the same network under other names, with linear attention; monai: MONAI's
AutoencoderKL, its MAISI variant and the older GenerativeModels, which have separate convolutions for mean and
log-variance; vaearr: our own, of any network.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaearr.config import ModelConfig
from vaearr.errors import DataError, UsageError
from vaearr.models.autoencoder_kl import AutoencoderKL
from vaearr.models.files import named_tensors

AUTO = "auto"
LDM, DIFFUSERS, MONAI, OWN = "ldm", "diffusers", "monai", "vaearr"
MODEL = "autoencoder-kl"
GROUPS = 32  # of the group norms in every published checkpoint; the weights do not say
OF_TRAINING = ("loss.", "discriminator.", "perceptual.", "model_ema.")  # beside an autoencoder under the same prefix
SHOWN = 4
Tensors = dict[str, torch.Tensor]

# a name that only this dialect has; of our own networks the first name is taken
ANCHORS = {
    LDM: "encoder.down.0.block.0.norm1.weight",
    DIFFUSERS: "encoder.down_blocks.0.resnets.0.norm1.weight",
    MONAI: "quant_conv_mu.conv.weight",
    OWN: "encoder.blocks.0.conv.weight",
}
FIRST = ("encoder.conv_in.weight", "encoder.blocks.0.weight")  # of a whole encoder, in plain names
# pattern -> replacement, one after the other: diffusers' names, old and new, as Stable Diffusion's
FROM_DIFFUSERS = {
    r"\.conv_norm_out\.": ".norm_out.",
    r"\.mid_block\.resnets\.0\.": ".mid.block_1.",
    r"\.mid_block\.resnets\.1\.": ".mid.block_2.",
    r"\.mid_block\.attentions\.0\.": ".mid.attn_1.",
    r"\.(down|up)_blocks\.": r".\1.",
    r"\.resnets\.": ".block.",
    r"\.attentions\.": ".attn.",
    r"samplers\.0\.": "sample.",
    r"\.conv_shortcut\.": ".nin_shortcut.",
    r"\.group_norm\.": ".norm.",
    r"\.to_out\.0\.|\.proj_attn\.": ".proj_out.",
    r"\.(?:to_q|query)\.": ".q.",
    r"\.(?:to_k|key)\.": ".k.",
    r"\.(?:to_v|value)\.": ".v.",
}
# MONAI's names, and ours, without what differs between its versions: encoder.blocks.3.conv1.weight
FROM_MONAI = {r"\.(?:conv|postconv|attn)(?=\.)": "", r"\.proj_attn\.": ".out_proj."}
ATTENTION_IN_LDM = {r"\.to_([qkv])\.": r".\1.", r"\.out_proj\.": ".proj_out."}


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
    """What became of a checkpoint's weights.

    n_loaded: weights of the network that were set, which is all of them. ignored: tensors that belong to other
    networks. added: layers that the file's network does not have, set so that they change nothing.
    """

    layout: str
    prefix: str
    n_loaded: int
    ignored: int
    added: tuple[str, ...]

    def in_words(self) -> str:
        """One line for the user."""
        parts = [f"{self.n_loaded} weights read, layout {self.layout}" + f" under {self.prefix!r}" * bool(self.prefix)]
        parts += [f"{self.ignored} tensors of other networks ignored"] * bool(self.ignored)
        parts += [f"without effect, as the file has none: {', '.join(self.added)}"] * bool(self.added)
        return "; ".join(parts)


def read_foreign(
    path: str | Path, *, layout: str = AUTO, prefix: str | None = None, network: nn.Module | None = None
) -> Foreign:
    """The autoencoder in a checkpoint: `.safetensors`, or torch's format, where nothing but tensors is unpickled.

    layout: ldm, diffusers, monai or vaearr; auto tells it by the names. prefix: what stands before all its names, such
    as `first_stage_model.`; found by itself where only one fits. network: ours, whose own names are looked for then.
    Raises NoInputError for a file that is not there, DataError for one that is damaged, holds more than tensors, no
    autoencoder in these layouts or several.
    """
    file = Path(path).expanduser()
    tensors = named_tensors(file)
    anchors = dict(ANCHORS)
    if network is not None:
        anchors[OWN] = next(iter(network.state_dict()))
    if network is not None and not isinstance(network, AutoencoderKL):
        anchors = {OWN: anchors[OWN]}
    if layout not in (AUTO, *anchors):
        raise UsageError(f"weights in the layout {layout!r} fit the model {MODEL!r} alone, not this network.")
    if layout != AUTO:
        anchors = {layout: anchors[layout]}
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


def _places(tensors: Tensors, anchors: Mapping[str, str], prefix: str | None) -> list[tuple[str, str]]:
    """Layouts and prefixes at which the file has what only that layout has."""
    found = [
        (kind, name.removesuffix(anchor))
        for kind, anchor in anchors.items()
        for name in tensors
        if name == anchor or name.endswith(f".{anchor}")
    ]
    monai = {start for kind, start in found if kind == MONAI}
    return [
        (kind, start)
        for kind, start in found
        if not (kind == OWN and start in monai) and prefix in (None, start, start.removesuffix("."))
    ]


def load_foreign(
    network: nn.Module, source: str | Path | Foreign, *, layout: str = AUTO, prefix: str | None = None
) -> Report:
    """Set all weights of a network from a checkpoint made elsewhere, or none.

    Layouts other than our own need an `AutoencoderKL`. Raises DataError, with the names and counts, unless all names
    and shapes fit and all values are finite; for the rest see `read_foreign`.
    """
    given = (
        source if isinstance(source, Foreign) else read_foreign(source, layout=layout, prefix=prefix, network=network)
    )
    own = network.state_dict()
    added: list[str] = []
    names, tensors = {name: name for name in own}, dict(given.tensors)
    if given.layout != OWN and isinstance(network, AutoencoderKL):
        places = {} if given.layout == MONAI else _places_in_ldm(network)
        names = {name: _name_in(places, name) for name in own}
        tensors, added = _prepared(given.layout, tensors, network)
    values = {name: _of_shape(tensors[other], own[name]) for name, other in names.items() if other in tensors}
    _check_fit(
        given,
        missing=[other for other in names.values() if other not in tensors],
        unexpected=sorted(tensors.keys() - set(names.values())),
        differing=[
            f"{names[name]} {tuple(value.shape)}, the network's {tuple(own[name].shape)}"
            for name, value in values.items()
            if value.shape != own[name].shape
        ],
    )
    network.load_state_dict(
        {name: _of_dtype(value, own[name], names[name], given.path) for name, value in values.items()}, strict=True
    )
    return Report(given.layout, given.prefix, len(values), given.n_ignored, tuple(added))


def _check_fit(given: Foreign, *, missing: list[str], unexpected: list[str], differing: list[str]) -> None:
    """Raise DataError unless nothing is wrong."""
    wrong = {"missing in the file": missing, "unexpected in it": unexpected, "of another shape": differing}
    parts = [f"{len(names)} {what}: {_some(names)}" for what, names in wrong.items() if names]
    if parts:
        raise DataError(
            f"{given.path} (layout {given.layout}, prefix {given.prefix!r}) does not fit the network: "
            f"{'; '.join(parts)}. Nothing was loaded; give the options that the checkpoint was made with."
        )


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


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


# ---- names -----------------------------------------------------------------------------------------------------------


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, other in rules.items():
        name = re.sub(pattern, other, name)
    return name


def _places_in_ldm(network: AutoencoderKL) -> dict[str, str]:
    """Our name of each block with weights -> Stable Diffusion's, told in the order in which they run."""
    found: dict[str, str] = {}
    last = len(network.channels) - 1
    for half, change, counts, levels in (
        ("encoder", "down", network.res_blocks, range(last + 1)),
        ("decoder", "up", network.decoder_res_blocks, range(last, -1, -1)),
    ):
        rows = []
        for level in levels:
            row = []
            for number in range(counts[level]):
                row += [f"{change}.{level}.block.{number}"]
                row += [f"{change}.{level}.attn.{number}"] * network.attention_levels[level]
            rows += [*row, *[f"{change}.{level}.{change}sample.conv"] * (level != levels[-1])]
        middle = ["mid.block_1", "mid.attn_1", "mid.block_2"] * network.mid_attention
        order = [*rows, *middle] if half == "encoder" else [*middle, *rows]
        order = ["conv_in", *order, "norm_out", *["activation"] * network.final_activation, "conv_out"]
        found |= {f"{half}.blocks.{index}": f"{half}.{name}" for index, name in enumerate(order)}
    return found


def _name_in(places: Mapping[str, str], ours: str) -> str:
    """A name of ours as MONAI has it, plain, or where `places` names the blocks as Stable Diffusion has it."""
    name = _renamed(ours, FROM_MONAI)
    block = ".".join(name.split(".")[:3])
    return _renamed(places[block] + name.removeprefix(block), ATTENTION_IN_LDM) if block in places else name


def _prepared(layout: str, tensors: Tensors, network: AutoencoderKL) -> tuple[Tensors, list[str]]:
    """Tensors under the names that are looked for, and what was put there that the file does not have because its
    network is without it: a convolution or projection that changes nothing."""
    found = _plain(layout, tensors)
    added = []
    if layout == MONAI:
        for name in [name for name in found if name.endswith(".to_q.weight")]:
            block, size = name.removesuffix("to_q.weight"), len(found[name])
            if f"{block}out_proj.weight" not in found:
                found |= {f"{block}out_proj.weight": torch.eye(size), f"{block}out_proj.bias": torch.zeros(size)}
                added.append(f"{block}out_proj")
        return _one_posterior(found, network), added
    for conv, size in (("quant_conv", 2 * network.latent_dim), ("post_quant_conv", network.latent_dim)):
        if not any(name.startswith(f"{conv}.") for name in found):
            eye = torch.eye(size).view(size, size, *[1] * len(network.stride))
            found |= {f"{conv}.weight": eye, f"{conv}.bias": torch.zeros(size)}
            added.append(conv)
    return found, added


def _plain(layout: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Tensors in plain names: Stable Diffusion's for diffusers too, MONAI's without what differs between versions."""
    if layout == LDM:
        return dict(tensors)
    if layout != DIFFUSERS:
        found: Tensors = {}
        for name, value in ((_renamed(name, FROM_MONAI), value) for name, value in tensors.items()):
            if ".qkv." in name and value.shape[0] % 3 == 0:
                parts = zip("qkv", value.chunk(3), strict=True)
                found |= {name.replace(".qkv.", f".to_{part}."): third for part, third in parts}
            else:
                found[name] = value
        return found
    plain = {_renamed(name, FROM_DIFFUSERS): value for name, value in tensors.items()}
    level = re.compile(r"(?<=decoder\.up\.)\d+(?=\.)")  # counted from the coarsest
    last = max((int(place[0]) for name in plain if (place := level.search(name))), default=0)
    return {level.sub(lambda place: str(last - int(place[0])), name): value for name, value in plain.items()}


def _one_posterior(found: Tensors, network: AutoencoderKL) -> Tensors:
    """MONAI's convolutions of the same features to mean and to log-variance, as one of twice the channels.

    Its `quant_conv_log_sigma` gives log sigma^2, in spite of its name. Our encoder's second half of channels is zero.
    """
    last, size = f"encoder.blocks.{len(network.encoder.blocks) - 1}", network.latent_dim
    wanted = [f"{last}.weight", f"{last}.bias"]
    wanted += [f"quant_conv_{part}.{what}" for what in ("weight", "bias") for part in ("mu", "log_sigma")]
    if any(name not in found or len(found[name]) != size for name in wanted):
        return found  # and the lists of missing and unexpected names say so
    for what in ("weight", "bias"):
        out = found[f"{last}.{what}"]
        both = torch.cat([found.pop(f"quant_conv_mu.{what}"), found.pop(f"quant_conv_log_sigma.{what}")])
        found[f"{last}.{what}"] = torch.cat([out, torch.zeros_like(out)])
        found[f"quant_conv.{what}"] = torch.cat([both, torch.zeros_like(both)], 1) if what == "weight" else both
    return found


# ---- what the names and shapes tell ----------------------------------------------------------------------------------


def infer_options(source: str | Path | Foreign, *, layout: str = AUTO, prefix: str | None = None) -> Architecture:
    """The `autoencoder-kl` that a checkpoint was made with, from the names and shapes of its weights.

    Raises DataError where they describe none; for the rest see `read_foreign`.
    """
    given = source if isinstance(source, Foreign) else read_foreign(source, layout=layout, prefix=prefix)
    tensors = _plain(given.layout, given.tensors)
    try:
        options = (_options_by_level if given.layout in (LDM, DIFFUSERS) else _options_by_order)(tensors)
        first = next(tensors[name] for name in FIRST if name in tensors)
    except (KeyError, ValueError, IndexError, StopIteration) as error:
        raise DataError(
            f"{given.path} is not a whole autoencoder in the layout {given.layout}: {error or 'no first layer'} does "
            "not fit; give another file, or name the model yourself."
        ) from None
    latent_dim = options.pop("latent_dim")
    options["groups"] = math.gcd(GROUPS, *options["channels"])
    model = ModelConfig(name=MODEL, latent_dim=latent_dim, options=options)
    return Architecture(given.layout, int(first.shape[1]), first.ndim - 2, model)


def _options_by_level(tensors: Tensors) -> dict[str, Any]:
    """Of Stable Diffusion's names, which number the levels."""
    block = re.compile(r"((?:encoder\.down|decoder\.up)\.\d+)\.block\.\d+\.conv1\.weight")
    counts = Counter(found[1] for name in tensors if (found := block.fullmatch(name)))
    levels = range(sum(name.startswith("encoder.") for name in counts))
    with_attention = {name.partition(".attn.")[0] for name in tensors if ".attn." in name}
    return {
        "latent_dim": tensors["decoder.conv_in.weight"].shape[1],
        "channels": [len(tensors[f"encoder.down.{level}.block.0.conv1.weight"]) for level in levels],
        "res_blocks": [counts[f"encoder.down.{level}"] for level in levels],
        "decoder_res_blocks": [counts[f"decoder.up.{level}"] for level in levels],
        "attention_levels": [f"encoder.down.{level}" in with_attention for level in levels],
        "mid_attention": any(name.startswith("encoder.mid.") for name in tensors),
        "final_activation": True,
    }


LEVEL = "(?:(?:ra)+|r+)"  # residual blocks, each with attention or none; convolutions stand between levels
ENCODER_ORDER = re.compile(f"c({LEVEL}(?:c{LEVEL})*)(rar)?nc")
DECODER_ORDER = re.compile(f"c(rar)?({LEVEL}(?:c{LEVEL})*)nc")


def _options_by_order(tensors: Tensors) -> dict[str, Any]:
    """Of MONAI's names and ours, which number the blocks in the order in which they run."""
    places, kinds = {}, {}
    for half in ("encoder", "decoder"):
        start = f"{half}.blocks."
        places[half] = sorted({int(name.split(".")[2]) for name in tensors if name.startswith(start)})
        kinds[half] = "".join(_kind(tensors, f"{start}{index}") for index in places[half])
    encoder, decoder = ENCODER_ORDER.fullmatch(kinds["encoder"]), DECODER_ORDER.fullmatch(kinds["decoder"])
    if not encoder or not decoder or (encoder[2] is None) != (decoder[1] is None):
        raise ValueError(f"the order of blocks {kinds['encoder']} and {kinds['decoder']}")
    firsts = [places["encoder"][found.start()] for found in re.finditer("(?<=c)r", kinds["encoder"])]
    return {
        "latent_dim": tensors["decoder.blocks.0.weight"].shape[1],
        "channels": [len(tensors[f"encoder.blocks.{index}.conv1.weight"]) for index in firsts],
        "res_blocks": [level.count("r") for level in encoder[1].split("c")],
        "decoder_res_blocks": [level.count("r") for level in decoder[2].split("c")][::-1],
        "attention_levels": ["a" in level for level in encoder[1].split("c")],
        "mid_attention": encoder[2] is not None,
        "final_activation": places["encoder"][-1] - places["encoder"][-2] == 2,
    }


def _kind(tensors: Tensors, block: str) -> str:
    """r for a residual block, a for attention, c for a convolution, n for a norm."""
    if f"{block}.conv1.weight" in tensors:
        return "r"
    if f"{block}.norm.weight" in tensors:
        return "a"
    return "c" if tensors[f"{block}.weight"].ndim > 1 else "n"
