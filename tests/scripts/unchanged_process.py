"""Print what importing vaearr, describing and viewing change in the process and in its libraries."""

import logging
import os
import sys
import warnings
from typing import Any

import dask.array  # noqa: F401
import holoviews as hv
import hvplot  # noqa: F401
import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from zarr import registry

hv.extension("bokeh", "matplotlib")
hv.Store.set_current_backend("matplotlib")
xr.open_zarr(sys.argv[1]).load()


def state() -> dict[str, Any]:
    """What other libraries and the process share."""
    loggers = logging.getLogger(), logging.getLogger("vaearr")
    codecs = vars(registry)["__codec_registries"]
    return {
        "environment": dict(os.environ),
        "import hooks": list(map(repr, sys.meta_path)),
        "attributes of xarray and pandas": [
            sorted(vars(kind)) for kind in (xr.Dataset, xr.DataArray, pd.DataFrame)
        ],
        "codecs": {name: sorted(codec) for name, codec in codecs.items()},
        "pipelines": sorted(vars(registry)["__pipeline_registry"]),
        "pipeline": registry.get_pipeline_class(),
        "configuration of zarr": zarr.config.to_dict(),
        "warning filters": list(map(repr, warnings.filters)),
        "log": [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers],
        "HoloViews backend": (hv.Store.current_backend, sorted(hv.Store.renderers)),
        "matplotlib settings": dict(mpl.rcParams),
        "random numbers": repr(np.random.get_state()),  # noqa: NPY002
    }


before = state()


def report(step: str) -> None:
    """Print which parts of the state a step has changed."""
    now = state()
    for name, value in now.items():
        if value != before[name]:
            print(f"{step} changes {name}")


import vaearr as va  # noqa: E402

report("import")
ds = va.open_store(sys.argv[1])
run = va.load_run(sys.argv[1])
va.describe(ds)
va.describe(run)
report("describe")
va.view(ds.BC)
va.view(ds)
va.view(xr.Dataset({"loss": ("epoch", [2.0, 1.0])}, {"epoch": [1, 2]}))
report("view")
va.view(ds.BC, "matplotlib")
report("view on paper")
