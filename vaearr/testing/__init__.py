"""Data to test with, and checks on data: for the demo and the tests of those who use vaearr.

>>> from vaearr.testing import assert_valid, synthetic_scan
>>> assert_valid(synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3, chunks={"y": 2}))
"""

from vaearr.testing.checks import assert_valid
from vaearr.testing.files import write_scan_files
from vaearr.testing.large import write_large_scan
from vaearr.testing.scan import synthetic_scan
from vaearr.testing.volumes import synthetic_volumes, write_volume_files

__all__ = [
    "assert_valid",
    "synthetic_scan",
    "synthetic_volumes",
    "write_large_scan",
    "write_scan_files",
    "write_volume_files",
]
