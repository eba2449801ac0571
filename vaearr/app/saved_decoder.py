"""A decoder as a list of plain operations that a saved page can run: no code travels, only names, sizes and weights.

The network is run once on one latent and what it did is written down in nine operations over flat arrays: `take`
(a strided reading: permuting, slicing, repeating), `map` (a function of one value), `pair` (of two), `reduce`,
`softmax`, `matmul`, `conv`, `spread` (zeros between values) and `group_norm`. What does not depend on the latent is
worked out here and travels as a constant. What is not in `RULES` cannot be written down: `Unportable` says so.
"""

from __future__ import annotations

import base64
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vaearr.inference.decoding import Opened
from vaearr.preprocess import needs_input, undo_without_input

SMALL = 1024  # constants of fewer values keep single precision, larger ones travel in half
HALVES = (1e-3, 60_000.0)  # between which their largest value must lie for that: half precision ends at 6e-8 and 65504


class Unportable(Exception):
    """Something in a network that a page cannot run; the text says what."""


@dataclass(frozen=True)
class Value:
    """Something that depends on the latent: its name in the program and its shape; contiguous."""

    ref: str
    shape: tuple[int, ...]


@dataclass
class Program:
    """Operations in order, constants, the name of the result, multiplications that one run takes."""

    ops: list[dict[str, Any]] = field(default_factory=list)
    constants: list[np.ndarray] = field(default_factory=list)
    result: str = ""
    shape: tuple[int, ...] = ()
    work: int = 0

    def arguments(self) -> dict[str, Any]:
        """For the page: JSON, constants as base64 of half (`h`) or single (`f`) precision, little-endian."""
        packed = []
        for values in self.constants:
            is_half = values.dtype == np.float16
            text = base64.b64encode(values.astype("<f2" if is_half else "<f4").tobytes()).decode("ascii")
            packed.append(["h" if is_half else "f", text])
        return {"ops": self.ops, "constants": packed, "result": self.result, "shape": list(self.shape)}

    @property
    def nbytes(self) -> int:
        """Bytes of the constants in the page."""
        return sum(values.nbytes for values in self.constants) * 4 // 3

    def add(self, op: str, shape: Sequence[int], **about: Any) -> Value:
        """Write down one operation; inputs among `about` are values or constants."""
        ref = f"v{len(self.ops) + 1}"
        about = {key: self.ref(v) if isinstance(v, Value | torch.Tensor) else v for key, v in about.items()}
        self.ops.append({"op": op, "to": ref, "size": math.prod(shape), **about})
        return Value(ref, tuple(shape))

    def ref(self, value: Value | torch.Tensor) -> str:
        """The name of a value; a constant is added."""
        if isinstance(value, Value):
            return value.ref
        values = value.detach().float().contiguous().numpy().ravel()
        fits = values.size >= SMALL and HALVES[0] < np.abs(values).max() < HALVES[1]
        self.constants.append(values.astype(np.float16) if fits else values.astype(np.float32))
        return f"c{len(self.constants) - 1}"


def program_of(opened: Opened) -> Program:
    """The decoder of a run, from one latent `latent_shape` to the picture in the units of `decoded_array`.

    The network is traced (`torch.fx.experimental.proxy_tensor.make_fx`) into ATen operations. Raises Unportable for an
    operation without a rule.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    model, config = opened.model, opened.model.preprocess_config
    model.eval()

    def decode(z: torch.Tensor) -> torch.Tensor:
        decoded = model.network.decode(z).float()
        return decoded if needs_input(config) else undo_without_input(decoded, model.preprocess.background, config)

    shape = (1, *model.latent_shape)
    with torch.no_grad():
        try:
            traced = make_fx(decode)(torch.zeros(shape))
        except RuntimeError as error:  # such as steps that depend on the values
            raise Unportable(f"the network cannot be traced ({error})") from error
        traced.graph.eliminate_dead_code()
        return translated(traced, shape)


def translated(traced: torch.fx.GraphModule, shape: tuple[int, ...]) -> Program:
    """A graph of ATen operations with one input of a shape as a program. Raises Unportable."""
    program, env = Program(), dict[Any, Any]()
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            env[node] = Value("v0", shape)
            continue
        if node.op == "get_attr":
            env[node] = operator.attrgetter(node.target)(traced)
            continue
        args = torch.fx.map_arg(node.args, env.__getitem__)
        kwargs = torch.fx.map_arg(node.kwargs, env.__getitem__)
        if node.op == "output":
            found = args[0]
            if not isinstance(found, Value):
                raise Unportable("the decoded picture does not depend on the latents")
            program.result, program.shape = found.ref, found.shape
        else:
            depends = any(isinstance(env[before], Value) for before in node.all_input_nodes)
            env[node] = _step(program, node.target, args, kwargs) if depends else node.target(*args, **kwargs)
    return program


def _step(program: Program, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if target is operator.getitem:
        if args[1]:
            raise Unportable("a second result of an operation is used")
        return args[0]
    name = str(target).removeprefix("aten.")
    if name not in RULES:
        raise Unportable(f"the operation {name!r}")
    return RULES[name](program, _meta(target, args, kwargs), args, kwargs)


def _meta(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """What an operation gives, without values: shape and, of a view, its strides over the first input."""

    def empty(value: Any) -> Any:
        if isinstance(value, Value):
            return torch.empty(value.shape, device="meta")
        return torch.empty_like(value, device="meta") if isinstance(value, torch.Tensor) else value

    found = target(*map(empty, args), **{key: empty(v) for key, v in kwargs.items()})
    first: torch.Tensor = found[0] if isinstance(found, tuple | list) else found
    if first.dtype != torch.float32:
        raise Unportable(f"numbers of type {first.dtype}")
    return first


# ---- rules: (program, result without values, arguments) -> value

Rule = Callable[[Program, torch.Tensor, tuple[Any, ...], dict[str, Any]], Value]


def _take(program: Program, x: Value | torch.Tensor, shape: Sequence[int], strides: Sequence[int], at: int = 0) -> Any:
    """A strided reading of a contiguous value; of a constant worked out here."""
    if isinstance(x, torch.Tensor):
        return x.contiguous().as_strided(tuple(shape), tuple(strides), at).contiguous()
    expected: list[int] = []
    step = 1
    for size in reversed(shape):
        expected.insert(0, step)
        step *= size
    plain = all(s == e or size == 1 for s, e, size in zip(strides, expected, shape, strict=True))
    if plain and not at and step == math.prod(x.shape):
        return Value(x.ref, tuple(shape))
    return program.add("take", shape, x=x, sides=list(shape), strides=list(strides), at=at)


def _as(program: Program, x: Any, view: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A view of a contiguous value, as torch would give it."""
    like = view(torch.empty(tuple(x.shape), device="meta"))
    return _take(program, x, like.shape, like.stride(), int(like.storage_offset()))


def _view(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    found: Value = _take(program, args[0], out.shape, out.stride(), int(out.storage_offset()))
    return found


def _same(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    return Value(args[0].ref, tuple(out.shape))


def _map(name: str, *defaults: float) -> Rule:
    def rule(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        if kwargs or len(args) > 1 + len(defaults):
            raise Unportable(f"{name} with settings that it is not known with")
        given = [float(d if a is None else a) for a, d in zip(args[1:], defaults, strict=False)]
        return program.add("map", out.shape, x=args[0], f=name, by=given + list(defaults[len(given) :]))

    return rule


def _pair(name: str) -> Rule:
    def rule(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        if any(value != 1 for value in kwargs.values()):
            raise Unportable(f"{name} with {', '.join(kwargs)}")
        full = [a if isinstance(a, Value | torch.Tensor) else torch.tensor(float(a)) for a in args[:2]]
        x, y = (_as(program, a, lambda t: t.expand(out.shape)) if tuple(a.shape) != out.shape else a for a in full)
        return program.add("pair", out.shape, x=x, y=y, f=name)

    return rule


def _reduce(name: str) -> Rule:
    def rule(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        x = args[0]
        given = args[1] if len(args) > 1 and args[1] not in (None, []) else range(len(x.shape))
        over = sorted(d % len(x.shape) for d in ([given] if isinstance(given, int) else given))
        kept = [d for d in range(len(x.shape)) if d not in over]
        rows = _as(program, x, lambda t: t.permute(*kept, *over))
        return program.add("reduce", out.shape, x=rows, n=math.prod(x.shape[d] for d in over), f=name)

    return rule


def _softmax(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    if args[1] % len(out.shape) != len(out.shape) - 1:
        raise Unportable("softmax over another dim than the last")
    return program.add("softmax", out.shape, x=args[0], n=out.shape[-1])


def _product(program: Program, x: Any, y: Any) -> Value:
    """`(…, m, k)` by `(…, k, n)`, as many of each."""
    (*batch, m, k), size = x.shape, y.shape[-1]
    across = _as(program, y, lambda t: t.transpose(-1, -2))
    program.work += math.prod(batch) * m * k * size
    return program.add("matmul", (*batch, m, size), x=x, y=across, batch=math.prod(batch), m=m, n=size, k=k)


def _mm(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    return _product(program, args[0], args[1])


def _addmm(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    return RULES["add.Tensor"](program, out, (_product(program, args[1], args[2]), args[0]), kwargs)


def _attention(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    """softmax(q k^T scale) v: Vaswani et al., "Attention Is All You Need", 2017."""
    if set(kwargs) - {"scale"} or any(args[3:]):
        raise Unportable("attention with a mask or dropout")
    q, k, v = args[:3]
    scale = kwargs.get("scale") or q.shape[-1] ** -0.5
    scores = _product(program, q, _as(program, k, lambda t: t.transpose(-1, -2)))
    scaled = program.add("map", scores.shape, x=scores, f="scale", by=[float(scale)])
    return _product(program, program.add("softmax", scores.shape, x=scaled, n=scores.shape[-1]), v)


def _conv(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args
    if groups != 1 or isinstance(weight, Value) or len(x.shape) != 4:
        raise Unportable(f"convolutions of {groups} groups over {len(x.shape) - 2} dims")
    if transposed:  # the same as zeros between the values and a convolution with the kernel mirrored
        size = [(s - 1) * step + 1 for s, step in zip(x.shape[2:], stride, strict=True)]
        x = program.add("spread", (*x.shape[:2], *size), x=x, sides=list(x.shape), stride=list(stride))
        weight = weight.transpose(0, 1).flip(2, 3)
        padding = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
        stride = [1, 1]
    count, channels, *kernel = weight.shape
    program.work += math.prod(out.shape[1:]) * channels * math.prod(kernel)
    return program.add(
        "conv", out.shape, x=x, w=weight, b=torch.zeros(count) if bias is None else bias, kernel=list(kernel),
        input=list(x.shape[1:]), output=list(out.shape[1:]), stride=list(stride), pad=list(padding),
        dilation=list(dilation),
    )  # fmt: skip


def _group_norm(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    x, weight, bias, _, channels, inner, groups, eps = args
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    return program.add(
        "group_norm", out.shape, x=x, w=ones if weight is None else weight, b=zeros if bias is None else bias,
        channels=channels, inner=inner, groups=groups, eps=eps,
    )  # fmt: skip


def _batch_norm(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    x, weight, bias, mean, variance, training, _, eps = args
    if training:
        raise Unportable("batch norms that are being trained")
    scale = (1 if weight is None else weight) / (variance + eps).sqrt()
    shift = (0 if bias is None else bias) - mean * scale
    over = (-1, *(1,) * (len(out.shape) - 2))
    scaled = RULES["mul.Tensor"](program, out, (x, scale.reshape(over)), {})
    return RULES["add.Tensor"](program, out, (scaled, shift.reshape(over)), {})


def _shuffle(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    (*lead, height, width), r = args[0].shape, args[1]
    channels = (*lead[:-1], lead[-1] // r**2)
    first = len(channels)
    order = (*range(first), first + 2, first, first + 3, first + 1)
    found = _as(program, args[0], lambda t: t.reshape(*channels, r, r, height, width).permute(order))
    return Value(found.ref, tuple(out.shape))


def _nearest(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    before, after = args[0].shape[2:], out.shape[2:]
    factors = (*args, None, None)[2:4]  # without them the ratio of the sizes
    if any(b % a or f not in (None, b / a) for a, b, f in zip(before, after, factors, strict=True)):
        raise Unportable("growing by a factor that is no whole number")
    lead = args[0].shape[:2]
    apart = [s for a in before for s in (a, 1)]
    grown = [s for a, b in zip(before, after, strict=True) for s in (a, b // a)]
    found = _as(program, args[0], lambda t: t.reshape(*lead, *apart).expand(*lead, *grown))
    return Value(found.ref, tuple(out.shape))


def _bilinear(program: Program, out: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    """As products with the matrices that grow a row and a column."""
    x, (height, width), align = args[0], out.shape[2:], bool(args[2])
    lead = math.prod(x.shape[:2])
    by_height, by_width = (*args, None, None)[3:5]  # factors; without them the ratio of the sizes

    def grows(size: int, to: int, factor: float | None) -> torch.Tensor:
        return torch.ops.aten.upsample_linear1d(torch.eye(size)[None], [to], align, factor)[0]

    wide = _product(program, Value(x.ref, (lead * x.shape[2], x.shape[3])), grows(x.shape[3], width, by_width))
    turned = _as(program, Value(wide.ref, (lead, x.shape[2], width)), lambda t: t.transpose(1, 2))
    tall = _product(program, Value(turned.ref, (lead * width, x.shape[2])), grows(x.shape[2], height, by_height))
    back = _as(program, Value(tall.ref, (lead, width, height)), lambda t: t.transpose(1, 2))
    return Value(back.ref, tuple(out.shape))


_VIEWS = (
    *("permute.default", "t.default", "transpose.int", "slice.Tensor", "select.int", "expand.default"),
    *("view.default", "_unsafe_view.default", "unsqueeze.default", "squeeze.dim", "squeeze.dims", "squeeze.default"),
    "reshape.default",
)
_SAME = ("clone.default", "alias.default", "detach.default", "contiguous.default", "_to_copy.default")
RULES: dict[str, Rule] = {
    **dict.fromkeys(_VIEWS, _view),
    **dict.fromkeys(_SAME, _same),
    **{f"{name}.default": _map(name) for name in ("silu", "sigmoid", "tanh", "relu", "gelu", "neg", "abs")},
    **{f"{name}.default": _map(name) for name in ("sqrt", "rsqrt", "exp", "log", "log1p", "reciprocal")},
    "elu.default": _map("elu", 1.0),
    "leaky_relu.default": _map("leaky_relu", 0.01),
    "softplus.default": _map("softplus", 1.0, 20.0),
    "pow.Tensor_Scalar": _map("pow", 2.0),
    **{f"{name}.Tensor": _pair(name) for name in ("add", "sub", "mul", "div")},
    "mean.dim": _reduce("mean"),
    "sum.dim_IntList": _reduce("sum"),
    "amax.default": _reduce("max"),
    "_softmax.default": _softmax,
    "mm.default": _mm,
    "bmm.default": _mm,
    "addmm.default": _addmm,
    "_scaled_dot_product_flash_attention_for_cpu.default": _attention,
    "convolution.default": _conv,
    "native_group_norm.default": _group_norm,
    "native_batch_norm.default": _batch_norm,
    "pixel_shuffle.default": _shuffle,
    "upsample_nearest2d.default": _nearest,
    "upsample_bilinear2d.default": _bilinear,
}
