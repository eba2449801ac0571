"""Export a run as plain files: tables, arrays, pictures, and the files of the earlier programs."""

from vaearr.output.exporting.formats import export

__all__ = ["export"]
