"""A run as one self-contained HTML page, its main views as PNG, its numbers as JSON."""

from vaearr.output.reporting.write import report

__all__ = ["report"]
