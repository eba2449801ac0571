"""Colours that stay apart: shades of a base colour in OKLab, and base colours for any number of classes.

OKLab is a colour space in which equal distances look about equal (B. Ottosson, "A perceptual color space for image
processing", 2020): L runs from 0 (black) to 1 (white), the angle of (a, b) is the hue, its length the chroma.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from vaearr.errors import UsageError

NOISE_COLOR = "#8c8c8c"
LEVELS = 32  # steps of brightness
SPANS = (0.32, 0.28, 0.24, 0.2, 0.16, 0.12, 0.08)  # of lightness, from a base colour downwards
# Okabe & Ito's colours in an order in which many shades of the first stay apart, without the second blue
FIRST = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442")
APART = 0.05  # least OKLab distance of any two shades of two classes
CLEAR = 0.05  # distance, as `_distance` has it, at which a colour needs no better one
DARKEST = 0.12

_TO_LMS = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
# what dichromats see, on linear RGB: Machado, Oliveira & Fernandes, IEEE Trans. Vis. Comput. Graph. 15 (2009) 1291
_DICHROMATS = np.array([
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
])  # fmt: skip


def _linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)


def _gamma(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """OKLab `(..., 3)` of sRGB `(..., 3)` between 0 and 1."""
    return np.cbrt(_linear(np.asarray(rgb, dtype="f8")) @ _TO_LMS.T) @ _TO_LAB.T


def _linear_of(lab: np.ndarray) -> np.ndarray:
    return (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T


def srgb(lab: np.ndarray) -> np.ndarray:
    """sRGB `(..., 3)` of OKLab `(..., 3)`, cut to what a screen can show."""
    return np.clip(_gamma(_linear_of(np.asarray(lab, dtype="f8"))), 0, 1)


def shades(rgb: np.ndarray, lightness: np.ndarray) -> np.ndarray:
    """A colour `(3,)` at other lightnesses `(m,)`: sRGB `(m, 3)`.

    Hue and chroma are kept; chroma falls only where no screen shows it at that lightness.
    """
    _, a, b = oklab(rgb)
    lightness = np.asarray(lightness, dtype="f8")

    def painted(share: np.ndarray) -> np.ndarray:
        return np.stack([lightness, share * a, share * b], axis=1)

    low, high = np.zeros(len(lightness)), np.ones(len(lightness))
    low = np.where(_is_shown(painted(high)), high, low)
    for _ in range(20):
        middle = (low + high) / 2
        fits = _is_shown(painted(middle))
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return srgb(painted(low))


def _is_shown(lab: np.ndarray) -> np.ndarray:
    """Whether a screen can show a colour."""
    linear = _linear_of(lab)
    return np.asarray(((linear >= -1e-6) & (linear <= 1 + 1e-6)).all(axis=-1))


def ramp(colors: Sequence[str], levels: int = LEVELS) -> np.ndarray:
    """Shades `(k, levels, 3)` of k base colours, dark to the base colour itself; no two classes share a shade.

    All ramps span the same lightness, the widest of SPANS at which shades of different colours stay APART.
    """
    bases = rgb_of(colors)
    for span in SPANS:
        made = _ramps(bases, span, levels)
        if _separation(made) >= APART:
            break
    return made


def _ramps(bases: np.ndarray, span: float, levels: int) -> np.ndarray:
    made = np.empty((len(bases), levels, 3))
    for i, base in enumerate(bases):
        top = oklab(base)[0]
        made[i] = shades(base, np.linspace(max(top - span, min(DARKEST, top)), top, levels))
        made[i, -1] = base
    return made


def _separation(ramps: np.ndarray) -> float:
    """Least OKLab distance of shades of two different ramps."""
    lab = oklab(ramps)
    distances = [
        np.linalg.norm(one[:, None] - other[None], axis=-1).min() for i, one in enumerate(lab) for other in lab[i + 1 :]
    ]
    return float(min(distances, default=np.inf))


def rgb_of(colors: Sequence[str]) -> np.ndarray:
    """sRGB `(k, 3)` of colours by name or hex. Raises UsageError for what is no colour."""
    from matplotlib.colors import to_rgb

    try:
        return np.array([to_rgb(color) for color in colors], dtype="f8").reshape(-1, 3)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{error}; write a colour as '#0072B2' or by a name such as 'teal'.") from None


def hex_of(rgb: np.ndarray) -> list[str]:
    """Hex codes of sRGB `(k, 3)`."""
    whole = np.rint(np.asarray(rgb).reshape(-1, 3) * 255).astype(int)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in whole]


def class_colors(
    codes: Sequence[int], colors: Sequence[str] | Mapping[int, str] | None = None, avoid: Sequence[str] = ()
) -> list[str]:
    """Base colour of each class: given ones, or colours that people with any colour vision tell apart.

    `colors` is a list, one for each code in order, or code -> colour for some of them; the others get colours that are
    far from all in use and from `avoid`. Raises UsageError for too few colours, an unknown code, or two given colours
    so alike that their shades would merge.
    """
    if colors is None:
        return distinct_colors(len(codes), avoid=avoid)
    if not isinstance(colors, Mapping):
        if isinstance(colors, str) or len(colors) < len(codes):
            raise UsageError(f"there are {len(codes)} classes and {len(colors)} colours: give one for each class.")
        colors = dict(zip(codes, colors, strict=False))
    if unknown := sorted(set(colors) - set(codes)):
        raise UsageError(f"no class has the code {unknown}; the codes are {list(codes)}.")
    given = {code: hex_of(rgb_of([colors[code]]))[0] for code in codes if code in colors}
    _assert_apart(given)
    further = iter(distinct_colors(len(codes), first=list(given.values()), avoid=avoid)[len(given) :])
    return [given[code] if code in given else next(further) for code in codes]


def _assert_apart(given: Mapping[int, str]) -> None:
    codes, lab = list(given), oklab(rgb_of(list(given.values())))
    for i, code in enumerate(codes):
        for j in range(i):
            if np.linalg.norm(lab[i] - lab[j]) < APART:
                raise UsageError(
                    f"the colours of the classes {codes[j]} and {code}, {given[codes[j]]} and {given[code]}, can "
                    "hardly be told apart; choose others."
                )


def distinct_colors(count: int, first: Sequence[str] | None = None, avoid: Sequence[str] = ()) -> list[str]:
    """`count` colours, beginning with `first` (default: FIRST); each further one is as far from the others as can be.

    Distances are in OKLab: for normal eyes such that shades of the two stay apart too, for protanope and deuteranope
    eyes between the colours themselves, halved.
    """
    chosen = list(FIRST if first is None else first)[:count]
    return [*chosen, *_further(count - len(chosen), tuple(chosen), tuple(avoid))] if count > len(chosen) else chosen


@lru_cache(maxsize=32)
def _further(count: int, chosen: tuple[str, ...], avoid: tuple[str, ...]) -> tuple[str, ...]:
    pool = np.concatenate([rgb_of(FIRST), _pool()])
    seen = _as_seen(pool)
    taken = _as_seen(rgb_of([*chosen, *avoid, NOISE_COLOR, "#ffffff"]))
    distance = np.min([_distance(seen, one) for one in taken], axis=0)
    found: list[str] = []
    for _ in range(count):
        first = int(np.argmax(distance[: len(FIRST)] >= CLEAR))  # the well-known colours, as long as they are clear
        best = first if distance[first] >= CLEAR else int(np.argmax(distance))
        found += hex_of(pool[best])
        distance = np.minimum(distance, _distance(seen, seen[best]))
    return tuple(found)


def _distance(seen: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Distance of colours `(k, 3 eyes, 3)` from one of them, `(3 eyes, 3)`."""
    away = seen - one
    dichromats = np.linalg.norm(away[:, 1:], axis=-1).min(axis=1)
    beyond_shades = np.maximum(np.abs(away[:, 0, 0]) - SPANS[3], 0)
    normal = np.sqrt(away[:, 0, 1] ** 2 + away[:, 0, 2] ** 2 + beyond_shades**2)
    return np.minimum(normal, dichromats / 2)


def _pool() -> np.ndarray:
    """Colours of many hues, neither pale nor dark, that a screen can show: sRGB `(n, 3)`."""
    hue, chroma, lightness = np.meshgrid(
        np.radians(np.arange(0, 360, 10)), [0.08, 0.12, 0.16, 0.2, 0.25], [0.5, 0.58, 0.66, 0.74, 0.82, 0.9]
    )
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1).reshape(-1, 3)
    return srgb(lab[_is_shown(lab)])


def _as_seen(rgb: np.ndarray) -> np.ndarray:
    """OKLab `(k, 3 eyes, 3)` of colours for normal eyes and two kinds of dichromats."""
    linear = _linear(np.asarray(rgb, dtype="f8"))
    dichromats = np.clip(np.einsum("eij,kj->kei", _DICHROMATS, linear), 0, 1)
    return oklab(_gamma(np.concatenate([linear[:, None], dichromats], axis=1)))
