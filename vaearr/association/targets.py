"""What latents are compared with: side maps as columns with a label each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, did_you_mean

TARGET = "target"


def is_categorical(variable: xr.DataArray) -> bool:
    """Whether the integers of a map are codes (phase, clusters), not amounts: named `phase`, or with `flag_values`."""
    return variable.dtype.kind in "iu" and (variable.name == n.PHASE or "flag_values" in variable.attrs)


def categories(variable: xr.DataArray) -> dict[int, str]:
    """Code -> name of a categorical map, codes below 0 (missing) left out.

    Read from `flag_values` and `flag_meanings` (CF); without them the codes found in the values, named by their number.
    """
    values = variable.attrs.get("flag_values")
    if values is None:
        found = [int(code) for code in np.unique(np.asarray(variable.values)) if code >= 0]
        return {code: str(code) for code in found}
    codes = [int(code) for code in np.atleast_1d(values)]
    meanings = variable.attrs.get("flag_meanings", "")
    words = meanings.split() if isinstance(meanings, str) else [str(word) for word in meanings]
    labels = words if len(words) == len(codes) else [str(code) for code in codes]
    return {code: label for code, label in zip(codes, labels, strict=True) if code >= 0}


def columns(target: xr.DataArray, dims: Sequence[str]) -> Iterator[tuple[str, xr.DataArray]]:
    """A target as maps over exactly `dims`, each with its label; categories become 0/1 indicators, missing ones NaN."""
    name = str(target.name) if target.name is not None else TARGET
    extra = [str(dim) for dim in target.dims if dim not in dims]
    if missing := [dim for dim in dims if dim not in target.dims]:
        raise SchemaError(f"target {name!r} has dims {target.dims} and lacks {missing}; the latents lie over {dims}.")
    if len(extra) > 1:
        raise SchemaError(f"target {name!r} has more than one further dimension ({extra}); reduce or select one first.")
    if extra:
        labels = target[extra[0]].values if extra[0] in target.coords else range(target.sizes[extra[0]])
        for i, label in enumerate(labels):
            plain = extra[0] in (n.ELEMENT, TARGET)
            yield (str(label) if plain else f"{name}: {label}"), target.isel({extra[0]: i}, drop=True)
    elif is_categorical(target):
        for code, label in categories(target).items():
            yield f"{name}: {label}", (target == code).astype("f4").where(target >= 0)
    else:
        yield name, target


def is_single(target: xr.DataArray | xr.Dataset, dims: Sequence[str]) -> bool:
    """Whether a target is one plain map, so that the result needs no target dimension."""
    return isinstance(target, xr.DataArray) and set(target.dims) == set(dims) and not is_categorical(target)


def stack(maps: Sequence[tuple[str, xr.DataArray]], dims: Sequence[str]) -> xr.DataArray:
    """Labelled maps as one float DataArray `(target, *dims)`, lazy where they are."""
    labels = [label for label, _ in maps]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise SchemaError(f"several targets are called {', '.join(map(repr, twice))}; rename one of them.")
    plain = [
        item.transpose(*dims).astype(_float_type(item.dtype)).drop_attrs().reset_coords(drop=True) for _, item in maps
    ]
    stacked = xr.concat(plain, dim=TARGET, join="exact", combine_attrs="drop", coords="minimal", compat="override")
    return stacked.assign_coords({TARGET: labels}).rename("targets").assign_attrs(long_name="association targets")


def _float_type(dtype: np.dtype) -> str:
    small = np.dtype(dtype).kind in "biu" and np.dtype(dtype).itemsize <= 2
    return "f4" if small or np.dtype(dtype) in (np.dtype("f2"), np.dtype("f4")) else "f8"


def targets_of(ds: xr.Dataset, names: Sequence[str] = ()) -> xr.DataArray:
    """Targets of a Dataset as `(target, *navigation_dims)`, with labels such as "BC", "Fe", "phase: ni_fcc".

    Without `names`: BC, every element and every phase, as far as present. A name is a variable ("BC", "elements",
    "phase", any map) or one label ("Fe", "phase: ni_fcc"). Raises NoInputError for an unknown name or where there is
    nothing to compare with.
    """
    dims = schema.navigation_dims(ds)
    known = {str(name): var for name, var in ds.data_vars.items() if _is_target(str(name), var, dims)}
    if not names:
        names = [name for name in (n.BC, n.ELEMENTS, n.PHASE) if name in known]
        if not names:
            raise NoInputError(
                f"the Dataset holds no band contrast, elements or phases to compare latents with; name a map."
                f"{did_you_mean(n.BC, sorted(known))}"
            )
    chosen: dict[str, xr.DataArray] = {}
    labels: dict[str, xr.DataArray] = {}
    if any(name not in known for name in names):
        labels = {label: item for var in known.values() for label, item in columns(var, dims)}
    for name in names:
        if name in known:
            chosen.update(columns(known[name], dims))
        elif name in labels:
            chosen[name] = labels[name]
        else:
            raise NoInputError(f"no target is named {name!r}.{did_you_mean(name, sorted({*known, *labels}))}")
    return stack(list(chosen.items()), dims)


def _is_target(name: str, variable: xr.DataArray, dims: tuple[str, ...]) -> bool:
    own = (n.LATENTS, n.RECONSTRUCTION_ERROR, n.ROI, n.SPLIT, n.PRESENT)
    if name == n.PATTERNS or variable.dtype.kind not in "biuf":
        return False
    if any(name == item or name.startswith(f"{item}_") for item in own):
        return name == n.RECONSTRUCTION_ERROR or name.startswith(f"{n.RECONSTRUCTION_ERROR}_")
    return set(dims) <= set(map(str, variable.dims)) and len(variable.dims) <= len(dims) + 1
