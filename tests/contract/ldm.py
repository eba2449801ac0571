"""The first stage of latent diffusion, in plain functions on a state dict with its own key names.

Written from the published description of the network, without any of the package's modules:
GroupNorm with 32 groups and eps 1e-6, swish, residual blocks of two 3 x 3 convolutions, halving by
a convolution of stride 2 after a pad of one at the far sides, doubling by nearest neighbours and a
convolution, attention of one head at the coarsest grid.
"""

import math

import torch
import torch.nn.functional as F

GROUPS = 32


def random_weights(channels, n_in=3, z=4, res_blocks=2, seed=0, attention=()):
    """A state dict in the key layout of Stable Diffusion's first stage, its decoder one residual
    block longer.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def conv(name, n_out, n_from, side):
        bound = 1 / math.sqrt(n_from * side * side)
        state[f"{name}.weight"] = (
            2 * torch.rand(n_out, n_from, side, side, generator=generator) - 1
        ) * bound
        state[f"{name}.bias"] = (2 * torch.rand(n_out, generator=generator) - 1) * bound

    def norm(name, size):
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(size, generator=generator)
        state[f"{name}.bias"] = 0.2 * torch.randn(size, generator=generator)

    def res(name, n_from, n_out):
        norm(f"{name}.norm1", n_from)
        conv(f"{name}.conv1", n_out, n_from, 3)
        norm(f"{name}.norm2", n_out)
        conv(f"{name}.conv2", n_out, n_out, 3)
        if n_from != n_out:
            conv(f"{name}.nin_shortcut", n_out, n_from, 1)

    def attn(name, size):
        norm(f"{name}.norm", size)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", size, size, 1)

    def middle(half):
        res(f"{half}.mid.block_1", channels[-1], channels[-1])
        attn(f"{half}.mid.attn_1", channels[-1])
        res(f"{half}.mid.block_2", channels[-1], channels[-1])

    conv("encoder.conv_in", channels[0], n_in, 3)
    width = channels[0]
    for level, size in enumerate(channels):
        for block in range(res_blocks):
            res(f"encoder.down.{level}.block.{block}", width, size)
            width = size
            if level in attention:
                attn(f"encoder.down.{level}.attn.{block}", size)
        if level < len(channels) - 1:
            conv(f"encoder.down.{level}.downsample.conv", size, size, 3)
    middle("encoder")
    norm("encoder.norm_out", width)
    conv("encoder.conv_out", 2 * z, width, 3)
    conv("decoder.conv_in", width, z, 3)
    middle("decoder")
    for level in reversed(range(len(channels))):
        for block in range(res_blocks + 1):
            res(f"decoder.up.{level}.block.{block}", width, channels[level])
            width = channels[level]
            if level in attention:
                attn(f"decoder.up.{level}.attn.{block}", width)
        if level:
            conv(f"decoder.up.{level}.upsample.conv", width, width, 3)
    norm("decoder.norm_out", width)
    conv("decoder.conv_out", n_in, width, 3)
    conv("quant_conv", 2 * z, 2 * z, 1)
    conv("post_quant_conv", z, z, 1)
    return state


class Reference:
    """encode and decode of a state dict in that layout."""

    def __init__(self, state):
        self.state = state
        self.n_levels = 1 + max(
            int(name.split(".")[2]) for name in state if name.startswith("encoder.down.")
        )

    def conv(self, x, name, **how):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **how)

    def norm(self, x, name):
        return F.group_norm(
            x, GROUPS, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps=1e-6
        )

    def res(self, x, name):
        h = self.norm(x, f"{name}.norm1")
        h = self.conv(h * torch.sigmoid(h), f"{name}.conv1", padding=1)
        h = self.norm(h, f"{name}.norm2")
        h = self.conv(h * torch.sigmoid(h), f"{name}.conv2", padding=1)
        if f"{name}.nin_shortcut.weight" in self.state:
            x = self.conv(x, f"{name}.nin_shortcut")
        return x + h

    def attn(self, x, name):
        h = self.norm(x, f"{name}.norm")
        q, k, v = (self.conv(h, f"{name}.{part}").flatten(2) for part in "qkv")  # (B, C, N)
        weights = torch.softmax(
            torch.bmm(q.transpose(1, 2), k) / math.sqrt(q.shape[1]), dim=2
        )  # over keys
        h = torch.bmm(v, weights.transpose(1, 2)).view_as(x)
        return x + self.conv(h, f"{name}.proj_out")

    def level(self, x, name):
        block = 0
        while f"{name}.block.{block}.conv1.weight" in self.state:
            x = self.res(x, f"{name}.block.{block}")
            if f"{name}.attn.{block}.q.weight" in self.state:
                x = self.attn(x, f"{name}.attn.{block}")
            block += 1
        return x

    def middle(self, x, half):
        x = self.res(x, f"{half}.mid.block_1")
        x = self.attn(x, f"{half}.mid.attn_1")
        return self.res(x, f"{half}.mid.block_2")

    def end(self, x, half):
        x = self.norm(x, f"{half}.norm_out")
        return self.conv(x * torch.sigmoid(x), f"{half}.conv_out", padding=1)

    def encode(self, x):
        h = self.conv(x, "encoder.conv_in", padding=1)
        for level in range(self.n_levels):
            h = self.level(h, f"encoder.down.{level}")
            if level < self.n_levels - 1:
                h = self.conv(
                    F.pad(h, (0, 1, 0, 1)), f"encoder.down.{level}.downsample.conv", stride=2
                )
        moments = self.conv(self.end(self.middle(h, "encoder"), "encoder"), "quant_conv")
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z):
        h = self.conv(self.conv(z, "post_quant_conv"), "decoder.conv_in", padding=1)
        h = self.middle(h, "decoder")
        for level in reversed(range(self.n_levels)):
            h = self.level(h, f"decoder.up.{level}")
            if level:
                h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
                h = self.conv(h, f"decoder.up.{level}.upsample.conv", padding=1)
        return self.end(h, "decoder")


def as_diffusers(state, *, old=False):
    """The same weights in the key layout of diffusers, its attention made of matrices; old: with
    its former names.
    """
    n_levels = Reference(state).n_levels
    parts = ("query", "key", "value", "proj_attn") if old else ("to_q", "to_k", "to_v", "to_out.0")
    attention = dict(zip(("q", "k", "v", "proj_out"), parts, strict=True)) | {"norm": "group_norm"}
    found = {}
    for name, value in state.items():
        *path, what = name.split(".")
        if len(path) > 1 and "attn" in path[-2]:  # encoder.mid.attn_1.q
            path[-1] = attention[path[-1]]
        elif len(path) > 3 and path[3] == "attn":
            path[5] = attention[path[5]]
        if ("attn_1" in path or "attn" in path) and value.ndim == 4:
            value = value[:, :, 0, 0]
        text = ".".join([*path, what])
        if path[0] == "decoder" and path[1] == "up":
            text = text.replace(f"up.{path[2]}.", f"up_blocks.{n_levels - 1 - int(path[2])}.")
        for ours, theirs in {
            "encoder.down.": "encoder.down_blocks.", ".block.": ".resnets.", ".attn.": ".attentions.",
            ".downsample.": ".downsamplers.0.", ".upsample.": ".upsamplers.0.", "nin_shortcut": "conv_shortcut",
            "mid.block_1": "mid_block.resnets.0", "mid.block_2": "mid_block.resnets.1",
            "mid.attn_1": "mid_block.attentions.0", "norm_out": "conv_norm_out",
        }.items():  # fmt: skip
            text = text.replace(ours, theirs)
        found[text] = value
    return found
