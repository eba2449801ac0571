"""Data to test with, and checks on data: for our tests, the demo and the tests of those who use vaearr.

>>> from vaearr.testing import assert_valid, count_computes, synthetic_scan
>>> with count_computes(at_most=0):
...     ds = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3, chunks={"y": 2})
>>> assert_valid(ds)
"""

from vaearr.testing.checks import assert_valid, count_computes
from vaearr.testing.files import write_scan_files
from vaearr.testing.scan import image_quality, synthetic_scan
from vaearr.testing.small import random_patterns_dataset
from vaearr.testing.volumes import synthetic_volumes, write_volume_files

__all__ = [
    "assert_valid",
    "count_computes",
    "image_quality",
    "random_patterns_dataset",
    "synthetic_scan",
    "synthetic_volumes",
    "write_scan_files",
    "write_volume_files",
]
