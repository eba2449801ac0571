"""A run's latents and what they mean as plain files: tables, arrays, pictures, and the layout of an older program."""

import vaearr.exporting.arrays
import vaearr.exporting.pictures
import vaearr.exporting.seed
import vaearr.exporting.tables  # noqa: F401  (they register their formats)
from vaearr.config import ExportConfig
from vaearr.exporting.formats import FORMATS, export

__all__ = ["FORMATS", "ExportConfig", "export"]
