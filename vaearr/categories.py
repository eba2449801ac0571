"""Maps of codes: phases, clusters and other classes, their numbers and names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n


def is_categorical(variable: xr.DataArray) -> bool:
    """Whether the integers of a map are codes (phase, clusters), not amounts: named `phase`, or with `flag_values`."""
    return variable.dtype.kind in "iu" and (variable.name == n.PHASE or "flag_values" in variable.attrs)


def meanings(variable: xr.DataArray) -> dict[int, str]:
    """Code -> name by `flag_values` and `flag_meanings` (CF), codes below 0 too; empty where there are none.

    Where the names are not as many as the codes, each code is named by its number.
    """
    codes = [int(code) for code in np.atleast_1d(variable.attrs.get("flag_values", []))]
    given = variable.attrs.get("flag_meanings", "")
    words = given.split() if isinstance(given, str) else [str(word) for word in given]
    return dict(zip(codes, words if len(words) == len(codes) else map(str, codes), strict=True))


def categories(variable: xr.DataArray) -> dict[int, str]:
    """Code -> name of a categorical map, codes below 0 (missing) left out.

    Read from `flag_values` and `flag_meanings` (CF); without them the codes found in the values, named by their number.
    """
    if "flag_values" in variable.attrs:
        return {code: name for code, name in meanings(variable).items() if code >= 0}
    found = np.unique(np.asarray(variable.values))
    return {int(code): str(int(code)) for code in found if np.isfinite(code) and code >= 0}


def flags(codes: np.ndarray, names: Mapping[int, str], below: Mapping[int, str], one: str) -> dict[str, Any]:
    """`flag_values` and `flag_meanings` (CF) of a map of codes: names that are known, `<one>_<code>` for the others.

    below: what the codes below 0 mean.
    """
    words = dict(below) | {int(code): f"{one}_{code}" for code in np.unique(codes) if code >= 0}
    words |= {int(code): "_".join(str(name).split()) for code, name in names.items() if str(name).strip()}
    words = dict(sorted(words.items()))
    return {"flag_values": list(words), "flag_meanings": " ".join(words.values())}
