"""Colours that stay apart: shades of a base colour, and base colours for any number of classes.

Distances are in OKLab, a colour space in which equal distances look about equal (B. Ottosson, "A perceptual color space
for image processing", 2020): L runs from 0 (black) to 1 (white), the angle of (a, b) is the hue, its length the chroma.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vaearr.errors import UsageError

NOISE_COLOR = "#8c8c8c"
LEVELS = 32  # steps of brightness
SPANS = (0.42, 0.36, 0.3, 0.25, 0.2, 0.15, 0.1)  # of lightness, as a share of that of the base colour
# Okabe & Ito's colours in an order in which many shades of the first stay apart, without the second blue
FIRST = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442")
APART = 0.05  # least OKLab distance of any two shades of two classes
CLEAR = (0.12, 0.08, 0.0)  # least OKLab distances of two base colours, the first as far as there are enough

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


def _linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)


def _gamma(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """OKLab `(..., 3)` of sRGB `(..., 3)` between 0 and 1."""
    return np.cbrt(_linear(np.asarray(rgb, dtype="f8")) @ _TO_LMS.T) @ _TO_LAB.T


def ramp(colors: Sequence[str], levels: int = LEVELS) -> np.ndarray:
    """Shades `(k, levels, 3)` of k base colours, dark to the base colour itself; no two classes share a shade.

    Less light of the same colour: hue is kept, lightness and chroma fall together. All ramps span the same share of
    lightness, the widest of SPANS at which shades of different colours stay APART.
    """
    bases = _linear(rgb_of(colors))[:, None]
    for span in SPANS:
        made = _gamma(bases * np.linspace(1 - span, 1, levels)[:, None] ** 3)  # OKLab goes with the cube root of light
        lab = oklab(made)
        pairs = ((one, other) for i, one in enumerate(lab) for other in lab[i + 1 :])
        if min((np.linalg.norm(a[:, None] - b, axis=-1).min() for a, b in pairs), default=np.inf) >= APART:
            break
    return made


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
    lab = oklab(rgb_of([*given.values()]))
    near = np.argwhere(np.tril(np.linalg.norm(lab[:, None] - lab, axis=-1) < APART, -1))
    if len(near):
        one, other = ([*given.items()][i] for i in near[0])
        raise UsageError(f"the colours of the classes {one} and {other} can hardly be told apart; choose others.")
    further = iter(distinct_colors(len(codes), first=list(given.values()), avoid=avoid)[len(given) :])
    return [given[code] if code in given else next(further) for code in codes]


def distinct_colors(count: int, first: Sequence[str] | None = None, avoid: Sequence[str] = ()) -> list[str]:
    """`count` colours that can be told apart, beginning with `first` (default: FIRST).

    Further ones are Glasbey's, each as far from all in use and from `avoid` as CLEAR says; of more than there
    are the rest comes from a spectrum.

    References
    ----------
    Glasbey, van der Heijden, Toh & Gray, "Colour displays for categorical images", Color Res. Appl. 32 (2007) 304.
    """
    chosen = list(FIRST if first is None else first)[:count]
    for least_distance in CLEAR:
        for color in _candidates():
            if len(chosen) == count:
                return chosen
            used = oklab(rgb_of([*chosen, *avoid, NOISE_COLOR]))
            distance = np.linalg.norm(used - oklab(rgb_of([color])), axis=1).min()
            if color not in chosen and distance >= least_distance:
                chosen.append(color)
    from matplotlib import colormaps

    return chosen + hex_of(colormaps["turbo"](np.linspace(0, 1, count - len(chosen)))[:, :3])


def _candidates() -> list[str]:
    """Okabe and Ito's colours, then Glasbey's that are neither dark, pale nor glaring."""
    from colorcet import glasbey_bw_minc_20

    candidates = list(FIRST)
    for color in hex_of(np.array(glasbey_bw_minc_20)):
        lightness, a, b = oklab(rgb_of([color]))[0]
        if 0.5 <= lightness <= 0.92 and 0.08 <= np.hypot(a, b) <= 0.25:
            candidates.append(color)
    return candidates
