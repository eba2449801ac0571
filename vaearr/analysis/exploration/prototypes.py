"""The mean code of each class, and what it decodes to."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.bases import class_means, decoded
from vaearr.analysis.exploration.points import CLASS, classes_of, filled, named, open_encoded
from vaearr.errors import NoInputError
from vaearr.run import StoreOrRun, open_run


def prototypes(store: StoreOrRun, run: str = n.DEFAULT_RUN, by: str | None = None) -> xr.Dataset:
    """Prototype of each class: the mean of its samples' latents, decoded.

    by: map or coordinate with a class for each sample, such as label, phase, clusters; None for the first of these
    three that is there. Classes without an encoded sample are left out; the attribute `empty` names them. `latents`,
    `std` `(class, latent[, lz, ly, lx])`, mean and standard deviation over the samples; `n (class)`; `distance
    (class, other)`, Euclidean, of prototypes; `decoded (class, [channel,] dy, dx)`, in the units its `scale` says.
    Positions that a mask left out of all samples are NaN in `latents`; to decode, they get their channel's mean.
    Raises NoInputError for a run not encoded or a map that is not there, UsageError for one that holds no classes.
    """
    from scipy.spatial.distance import cdist

    encoded = open_encoded(store, run)
    classes = classes_of(encoded.ds, by)
    mean, std, count = class_means(encoded, classes.codes, len(classes.names))
    kept = np.flatnonzero(count)
    if not len(kept):
        raise NoInputError(f"no encoded sample has a class by {classes.by!r}; choose another map.")
    mean, std, count = mean[kept], std[kept], count[kept]
    whole = filled(encoded, mean)
    opened = open_run(store, run)
    rows = whole.reshape(len(kept), -1)
    names = [classes.names[i] for i in kept]
    dims, about = (CLASS, *n.latent_dims(mean.ndim - 1)), {**opened.attrs, "by": classes.by}
    return (
        decoded(opened, whole.astype("f4"), (CLASS,), (len(kept),))
        .assign(
            latents=named(dims, mean.astype("f4"), f"mean latent of the {classes.by}"),
            std=named(dims, std.astype("f4"), "standard deviation in the class"),
            n=named(CLASS, count, "samples"),
            distance=named((CLASS, "other"), cdist(rows, rows), "distance of prototypes"),
        )
        .assign_coords({CLASS: (CLASS, names, {"long_name": classes.by}), "other": names})
        .assign_attrs({**about, "empty": [name for name in classes.names if name not in names]})
    )
