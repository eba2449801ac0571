"""Weights of third-party programs: nothing is unpickled, every name is accounted for.

KL autoencoders in three layouts. ldm: CompVis latent-diffusion and Stable Diffusion (its decoder
counts levels from the finest, and so runs backwards); diffusers: the same network under other
names, with linear attention; monai: MONAI's AutoencoderKL and its MAISI variant, which have
separate convolutions for mean and log-variance.
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
from vaearr.errors import DataError, UsageError, listed
from vaearr.models.networks import AutoencoderKL
from vaearr.models.tensors import check_finite, check_fit, named_tensors

LDM, DIFFUSERS, MONAI = "ldm", "diffusers", "monai"
MODEL = "autoencoder-kl"
GROUPS = 32  # of the group norms in every published checkpoint; weights do not contain it
# tensors next to an autoencoder under the same prefix
OF_TRAINING = ("loss.", "discriminator.", "perceptual.", "model_ema.")
Tensors = dict[str, torch.Tensor]

# a name that only this layout has
ANCHORS = {
    LDM: "encoder.down.0.block.0.norm1.weight",
    DIFFUSERS: "encoder.down_blocks.0.resnets.0.norm1.weight",
    MONAI: "quant_conv_mu.conv.weight",
}
# layout -> pattern -> replacement, one after the other: into Stable Diffusion's names, or into
# MONAI's (and vaearr's) without what differs between versions: encoder.blocks.3.conv1.weight
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
    MONAI: {r"\.(?:conv|postconv|attn)(?=\.)": ""},
}
ATTENTION_IN_LDM = {r"\.to_([qkv])\.": r".\1.", r"\.out_proj\.": ".proj_out."}
LEVEL_OF_DECODER = re.compile(r"(?<=decoder\.up\.)\d+(?=\.)")


@dataclass(frozen=True)
class Foreign:
    """Tensors of the autoencoder in a file, in plain names, and the number of other tensors."""

    path: Path
    layout: str
    prefix: str
    tensors: Tensors
    n_ignored: int


def in_words(report: Mapping[str, Any]) -> str:
    """Return one line for the user about the weights of a checkpoint."""
    text = f"{report['n_weights_read']} weights read, layout {report['layout']}"
    if report["prefix"]:
        text += f" under {report['prefix']!r}"
    if report["n_ignored"]:
        text += f"; {report['n_ignored']} tensors of other networks ignored"
    if report["added"]:
        text += f"; without effect, as the file has none: {', '.join(report['added'])}"
    return text


def read_foreign(path: str | Path, *, prefix: str | None = None) -> Foreign:
    """Read the autoencoder in a checkpoint.

    A file in `.safetensors`, or in torch's format, of which only tensors are unpickled. Its
    layout is identified by the names. prefix: what stands before all its names, such as
    `first_stage_model.`; found by itself where only one fits. Raises NoInputError for a missing
    file, DataError for one that is damaged, holds more than tensors, or no autoencoder in these
    layouts, or several.
    """
    file = Path(path).expanduser()
    tensors = named_tensors(file)
    candidates = _autoencoders(tensors, prefix)
    if not candidates:
        under = "" if prefix is None else f" under the prefix {prefix!r}"
        raise DataError(
            f"{file} holds no autoencoder in the layout {' or '.join(ANCHORS)}{under}; it has "
            f"{listed(tensors)}. Of a vaearr run give the model folder."
        )
    if len(candidates) > 1:
        prefixes = ", ".join(f"{start!r} ({layout})" for layout, start in candidates)
        raise DataError(
            f"{file} holds {len(candidates)} autoencoders, under {prefixes}; choose one with "
            "--prefix."
        )
    layout, start = candidates[0]
    kept = {}
    for name, value in tensors.items():
        inner = name.removeprefix(start)
        if name.startswith(start) and not inner.startswith(OF_TRAINING):
            kept[inner] = value
    return Foreign(file, layout, start, _plain(layout, kept), len(tensors) - len(kept))


def _autoencoders(tensors: Tensors, prefix: str | None) -> list[tuple[str, str]]:
    """Layout and prefix of each autoencoder among tensors."""
    candidates = []
    for layout, anchor in ANCHORS.items():
        for name in tensors:
            start = name.removesuffix(anchor)
            is_anchor = f".{name}".endswith(f".{anchor}")
            if is_anchor and prefix in (None, start, start.strip(".")):
                candidates.append((layout, start))
    return candidates


def load_foreign(network: nn.Module, checkpoint: Foreign) -> dict[str, Any]:
    """Set all weights of a network from a third-party checkpoint, or none.

    Returns
    -------
    dict
        `layout` and `prefix` of its names; `n_weights_read`, all of the network; `n_ignored`,
        tensors of other networks; `added`, layers that the file's network does not have, set so
        that they change nothing.

    Raises
    ------
    UsageError
        For another network than `AutoencoderKL`.
    DataError
        Unless all names and shapes fit and all values are finite.
    """
    if not isinstance(network, AutoencoderKL):
        raise UsageError(
            f"third-party checkpoints fit the model {MODEL!r} only, not {type(network).__name__}; "
            "give the model folder of a vaearr run."
        )
    blocks = {} if checkpoint.layout == MONAI else _ldm_blocks(network)
    weights = network.state_dict()
    names = {name: _name_in_file(blocks, name) for name in weights}
    expected = {names[name]: value for name, value in weights.items()}
    tensors = dict(checkpoint.tensors)
    added: list[str] = []
    if checkpoint.layout == MONAI:
        _join_posterior(tensors, network)
    else:
        added = _add_identities(tensors, network)
    for name in tensors.keys() & expected.keys():
        if expected[name].ndim == 2:  # where the file has a 1 x 1 convolution
            tensors[name] = _as_matrix(tensors[name])
    origin = f"{checkpoint.path} (layout {checkpoint.layout}, prefix {checkpoint.prefix!r})"
    check_fit(expected, tensors, f"{origin} does not fit the network")
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise DataError(
                f"{checkpoint.path}: {name} is {value.dtype}, not a floating-point type "
                "(quantised?)."
            )
        tensors[name] = value.to(expected[name].dtype)
    check_finite(tensors, checkpoint.path)
    network.load_state_dict({name: tensors[names[name]] for name in weights}, strict=True)
    return {
        "layout": checkpoint.layout,
        "prefix": checkpoint.prefix,
        "n_weights_read": len(names),
        "n_ignored": checkpoint.n_ignored,
        "added": added,
    }


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def _plain(layout: str, tensors: Tensors) -> Tensors:
    """Tensors in plain names: those of Stable Diffusion for diffusers too."""
    plain = {_renamed(name, RULES[layout]): value for name, value in tensors.items()}
    if layout != DIFFUSERS:
        return plain
    # diffusers counts the decoder's levels from the coarsest
    levels = [int(level) for name in plain for level in LEVEL_OF_DECODER.findall(name)]
    last = max(levels, default=0)
    return {
        LEVEL_OF_DECODER.sub(lambda level: str(last - int(level[0])), name): value
        for name, value in plain.items()
    }


def _ldm_blocks(network: AutoencoderKL) -> dict[str, str]:
    """Name of each block with weights -> Stable Diffusion's, in the order of execution."""
    levels = range(len(network.channels))
    middle = ["mid.block_1", "mid.attn_1", "mid.block_2"] * network.mid_attention
    down = _ldm_levels("down", levels, network.res_blocks, network.attention_levels)
    up = _ldm_levels("up", levels[::-1], network.decoder_res_blocks, network.attention_levels)
    activation = ["activation"] * network.final_activation
    blocks = {}
    for half, order in (("encoder", [*down, *middle]), ("decoder", [*middle, *up])):
        order = ["conv_in", *order, "norm_out", *activation, "conv_out"]
        for index, name in enumerate(order):
            blocks[f"{half}.blocks.{index}"] = f"{half}.{name}"
    return blocks


def _ldm_levels(
    change: str, levels: Sequence[int], counts: Sequence[int], attention: Sequence[bool]
) -> list[str]:
    """Stable Diffusion's names of the blocks of all levels; change: of the grid, down or up."""
    names = []
    for level in levels:
        for number in range(counts[level]):
            names.append(f"{change}.{level}.block.{number}")
            if attention[level]:
                names.append(f"{change}.{level}.attn.{number}")
        names.append(f"{change}.{level}.{change}sample.conv")
    return names[:-1]  # nothing changes after the last level


def _name_in_file(blocks: Mapping[str, str], name: str) -> str:
    """A name of the network as MONAI has it, plain, or with `blocks` as Stable Diffusion has it."""
    name = _renamed(name, RULES[MONAI])
    block = ".".join(name.split(".")[:3])
    if block not in blocks:
        return name
    return _renamed(blocks[block] + name.removeprefix(block), ATTENTION_IN_LDM)


def _as_matrix(value: torch.Tensor) -> torch.Tensor:
    return value.flatten(1) if set(value.shape[2:]) == {1} else value


def _add_identities(tensors: Tensors, network: AutoencoderKL) -> list[str]:
    """Add convolutions around the latents that the file lacks; they change nothing."""
    ones = [1] * len(network.stride)
    sizes = {"quant_conv": 2 * network.latent_dim, "post_quant_conv": network.latent_dim}
    added = [name for name in sizes if f"{name}.weight" not in tensors]
    for name in added:
        size = sizes[name]
        tensors[f"{name}.weight"] = torch.eye(size).view(size, size, *ones)
        tensors[f"{name}.bias"] = torch.zeros(size)
    return added


def _join_posterior(tensors: Tensors, network: AutoencoderKL) -> None:
    """Join MONAI's convolutions to mean and to log-variance to one of twice the channels.

    Its `quant_conv_log_sigma` gives log sigma^2, in spite of its name. The encoder's second half of
    channels is zero.
    """
    last = f"encoder.blocks.{len(network.encoder.blocks) - 1}"
    names = (last, "quant_conv_mu", "quant_conv_log_sigma")
    for kind in ("weight", "bias"):
        parts = [tensors.get(f"{name}.{kind}", torch.zeros(0)) for name in names]
        if any(len(values) != network.latent_dim for values in parts):
            return  # the lists of missing and unexpected names contain it
        out, mean, logvar = parts
        joined = torch.cat([mean, logvar])
        if kind == "weight":
            joined = torch.cat([joined, torch.zeros_like(joined)], 1)
        tensors[f"{last}.{kind}"] = torch.cat([out, torch.zeros_like(out)])
        tensors[f"quant_conv.{kind}"] = joined
        for name in names[1:]:
            del tensors[f"{name}.{kind}"]


def infer_options(checkpoint: Foreign) -> tuple[ModelConfig, tuple[int, int]]:
    """Infer the `autoencoder-kl` that a checkpoint belongs to from names and shapes of its weights.

    Returns its settings, and the channels and spatial dims of its samples. Raises DataError where
    the weights describe none.
    """
    tensors = checkpoint.tensors
    is_monai = checkpoint.layout == MONAI
    first_block = "blocks.0" if is_monai else "conv_in"
    try:
        options = _options_by_order(tensors) if is_monai else _options_by_level(tensors)
        first = tensors[f"encoder.{first_block}.weight"]
        latent_dim = tensors[f"decoder.{first_block}.weight"].shape[1]
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{checkpoint.path} is not a complete autoencoder in the layout {checkpoint.layout}: "
            f"{error} does not fit; give another file."
        ) from None
    options["groups"] = math.gcd(GROUPS, *options["channels"])
    config = ModelConfig(name=MODEL, latent_dim=latent_dim, options=options)
    return config, (int(first.shape[1]), first.ndim - 2)


def _options_by_level(tensors: Tensors) -> dict[str, Any]:
    """From Stable Diffusion's names, which number the levels."""
    block = re.compile(r"((?:encoder\.down|decoder\.up)\.\d+)\.block\.\d+\.conv1\.weight")
    counts = Counter(match[1] for match in map(block.fullmatch, tensors) if match)
    n_levels = sum(name.startswith("encoder.") for name in counts)
    down = [f"encoder.down.{i}" for i in range(n_levels)]
    up = [f"decoder.up.{i}" for i in range(n_levels)]
    return {
        "channels": [len(tensors[f"{level}.block.0.conv1.weight"]) for level in down],
        "res_blocks": [counts[level] for level in down],
        "decoder_res_blocks": [counts[level] for level in up],
        "attention_levels": [f"{level}.attn.0.q.weight" in tensors for level in down],
        "mid_attention": "encoder.mid.attn_1.q.weight" in tensors,
        "final_activation": True,
    }


def _options_by_order(tensors: Tensors) -> dict[str, Any]:
    """From MONAI's names, which number the blocks in the order of execution.

    Each level has residual blocks, each with attention or none; convolutions stand between levels.
    With attention in the middle, the coarsest grid has two more residual blocks around another
    attention.
    """
    kinds = _kinds_of_blocks(tensors, "encoder")
    levels = _levels(kinds)
    decoder_levels = _levels(_kinds_of_blocks(tensors, "decoder"))[::-1]
    has_middle = levels[-1].endswith("rar")
    levels[-1] = levels[-1].removesuffix("rar")
    if has_middle:
        decoder_levels[-1] = decoder_levels[-1].removeprefix("rar")
    firsts = [match.start() for match in re.finditer("(?<=c)r", kinds)]
    return {
        "channels": [len(tensors[f"encoder.blocks.{index}.conv1.weight"]) for index in firsts],
        "res_blocks": [level.count("r") for level in levels],
        "decoder_res_blocks": [level.count("r") for level in decoder_levels],
        "attention_levels": ["a" in level for level in levels],
        "mid_attention": has_middle,
        "final_activation": False,
    }


def _kinds_of_blocks(tensors: Tensors, half: str) -> str:
    """A letter for each block: r residual, a attention, c convolution, n norm."""
    numbers = [int(name.split(".")[2]) for name in tensors if name.startswith(f"{half}.blocks.")]
    kinds = ""
    for index in range(max(numbers) + 1):
        block = f"{half}.blocks.{index}"
        if f"{block}.conv1.weight" in tensors:
            kinds += "r"
        elif f"{block}.to_q.weight" in tensors:
            kinds += "a"
        else:
            kinds += "c" if tensors[f"{block}.weight"].ndim > 1 else "n"
    return kinds


def _levels(kinds: str) -> list[str]:
    """Letters of the blocks of each level, between the first convolution and the last norm."""
    return kinds[1 : kinds.index("n")].split("c")
