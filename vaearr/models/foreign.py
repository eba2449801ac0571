"""Weights from elsewhere into our networks: nothing unpickled, every name accounted for, nothing
left to chance.

KL autoencoders in three dialects. ldm: CompVis latent-diffusion and Stable Diffusion (its decoder
counts levels from the finest, and so runs backwards); diffusers: the same network under other
names, with linear attention; monai: MONAI's AutoencoderKL, its MAISI variant and the older
GenerativeModels, which have separate convolutions for mean and log-variance.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaearr.config import ModelConfig
from vaearr.errors import DataError, UsageError
from vaearr.models.networks import AutoencoderKL
from vaearr.models.tensors import check_finite, check_fit, named_tensors, some

LDM, DIFFUSERS, MONAI = "ldm", "diffusers", "monai"
MODEL = "autoencoder-kl"
GROUPS = 32  # of the group norms in every published checkpoint; the weights do not say
OF_TRAINING = (
    "loss.",
    "discriminator.",
    "perceptual.",
    "model_ema.",
)  # beside an autoencoder under the same prefix
Tensors = dict[str, torch.Tensor]

# a name that only this dialect has
ANCHORS = {
    LDM: "encoder.down.0.block.0.norm1.weight",
    DIFFUSERS: "encoder.down_blocks.0.resnets.0.norm1.weight",
    MONAI: "quant_conv_mu.conv.weight",
}
# dialect -> pattern -> replacement, one after the other: into Stable Diffusion's names, or into
# MONAI's (and ours) without what differs between its versions: encoder.blocks.3.conv1.weight
RULES: dict[str, dict[str, str]] = {
    LDM: {},
    DIFFUSERS: {
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
    },
    MONAI: {r"\.(?:conv|postconv|attn)(?=\.)": "", r"\.proj_attn\.": ".out_proj."},
}
ATTENTION_IN_LDM = {r"\.to_([qkv])\.": r".\1.", r"\.out_proj\.": ".proj_out."}
LEVEL_OF_DECODER = re.compile(r"(?<=decoder\.up\.)\d+(?=\.)")


@dataclass(frozen=True)
class Foreign:
    """Tensors of the one autoencoder in a file, in plain names, and how many others the file holds."""

    path: Path
    layout: str
    prefix: str
    tensors: Mapping[str, torch.Tensor]
    n_ignored: int


def in_words(report: Mapping[str, Any]) -> str:
    """What became of a checkpoint's weights, in a line for the user."""
    prefix, ignored, added = report["prefix"], report["n_ignored"], report["added"]
    parts = [f"{report['n_weights_read']} weights read, layout {report['layout']}"]
    parts[0] += f" under {prefix!r}" if prefix else ""
    parts += [f"{ignored} tensors of other networks ignored"] if ignored else []
    parts += [f"without effect, as the file has none: {', '.join(added)}"] if added else []
    return "; ".join(parts)


def read_foreign(path: str | Path, *, prefix: str | None = None) -> Foreign:
    """The autoencoder in a checkpoint: `.safetensors`, or torch's format, where nothing but tensors
    is unpickled.

    Its layout is identified by the names. prefix: what stands before all its names, such as
    `first_stage_model.`; found by itself where only one fits. Raises NoInputError for a missing
    file, DataError for one that is damaged, holds more than tensors, or no autoencoder in these
    layouts, or several.
    """
    file = Path(path).expanduser()
    tensors = named_tensors(file)
    places = []
    for kind, anchor in ANCHORS.items():
        for name in tensors:
            start = name.removesuffix(anchor)
            if f".{name}".endswith(f".{anchor}") and prefix in (None, start, start.strip(".")):
                places.append((kind, start))
    if not places:
        where = "" if prefix is None else f" under the prefix {prefix!r}"
        known = " or ".join(ANCHORS)
        raise DataError(
            f"{file} holds no autoencoder in the layout {known}{where}; it has {some(list(tensors))}. Of a vaearr run "
            "give the model folder, whose config.json says how samples are prepared."
        )
    if len(places) > 1:
        several = ", ".join(f"{start!r} ({kind})" for kind, start in places)
        raise DataError(
            f"{file} holds {len(places)} autoencoders, under {several}; choose one with --prefix."
        )
    kind, start = places[0]
    kept = {}
    for name, value in tensors.items():
        inner = name.removeprefix(start)
        if name.startswith(start) and not inner.startswith(OF_TRAINING):
            kept[inner] = value
    return Foreign(file, kind, start, _plain(kind, kept), len(tensors) - len(kept))


def load_foreign(network: nn.Module, source: str | Path | Foreign) -> dict[str, Any]:
    """Set all weights of a network from a checkpoint made elsewhere, or none; returns what became
    of them.

    That is `layout` and `prefix` of its names; `n_weights_read`, all of the network; `n_ignored`,
    tensors that are of other networks; `added`, layers that the file's network does not have, set
    so that they change nothing.

    Raises UsageError for another network than `AutoencoderKL`, DataError, with the names and
    counts, unless all names and shapes fit and all values are finite; for the rest see
    `read_foreign`.
    """
    if not isinstance(network, AutoencoderKL):
        raise UsageError(
            f"checkpoints from elsewhere fit the model {MODEL!r} alone, not {type(network).__name__}; give the model "
            "folder of a vaearr run."
        )
    given = source if isinstance(source, Foreign) else read_foreign(source)
    own = network.state_dict()
    tensors = dict(given.tensors)
    places = _places_in_ldm(network) if given.layout in (LDM, DIFFUSERS) else {}
    names = {name: _name_in(places, name) for name in own}
    added = _complete(tensors, given.layout, network)
    wanted = {other: own[name] for name, other in names.items()}
    for name in (
        tensors.keys() & wanted.keys()
    ):  # a 1 x 1 convolution is the matrix that it is, where ours is one
        is_matrix = wanted[name].ndim == 2 and set(tensors[name].shape[2:]) == {1}
        tensors[name] = tensors[name].flatten(1) if is_matrix else tensors[name]
    check_fit(
        wanted,
        tensors,
        f"{given.path} (layout {given.layout}, prefix {given.prefix!r}) does not fit the network",
    )
    for name, value in tensors.items():
        if wanted[name].is_floating_point() and not value.is_floating_point():
            raise DataError(
                f"{given.path}: {name} is {value.dtype}, not a floating-point type (quantised?)."
            )
        tensors[name] = value.to(wanted[name].dtype)
    check_finite(tensors, given.path)
    network.load_state_dict({name: tensors[other] for name, other in names.items()}, strict=True)
    counts = {"n_weights_read": len(names), "n_ignored": given.n_ignored}
    return {"layout": given.layout, "prefix": given.prefix, **counts, "added": added}


# ---- names -----------------------------------------------------------------------------------------------------------


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, other in rules.items():
        name = re.sub(pattern, other, name)
    return name


def _plain(layout: str, tensors: Tensors) -> Tensors:
    """Tensors in plain names: Stable Diffusion's for diffusers too, MONAI's without what differs
    between versions.
    """
    found: Tensors = {}
    for name, value in tensors.items():
        name = _renamed(name, RULES[layout])
        if ".qkv." in name and value.shape[0] % 3 == 0:
            parts = zip("qkv", value.chunk(3), strict=True)
            found |= {name.replace(".qkv.", f".to_{part}."): third for part, third in parts}
        else:
            found[name] = value
    if layout == DIFFUSERS:  # which counts the decoder's levels from the coarsest
        last = max(
            (int(place[0]) for name in found if (place := LEVEL_OF_DECODER.search(name))), default=0
        )
        found = {
            LEVEL_OF_DECODER.sub(lambda place: str(last - int(place[0])), name): v
            for name, v in found.items()
        }
    return found


def _places_in_ldm(network: AutoencoderKL) -> dict[str, str]:
    """Our name of each block with weights -> Stable Diffusion's, told in the order in which they
    run.
    """
    found: dict[str, str] = {}
    levels = range(len(network.channels))
    middle = ["mid.block_1", "mid.attn_1", "mid.block_2"] * network.mid_attention
    for half, change, counts in (
        ("encoder", "down", network.res_blocks),
        ("decoder", "up", network.decoder_res_blocks),
    ):
        rows = []
        for level in levels if half == "encoder" else levels[::-1]:
            for number in range(counts[level]):
                rows += [f"{change}.{level}.block.{number}"]
                rows += [f"{change}.{level}.attn.{number}"] * network.attention_levels[level]
            rows += [f"{change}.{level}.{change}sample.conv"]
        rows.pop()  # nothing changes after the last level
        order = [*rows, *middle] if half == "encoder" else [*middle, *rows]
        order = [
            "conv_in",
            *order,
            "norm_out",
            *["activation"] * network.final_activation,
            "conv_out",
        ]
        found |= {f"{half}.blocks.{index}": f"{half}.{name}" for index, name in enumerate(order)}
    return found


def _name_in(places: Mapping[str, str], ours: str) -> str:
    """A name of ours as MONAI has it, plain, or where `places` names the blocks as Stable Diffusion
    has it.
    """
    name = _renamed(ours, RULES[MONAI])
    block = ".".join(name.split(".")[:3])
    return (
        _renamed(places[block] + name.removeprefix(block), ATTENTION_IN_LDM)
        if block in places
        else name
    )


def _complete(tensors: Tensors, layout: str, network: AutoencoderKL) -> list[str]:
    """Put what the file does not have, because its network is without it, beside its tensors: a
    convolution or projection that changes nothing; returns the names of these.
    """
    size, queries = network.latent_dim, [name for name in tensors if name.endswith(".to_q.weight")]
    lacking = {
        name.replace("to_q.weight", "out_proj"): torch.eye(len(tensors[name])) for name in queries
    }
    if layout in (LDM, DIFFUSERS):
        ones = [1] * len(network.stride)
        lacking = {
            conv: torch.eye(n).view(n, n, *ones)
            for conv, n in (("quant_conv", 2 * size), ("post_quant_conv", size))
        }
    lacking = {name: eye for name, eye in lacking.items() if f"{name}.weight" not in tensors}
    for name, eye in lacking.items():
        tensors |= {f"{name}.weight": eye, f"{name}.bias": torch.zeros(len(eye))}
    if layout == MONAI:
        _join_posterior(tensors, f"encoder.blocks.{len(network.encoder.blocks) - 1}", size)
    return list(lacking)


def _join_posterior(tensors: Tensors, last: str, size: int) -> None:
    """MONAI's convolutions of the same features to mean and to log-variance, as one of twice the
    channels.

    Its `quant_conv_log_sigma` gives log sigma^2, in spite of its name. Our encoder's second half of
    channels is zero.
    """
    two = [f"quant_conv_{part}" for part in ("mu", "log_sigma")]
    if any(
        len(tensors.get(f"{name}.{what}", ())) != size
        for name in (last, *two)
        for what in ("weight", "bias")
    ):
        return  # and the lists of missing and unexpected names say so
    for what in ("weight", "bias"):
        out, both = (
            tensors[f"{last}.{what}"],
            torch.cat([tensors.pop(f"{name}.{what}") for name in two]),
        )
        tensors[f"{last}.{what}"] = torch.cat([out, torch.zeros_like(out)])
        tensors[f"quant_conv.{what}"] = (
            torch.cat([both, torch.zeros_like(both)], 1) if what == "weight" else both
        )


# ---- what the names and shapes tell ----------------------------------------------------------------------------------


def infer_options(given: Foreign) -> tuple[ModelConfig, tuple[int, int]]:
    """The `autoencoder-kl` that a checkpoint was made with, from the names and shapes of its
    weights, and the channels and spatial dims of its samples. Raises DataError where they describe
    none.
    """
    tensors = given.tensors
    is_leveled = given.layout in (LDM, DIFFUSERS)
    try:
        options = (_options_by_level if is_leveled else _options_by_order)(tensors)
        first = tensors["encoder.conv_in.weight" if is_leveled else "encoder.blocks.0.weight"]
        latent_dim = tensors[
            "decoder.conv_in.weight" if is_leveled else "decoder.blocks.0.weight"
        ].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        what = f"{given.path} is not a whole autoencoder in the layout {given.layout}"
        raise DataError(f"{what}: {error} does not fit; give another file.") from None
    options["groups"] = math.gcd(GROUPS, *options["channels"])
    return ModelConfig(name=MODEL, latent_dim=latent_dim, options=options), (
        int(first.shape[1]),
        first.ndim - 2,
    )


def _options_by_level(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Of Stable Diffusion's names, which number the levels."""
    block = re.compile(r"((?:encoder\.down|decoder\.up)\.\d+)\.block\.\d+\.conv1\.weight")
    counts = Counter(found[1] for name in tensors if (found := block.fullmatch(name)))
    levels = range(sum(name.startswith("encoder.") for name in counts))
    return {
        "channels": [
            len(tensors[f"encoder.down.{level}.block.0.conv1.weight"]) for level in levels
        ],
        "res_blocks": [counts[f"encoder.down.{level}"] for level in levels],
        "decoder_res_blocks": [counts[f"decoder.up.{level}"] for level in levels],
        "attention_levels": [
            any(name.startswith(f"encoder.down.{i}.attn.") for name in tensors) for i in levels
        ],
        "mid_attention": any(name.startswith("encoder.mid.") for name in tensors),
        "final_activation": True,
    }


LEVEL = "(?:(?:ra)+|r+)"  # residual blocks, each with attention or none; convolutions stand between levels
ENCODER_ORDER = re.compile(f"c({LEVEL}(?:c{LEVEL})*)(rar)?n(s)?c")
DECODER_ORDER = re.compile(f"c(rar)?({LEVEL}(?:c{LEVEL})*)ns?c")


def _options_by_order(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Of MONAI's names, which number the blocks in the order in which they run."""
    halves = []
    for half in ("encoder", "decoder"):
        last = max(
            int(name.split(".")[2]) for name in tensors if name.startswith(f"{half}.blocks.")
        )
        halves.append(
            "".join(_kind(tensors, f"{half}.blocks.{index}") for index in range(last + 1))
        )
    encoder, decoder = ENCODER_ORDER.fullmatch(halves[0]), DECODER_ORDER.fullmatch(halves[1])
    if not encoder or not decoder or (encoder[2] is None) != (decoder[1] is None):
        raise ValueError(f"the order of blocks {' and '.join(halves)}")
    firsts = [found.start() for found in re.finditer("(?<=c)r", halves[0])]
    levels = encoder[1].split("c")
    return {
        "channels": [len(tensors[f"encoder.blocks.{index}.conv1.weight"]) for index in firsts],
        "res_blocks": [level.count("r") for level in levels],
        "decoder_res_blocks": [level.count("r") for level in decoder[2].split("c")][::-1],
        "attention_levels": ["a" in level for level in levels],
        "mid_attention": encoder[2] is not None,
        "final_activation": encoder[3] is not None,
    }


def _kind(tensors: Mapping[str, torch.Tensor], block: str) -> str:
    """r for a residual block, a for attention, c for a convolution, n for a norm, s for one without
    weights.
    """
    weight = tensors.get(f"{block}.weight")
    if weight is not None:
        return "c" if weight.ndim > 1 else "n"
    return (
        "r"
        if f"{block}.conv1.weight" in tensors
        else "a"
        if f"{block}.norm.weight" in tensors
        else "s"
    )
