"""Values computed elsewhere, put into a store by their coordinates, to be analysed like its own."""

from vaearr.attaching.files import KNOWN_PREFIXES, Points, Values, read_points, read_values
from vaearr.attaching.kinds import KINDS
from vaearr.attaching.placing import Placement, place_in_order, place_points, point_dims, step_numbers_of
from vaearr.attaching.stored import attach

__all__ = [
    "KINDS",
    "KNOWN_PREFIXES",
    "Placement",
    "Points",
    "Values",
    "attach",
    "place_in_order",
    "place_points",
    "point_dims",
    "read_points",
    "read_values",
    "step_numbers_of",
]
