"""How KL autoencoders name their weights elsewhere, told block by block in the order in which they run.

ldm: CompVis latent-diffusion and Stable Diffusion (its decoder counts levels from the finest, and so runs backwards);
diffusers: the same network under other names, with linear attention; monai: MONAI's AutoencoderKL, its MAISI variant
and the older GenerativeModels, which have separate convolutions for mean and log-variance; vaearr: our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vaearr.models.autoencoder_kl import AutoencoderKL

Tensors = dict[str, torch.Tensor]

LDM, DIFFUSERS, MONAI, OWN = "ldm", "diffusers", "monai", "vaearr"
LAYOUTS = (LDM, DIFFUSERS, MONAI, OWN)
# a name that only this layout has; of our own networks the first name is taken
ANCHORS = {
    LDM: "encoder.down.0.block.0.norm1.weight",
    DIFFUSERS: "encoder.down_blocks.0.resnets.0.norm1.weight",
    MONAI: "quant_conv_mu.conv.weight",
    OWN: "encoder.blocks.0.conv.weight",
}
QUANT, POST_QUANT = "quant_conv", "post_quant_conv"
MIDDLE = ("res", "attention", "res")

# parts of a block: our name -> theirs
RES = {"norm1": "norm1", "conv1.conv": "conv1", "norm2": "norm2", "conv2.conv": "conv2"}
OUR_PLAIN = {"in": "conv", "down": "conv.conv", "up": "postconv.conv", "norm": "", "out": "conv"}
ATTENTION = ("norm", "attn.to_q", "attn.to_k", "attn.to_v", "attn.out_proj")
PARTS = {
    LDM: {
        "res": {**RES, "nin_shortcut.conv": "nin_shortcut"},
        "attention": dict(zip(ATTENTION, ("norm", "q", "k", "v", "proj_out"), strict=True)),
    },
    DIFFUSERS: {
        "res": {**RES, "nin_shortcut.conv": "conv_shortcut"},
        "attention": dict(zip(ATTENTION, ("group_norm", "to_q", "to_k", "to_v", "to_out.0"), strict=True)),
    },
}
OLD_DIFFUSERS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
WRAPPERS = {"conv", "postconv", "attn"}  # components of MONAI's names that differ between its versions


@dataclass(frozen=True)
class Block:
    """One block: its place in the network, and its name in ours. level: of the finest 0; number: within the level."""

    ours: str
    half: str
    kind: str
    level: int | None = None
    number: int = 0


def blocks_of(network: AutoencoderKL) -> Iterator[Block]:
    """All blocks with parameters, encoder first, in the order in which they run."""
    for half, places in (("encoder", _encoder_places(network)), ("decoder", _decoder_places(network))):
        index = 0
        for kind, level, number in places:
            if kind == "out" and network.final_activation:
                index += 1
            yield Block(f"{half}.blocks.{index}", half, kind, level, number)
            index += 1


Place = tuple[str, int | None, int]


def _encoder_places(network: AutoencoderKL) -> Iterator[Place]:
    yield "in", None, 0
    for level, n_blocks in enumerate(network.res_blocks):
        yield from _level(network, level, n_blocks)
        if level < len(network.channels) - 1:
            yield "down", level, 0
    yield from _middle(network)
    yield from (("norm", None, 0), ("out", None, 0))


def _decoder_places(network: AutoencoderKL) -> Iterator[Place]:
    yield "in", None, 0
    yield from _middle(network)
    for level in reversed(range(len(network.channels))):
        yield from _level(network, level, network.decoder_res_blocks[level])
        if level:
            yield "up", level, 0
    yield from (("norm", None, 0), ("out", None, 0))


def _level(network: AutoencoderKL, level: int, n_blocks: int) -> Iterator[Place]:
    for number in range(n_blocks):
        yield "res", level, number
        if network.attention_levels[level]:
            yield "attention", level, number


def _middle(network: AutoencoderKL) -> Iterator[Place]:
    if network.mid_attention:
        yield from ((kind, None, number) for number, kind in enumerate(MIDDLE))


def names_in(layout: str, network: AutoencoderKL) -> dict[str, str]:
    """The layout's name of each of our weights."""
    own = network.state_dict()
    if layout == OWN:
        return {name: name for name in own}
    if layout == MONAI:
        return {name: monai_name(name) for name in own}
    where = {LDM: _in_ldm, DIFFUSERS: _in_diffusers}[layout]
    names = {}
    for block in blocks_of(network):
        theirs = where(block, len(network.channels))
        plain = {OUR_PLAIN[block.kind]: ""} if block.kind in OUR_PLAIN else PARTS[layout][block.kind]
        for part, other in plain.items():
            for what in ("weight", "bias"):
                name = _joined(block.ours, part, what)
                if name in own:
                    names[name] = _joined(theirs, other, what)
    quant = [f"{conv}.{what}" for conv in (QUANT, POST_QUANT) for what in ("weight", "bias")]
    return names | {name: name for name in quant}


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _in_ldm(block: Block, n_levels: int) -> str:
    half, kind, level, number = block.half, block.kind, block.level, block.number
    if kind in ("in", "out", "norm"):
        return f"{half}.{'norm_out' if kind == 'norm' else f'conv_{kind}'}"
    if level is None:
        return f"{half}.mid.{('block_1', 'attn_1', 'block_2')[number]}"
    at = f"{half}.{'down' if half == 'encoder' else 'up'}.{level}"
    if kind in ("down", "up"):
        return f"{at}.{kind}sample.conv"
    return f"{at}.{'block' if kind == 'res' else 'attn'}.{number}"


def _in_diffusers(block: Block, n_levels: int) -> str:
    half, kind, level, number = block.half, block.kind, block.level, block.number
    if kind in ("in", "out", "norm"):
        return f"{half}.{'conv_norm_out' if kind == 'norm' else f'conv_{kind}'}"
    if level is None:
        return f"{half}.mid_block.{('resnets.0', 'attentions.0', 'resnets.1')[number]}"
    at = f"{half}.down_blocks.{level}" if half == "encoder" else f"{half}.up_blocks.{n_levels - 1 - level}"
    if kind in ("down", "up"):
        return f"{at}.{kind}samplers.0.conv"
    return f"{at}.{'resnets' if kind == 'res' else 'attentions'}.{number}"


def monai_name(name: str) -> str:
    """A name of MONAI, of any version, without what differs between them: `encoder.blocks.3.conv1.weight`."""
    parts = name.split(".")
    kept = [part for i, part in enumerate(parts) if i == 0 or part not in WRAPPERS]
    return ".".join("out_proj" if part == "proj_attn" else part for part in kept)


def prepared(layout: str, tensors: Mapping[str, torch.Tensor], network: AutoencoderKL) -> tuple[Tensors, list[str]]:
    """Tensors under the names of `names_in`, and what was put there that the file does not have because its network is
    without it: a convolution or projection that changes nothing."""
    if layout == OWN:
        return dict(tensors), []
    if layout == MONAI:
        return _from_monai(tensors, network)
    found, added = dict(tensors), []
    if layout == DIFFUSERS:
        old = {name: _renamed(name) for name in found if ".attentions." in name}
        found = {old.get(name, name): value for name, value in found.items()}
    for conv, size in ((QUANT, 2 * network.latent_dim), (POST_QUANT, network.latent_dim)):
        if not any(name.startswith(f"{conv}.") for name in found):
            eye = torch.eye(size).view(size, size, *[1] * len(network.stride))
            found |= {f"{conv}.weight": eye, f"{conv}.bias": torch.zeros(size)}
            added.append(conv)
    return found, added


def _renamed(name: str) -> str:
    *start, part, what = name.split(".")
    return ".".join([*start, OLD_DIFFUSERS.get(part, part), what])


def _from_monai(tensors: Mapping[str, torch.Tensor], network: AutoencoderKL) -> tuple[Tensors, list[str]]:
    found: Tensors = {}
    for name, value in tensors.items():
        plain = monai_name(name)
        if ".qkv." in plain and value.shape[0] % 3 == 0:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                found[plain.replace(".qkv.", f".to_{part}.")] = third
        else:
            found[plain] = value
    added = []
    for name in [name for name in found if name.endswith(".to_q.weight")]:
        block, size = name.removesuffix("to_q.weight"), len(found[name])
        if f"{block}out_proj.weight" not in found:
            found |= {f"{block}out_proj.weight": torch.eye(size), f"{block}out_proj.bias": torch.zeros(size)}
            added.append(f"{block}out_proj")
    return _one_posterior(found, network), added


def _one_posterior(found: Tensors, network: AutoencoderKL) -> Tensors:
    """MONAI's convolutions of the same features to mean and to log-variance, as one of twice the channels.

    Its `quant_conv_log_sigma` gives log sigma^2, in spite of its name. Our encoder's second half of channels is zero.
    """
    last = [monai_name(block.ours) for block in blocks_of(network) if block.ours.startswith("encoder.")][-1]
    size = network.latent_dim
    wanted = [f"{last}.weight", f"{last}.bias", "quant_conv_mu.weight", "quant_conv_log_sigma.weight"]
    wanted += ["quant_conv_mu.bias", "quant_conv_log_sigma.bias"]
    if any(name not in found or len(found[name]) != size for name in wanted):
        return found  # and the lists of missing and unexpected names say so
    for what in ("weight", "bias"):
        out, mu, log = (found[f"{name}.{what}"] for name in (last, "quant_conv_mu", "quant_conv_log_sigma"))
        found[f"{last}.{what}"] = torch.cat([out, torch.zeros_like(out)])
        both = torch.cat([mu, log])
        found[f"{QUANT}.{what}"] = torch.cat([both, torch.zeros_like(both)], 1) if what == "weight" else both
    for name in wanted[2:]:
        del found[name]
    return found


def options_in(layout: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Options of `AutoencoderKL` that fit the tensors, with `latent_dim`. Raises KeyError or ValueError otherwise."""
    if layout in (LDM, DIFFUSERS):
        return _options_by_level(layout, tensors)
    return _options_by_order({monai_name(name): value for name, value in tensors.items()})


def _options_by_level(layout: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    ldm = layout == LDM
    downs = r"encoder\.down\.(\d+)\.block\.(\d+)\." if ldm else r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\."
    ups = r"decoder\.up\.(\d+)\.block\.(\d+)\." if ldm else r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\."
    attentions = r"encoder\.down\.(\d+)\.attn\." if ldm else r"encoder\.down_blocks\.(\d+)\.attentions\."
    last = r"conv1\.weight"
    channels: dict[int, int] = {}
    n_down: dict[int, int] = {}
    n_up: dict[int, int] = {}
    for name, value in tensors.items():
        if found := re.fullmatch(downs + last, name):
            level = int(found[1])
            channels[level], n_down[level] = len(value), n_down.get(level, 0) + 1
        elif found := re.fullmatch(ups + last, name):
            n_up[int(found[1])] = n_up.get(int(found[1]), 0) + 1
    levels = range(len(channels))
    with_attention = {int(found[1]) for name in tensors if (found := re.match(attentions, name))}
    up = [n_up[level] for level in levels]
    return {
        "latent_dim": tensors["decoder.conv_in.weight"].shape[1],
        "channels": [channels[level] for level in levels],
        "res_blocks": [n_down[level] for level in levels],
        "decoder_res_blocks": up if ldm else up[::-1],
        "attention_levels": [level in with_attention for level in levels],
        "mid_attention": any(name.startswith("encoder.mid") for name in tensors),
        "final_activation": True,
    }


def _options_by_order(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    encoder, decoder = (_kinds(tensors, half) for half in ("encoder", "decoder"))
    last, first = encoder.kinds[-5:-2], decoder.kinds[1:5]  # a level with attention ends with it
    mid = tuple(last) == MIDDLE
    if mid != (tuple(first[:3]) == MIDDLE and first[3:] != ["attention"]):
        raise ValueError("attention in the middle of one side alone")
    n_middle = 3 * mid
    down = _levels(encoder.kinds[1 : len(encoder.kinds) - 2 - n_middle])
    up = _levels(decoder.kinds[1 + n_middle : -2])[::-1]
    firsts = [encoder.values[index] for index in _first_of_levels(encoder.kinds)]
    return {
        "latent_dim": tensors["decoder.blocks.0.weight"].shape[1],
        "channels": [len(value) for value in firsts],
        "res_blocks": [level.count("res") for level in down],
        "decoder_res_blocks": [level.count("res") for level in up],
        "attention_levels": ["attention" in level for level in down],
        "mid_attention": mid,
        "final_activation": encoder.has_gap,
    }


@dataclass(frozen=True)
class Order:
    """Kinds of the blocks of one half in order, their first convolution, whether an activation is before the last."""

    kinds: list[str]
    values: list[torch.Tensor]
    has_gap: bool


def _kinds(tensors: Mapping[str, torch.Tensor], half: str) -> Order:
    indices = sorted({int(name.split(".")[2]) for name in tensors if name.startswith(f"{half}.blocks.")})
    kinds, values = [], []
    for index in indices:
        at = f"{half}.blocks.{index}"
        if f"{at}.conv1.weight" in tensors:
            kinds.append("res")
            values.append(tensors[f"{at}.conv1.weight"])
        elif f"{at}.norm.weight" in tensors:
            kinds.append("attention")
            values.append(tensors[f"{at}.norm.weight"])
        else:
            values.append(tensors[f"{at}.weight"])
            kinds.append("conv" if values[-1].ndim > 1 else "norm")
    if kinds[:1] != ["conv"] or kinds[-2:] != ["norm", "conv"]:
        raise ValueError(f"the {half} has blocks {kinds}")
    return Order(kinds, values, indices[-1] - indices[-2] == 2)


def _levels(kinds: list[str]) -> list[list[str]]:
    """Kinds of the blocks of each level; a convolution stands between two."""
    levels: list[list[str]] = [[]]
    for kind in kinds:
        if kind == "conv":
            levels.append([])
        else:
            levels[-1].append(kind)
    return levels


def _first_of_levels(kinds: list[str]) -> list[int]:
    """Index of the first residual block of each level, of an encoder."""
    return [i for i in range(1, len(kinds) - 1) if kinds[i] == "res" and kinds[i - 1] == "conv"]
