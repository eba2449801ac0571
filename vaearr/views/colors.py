"""Colours of classes: one list for every view, and shades of a colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vaearr.errors import UsageError

NOISE_COLOR = "#8c8c8c"
LEVELS = 32  # shades of a colour, of which the last is the colour itself
FEW = 6  # number of colours whose wide ranges of shades do not overlap
# Okabe and Ito's colours, which are distinguishable with any colour vision, then those of Glasbey
# ("Colour displays for categorical images", Color Res. Appl. 32 (2007) 304) that are far from
# these, from each other and from grey in OKLab
CLASS_COLORS = [
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442", "#00ACC7", "#00FDCF", "#95B578", "#8F7A00",
    "#EC0077", "#04C600", "#8388FF", "#DA96FF", "#925282", "#FF9AB5", "#AD3B30", "#60FF63", "#9833E0", "#D70000",
    "#028800", "#FF7FD1", "#BCB7FF", "#FF7266", "#9BE4FF", "#CBC400", "#FDC0FF", "#048287", "#6DB4FF", "#86A302",
    "#00D6D5", "#6A68B0", "#FF4600", "#AE6DFF", "#FFA079", "#FF5F94", "#6265FE", "#C33489", "#C35DBB", "#8987BF",
]  # fmt: skip


def palette(count: int) -> list[str]:
    """`count` distinguishable colours; a rainbow if there are more than in `CLASS_COLORS`."""
    return CLASS_COLORS[:count] if count <= len(CLASS_COLORS) else colors_of("turbo", count)


def colors_of(name: str, count: int = 256) -> list[str]:
    """Evenly spaced colours of a matplotlib colour map."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [str(to_hex(color)) for color in colormaps[name](np.linspace(0, 1, count))]


def class_colors(
    codes: Sequence[int], colors: Sequence[str] | Mapping[int, str] | None = None
) -> list[str]:
    """Colour of each class: the requested one, else one of the palette.

    Raises UsageError for too few colours, for a code that does not exist and for an invalid colour.
    """
    from matplotlib.colors import is_color_like, to_hex

    is_short = isinstance(colors, Sequence) and len(colors) < len(codes)
    if isinstance(colors, Sequence):
        colors = dict(zip(codes, colors, strict=False))
    requested = colors or {}
    if is_short or not set(requested) <= set(codes):
        raise UsageError(
            f"the classes are {list(codes)}; give a colour for each, or code -> colour, "
            f"not {requested}."
        )
    for color in requested.values():
        if not is_color_like(color):
            raise UsageError(
                f"{color!r} is no colour; write it as '#0072B2' or by a name such as 'teal'."
            )
    taken = {code: to_hex(color).upper() for code, color in requested.items()}
    free = [color for color in palette(len(codes) + len(taken)) if color not in taken.values()]
    return [taken.get(code) or free.pop(0) for code in codes]


def shades(colors: Sequence[str]) -> list[str]:
    """LEVELS shades of each colour, from dark to the colour itself, with the same hue.

    Few colours get a wide range of shades, many a narrow one, so that no two classes look similar.
    """
    from matplotlib.colors import to_hex, to_rgb

    darkest = 0.5 if len(colors) <= FEW else 0.85
    brightness = np.linspace(darkest, 1, LEVELS)[:, None]
    return [to_hex(shade) for color in colors for shade in brightness * to_rgb(color)]
