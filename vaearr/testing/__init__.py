"""Simulated data with known truth, for the demo and for tests of your code.

>>> from vaearr.testing import synthetic_scan
>>> synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3).patterns.dims
('y', 'x', 'dy', 'dx')
"""

from vaearr.testing.scan import synthetic_scan, write_scan_files
from vaearr.testing.volumes import synthetic_volumes, write_volume_files

__all__ = ["synthetic_scan", "synthetic_volumes", "write_scan_files", "write_volume_files"]
