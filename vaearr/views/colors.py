"""Colours of classes: one list for every view, and shades of a colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vaearr.errors import UsageError

NOISE_COLOR = "#8c8c8c"
LEVELS = 32  # shades of a colour, of which the last is the colour itself
FEW = 6  # colours so far apart that wide ranges of shades do not meet
# Okabe and Ito's, which people with any colour vision tell apart, then Glasbey's ("Colour displays
# for categorical images", Color Res. Appl. 32 (2007) 304) that are far from these, from each other
# and from grey, in OKLab
CLASS_COLORS = [
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442", "#00ACC7", "#00FDCF", "#95B578", "#8F7A00",
    "#EC0077", "#04C600", "#8388FF", "#DA96FF", "#925282", "#FF9AB5", "#AD3B30", "#60FF63", "#9833E0", "#D70000",
    "#028800", "#FF7FD1", "#BCB7FF", "#FF7266", "#9BE4FF", "#CBC400", "#FDC0FF", "#048287", "#6DB4FF", "#86A302",
    "#00D6D5", "#6A68B0", "#FF4600", "#AE6DFF", "#FFA079", "#FF5F94", "#6265FE", "#C33489", "#C35DBB", "#8987BF",
]  # fmt: skip


def palette(count: int) -> list[str]:
    """`count` colours that can be told apart; of more than there are a run through the spectrum."""
    return CLASS_COLORS[:count] if count <= len(CLASS_COLORS) else colors_of("turbo", count)


def colors_of(name: str, count: int = 256) -> list[str]:
    """So many colours of a colour map."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [str(to_hex(color)) for color in colormaps[name](np.linspace(0, 1, count))]


def class_colors(
    codes: Sequence[int], colors: Sequence[str] | Mapping[int, str] | None = None
) -> list[str]:
    """Colour of each class: the given one (a list in order, or code -> colour for some), else one
    of the palette.

    Raises UsageError for too few colours, for a code that is not there and for what is no colour.
    """
    from matplotlib.colors import to_hex

    given = (
        dict(colors)
        if isinstance(colors, Mapping)
        else dict(zip(codes, colors or (), strict=False))
    )
    are_too_few = colors is not None and not isinstance(colors, Mapping) and len(given) < len(codes)
    if are_too_few or not set(given) <= set(codes):
        raise UsageError(
            f"the classes are {list(codes)}; give a colour for each, or code -> colour, not {colors}."
        )
    try:
        given = {code: to_hex(color).upper() for code, color in given.items()}
    except ValueError as error:
        raise UsageError(
            f"{error}; write a colour as '#0072B2' or by a name such as 'teal'."
        ) from None
    free = [color for color in palette(len(codes) + len(given)) if color not in given.values()]
    return [given.get(code) or free.pop(0) for code in codes]


def shades(colors: Sequence[str]) -> list[str]:
    """LEVELS shades of each colour, dark to the colour itself: the same hue, with less light.

    Few colours have a wide range of shades, many a narrow one, so that no two classes look alike.
    """
    from matplotlib.colors import to_hex, to_rgb

    darkest = 0.5 if len(colors) <= FEW else 0.85
    made = []
    for color in colors:
        made += [
            to_hex(np.multiply(to_rgb(color), share)) for share in np.linspace(darkest, 1, LEVELS)
        ]
    return made
