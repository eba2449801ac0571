"""Layer-wise comparison of two samples, or of many pairs, in the encoder and decoder of a trained model."""

from vaearr.analysis.layers.compare import compare_layers, top_layers
from vaearr.analysis.layers.pairs import Pair, compare_pairs, paired_tests
from vaearr.analysis.layers.samples import pairs_of_folders, pairs_of_labels, pairs_of_masks, sample_of
from vaearr.analysis.layers.stored import keep_layers
from vaearr.models.hooks import BLOCK, LEAF, LEVELS, watching

__all__ = [
    "BLOCK",
    "LEAF",
    "LEVELS",
    "Pair",
    "compare_layers",
    "compare_pairs",
    "keep_layers",
    "paired_tests",
    "pairs_of_folders",
    "pairs_of_labels",
    "pairs_of_masks",
    "sample_of",
    "top_layers",
    "watching",
]
