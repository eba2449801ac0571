"""Engines of xarray: `xr.open_dataset(path, engine="vaearr")` opens what `va.open_source` opens."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources import digits, kikuchi_h5, nifti, open_source


class SourceEngine(BackendEntrypoint):
    """Any format, detected by content; settings are those of IngestConfig, such as `step`."""

    format: str | None = None
    description = "Scans, vendor files of EBSD, images and volumes, as vaearr reads them"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", *IngestConfig.model_fields)

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """See `va.open_source`."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            raise DataError(
                f"this engine reads files by path, not {type(filename_or_obj).__name__} objects."
            )
        ds = open_source(Path(filename_or_obj), **{"format": self.format, **settings})
        drop = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return ds.drop_vars(drop, errors="ignore")


class KikuchiH5(SourceEngine):
    """Pattern stacks with scan coordinates in HDF5 (images, coords)."""

    format = kikuchi_h5.ENGINE


class Nifti(SourceEngine):
    """NIfTI volumes: a file, or a folder of them."""

    format = nifti.ENGINE


class Idx(SourceEngine):
    """IDX images with their labels in the same folder."""

    format = digits.IDX
