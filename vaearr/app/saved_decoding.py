"""How a saved page gets its decoded pictures: from the decoder itself, run in the page, or from frames made before."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaearr.app import state as s
from vaearr.app.saved_points import as_bytes, deflated, packed_pictures, reduced
from vaearr.app.state import State
from vaearr.errors import NoInputError, UsageError
from vaearr.exploration.bases import STD, Base, Start, filled, start, values_along
from vaearr.exploration.points import classes_if_any, dimensions, open_encoded
from vaearr.exploration.prototypes import prototypes
from vaearr.inference.decoding import decoded_array
from vaearr.plots.common import robust_limits, text

MOST_WORK = 1_000_000_000  # multiplications of one picture: about a second in a browser
CHECKS, COMPARED = 4, 20_000  # settings of the sliders whose pictures are compared with, at most so many pixels of each
EXAMPLES, OF_VOLUMES = 48, 6  # samples whose decoded pictures set the grey scale
SLOW = 100_000_000  # multiplications from which pictures are decoded beside the page, not in it
REACH = 3.0  # standard deviations to either side that frames cover
FRAME, LEAST_SIDE = 128, 16  # pixels of a frame along its longer side, and where halving them ends
MOST_CLASSES, TILE = 60, 96  # classes, and pixels of their pictures along the longer side


@dataclass(frozen=True, eq=False)
class Decoding:
    """What decoded pictures are made with: where sliders begin, their dimensions, the scale of grey."""

    state: State
    begin: Start
    dims: list[int]
    limits: tuple[float, float]
    units: str


def decoding(state: State, base: Base, by: str | None, dims: list[int] | None, seed: int) -> Decoding | None:
    """None for a run without a network. Raises as `traverse` for a base or dimension that cannot be meant."""
    if not state.has_model:
        dimensions(dims, state.dims)
        if base != "mean":
            raise UsageError(f"run {state.run!r}: {s.NO_MODEL}; leave the base out.")
        return None
    encoded = open_encoded(state.path, state.run)
    begin = start(encoded, state.opened, base, by)
    chosen = dimensions(dims, state.dims)
    known = np.flatnonzero(np.isfinite(state.latents).all(1))
    limit = OF_VOLUMES if s.is_volume(state) else EXAMPLES
    some = np.random.default_rng(seed).choice(known, min(limit, len(known)), replace=False)
    z = np.concatenate([begin.latents[None].astype("f4"), *(s.base_of(state, int(i))[None] for i in some)])
    images = _pictures(state, np.nan_to_num(z))
    return Decoding(state, begin, chosen, robust_limits(images, (0.5, 99.5)), s.scale_words(state))


def _pictures(state: State, z: np.ndarray) -> np.ndarray:
    """Latents `(k, *latent_shape)` as pictures `(k, H, W[, 3])`."""
    return s.as_pictures(decoded_array(state.opened, z, "picture"))


def sliders(found: Decoding, *, steps: int, seed: int, budget: int) -> dict[str, Any]:
    """The decoder as a program with pictures to check it by; where it cannot be, frames, and why.

    steps: frames of each dimension.
    """
    from vaearr.app.saved_decoder import Unportable, program_of

    state = found.state
    about: dict[str, Any] = {
        "dims": found.dims, "low": state.low.tolist(), "high": state.high.tolist(), "limits": list(found.limits),
        "centre": found.begin.centre.tolist(), "base_words": text(found.begin.name),
        "units": text(found.units).removesuffix(" (1)"),
    }  # fmt: skip
    try:
        if s.is_volume(state):
            raise Unportable("decoders of volumes take too long in a page")
        program = program_of(state.opened)
        if len(program.shape) != 4:
            raise Unportable(f"decoded arrays of shape {program.shape}")
        if program.work > MOST_WORK:
            raise Unportable(f"one picture takes {program.work / 1e9:.1f} thousand million multiplications")
        if program.nbytes > budget:
            raise Unportable(f"its weights take {program.nbytes / 1e6:.1f} MB of the page")
    except Unportable as reason:
        return about | _frames(found, steps, budget) | {"kind": "frames", "why": text(reason)}
    z = checked_latents(found, seed)
    exact = decoded_array(state.opened, z, "picture").values.reshape(CHECKS, -1)
    every = -(-exact.shape[1] // COMPARED)
    return about | {
        "kind": "program", "program": program.arguments(), "work": program.work, "n_ops": len(program.ops),
        "is_slow": program.work > SLOW,
        "base": _floats(found.begin.latents), "checks": [_floats(row) for row in z],
        "pictures": [_floats(row[::every]) for row in exact], "every": every,
    }  # fmt: skip


def checked_latents(found: Decoding, seed: int) -> np.ndarray:
    """Latents `(CHECKS, *latent_shape)` at settings of the sliders that are drawn evenly over their ranges."""
    rng = np.random.default_rng(seed)
    settings = rng.uniform(found.state.low, found.state.high, (CHECKS, found.state.dims))
    return found.begin.moved(range(found.state.dims), settings)


def _floats(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")


def _frames(found: Decoding, steps: int, budget: int) -> dict[str, Any]:
    state, begin = found.state, found.begin
    values = values_along(begin, found.dims, (-REACH, REACH), steps, STD)
    moved = (begin.moved([dim], row[:, None]) for dim, row in zip(found.dims, values, strict=True))
    images = np.concatenate([_pictures(state, z) for z in moved])
    shown, packed, side = _fitting(found, images, FRAME, budget)
    base = as_bytes(reduced(_pictures(state, begin.latents[None].astype("f4")), side)[0], found.limits)
    return {
        "frames": packed, "steps": steps, "values": values.tolist(), "reach": REACH,
        "first": packed_pictures(base[None]), "shape": list((*shown.shape[1:], 1)[:3]),
        "whole": list(images.shape[1:3]),
    }  # fmt: skip


def _fitting(found: Decoding, images: np.ndarray, side: int, budget: int) -> tuple[np.ndarray, str, int]:
    """Decoded pictures in 8 bits, packed, and their side: halved until they fit in a budget of bytes."""
    while True:
        shown = np.stack([as_bytes(image, found.limits) for image in reduced(images, side)])
        packed = packed_pictures(shown)
        if len(packed) <= budget or side <= LEAST_SIDE:
            return shown, packed, side
        side //= 2


def class_pictures(found: Decoding, by: str | None, budget: int) -> dict[str, Any] | None:
    """Prototypes of the classes: names, sizes, latents and decoded pictures in about `budget` bytes.

    None where no classes are known.
    """
    state = found.state
    if classes_if_any(state.ds, by) is None:
        return None
    try:
        made = prototypes(state.path, state.run, by)
    except NoInputError:
        if by is not None:
            raise
        return None  # none of the encoded samples has a class
    order = np.arange(made.sizes["class"])
    if len(order) > MOST_CLASSES:
        order = np.sort(np.argsort(-made["n"].values, kind="stable")[:MOST_CLASSES])
    part = made.isel({"class": order})
    shown, packed = _fitting(found, s.as_pictures(part["decoded"].reset_coords(drop=True)), TILE, budget)[:2]
    latents = filled(open_encoded(state.path, state.run), part["latents"].values)
    vectors = latents.reshape(*latents.shape[:2], -1).mean(2)
    return {
        "by": text(made.attrs["by"]), "names": [text(v) for v in part["class"].values], "n": part["n"].values.tolist(),
        "latents": vectors.tolist(), "pictures": packed, "shape": list((*shown.shape[1:], 1)[:3]),
        "left_out": made.sizes["class"] - len(order),
        "whole": deflated(latents.astype("<f4")) if vectors.size < latents.size <= budget / 5.5 else None,
    }  # fmt: skip


def ranking(state: State) -> dict[str, Any] | None:
    """The stored association table of the run, if it is of these latents and maps: values by measure and target."""
    table = s.associations(state)
    if table is None:
        return None
    across = next(str(dim) for dim in table.dims if str(dim).partition("_")[0] == "latent")
    values = table.transpose("metric", "target", across)
    return {
        "metrics": [text(v) for v in values["metric"].values], "targets": [text(v) for v in values["target"].values],
        "values": deflated(values.values.astype("<f4")),
    }  # fmt: skip
