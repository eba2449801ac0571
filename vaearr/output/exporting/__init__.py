"""A run's latents and what they mean as plain files: tables, arrays, pictures, and the layout of an older program."""

from vaearr.config import ExportConfig
from vaearr.output.exporting.formats import FORMATS, export

__all__ = ["FORMATS", "ExportConfig", "export"]
