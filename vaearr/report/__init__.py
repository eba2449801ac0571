"""A run as one self-contained HTML page, its main views as PNG, its numbers as JSON."""

from vaearr.report.write import report

__all__ = ["report"]
