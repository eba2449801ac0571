"""Frozen, typed settings: the same object drives the Python call, the command line and the Prefect form.

Settings travel with what they produced: `to_attrs` gives plain JSON for the attributes of a store, `from_attrs` reads
it back, and an unknown key is an error that lists the valid ones.
"""

from __future__ import annotations

from vaearr.config.analyses import (
    AssociateConfig,
    ClusterConfig,
    EmbedConfig,
    ExportConfig,
    ReportConfig,
    SignificanceConfig,
)
from vaearr.config.base import Config, group_of
from vaearr.config.data import IngestConfig, Interval, RoiConfig, SplitConfig
from vaearr.config.keywords import Setting, over, placed, resolved, settings_as_keywords, settings_of
from vaearr.config.learning import (
    AdversarialConfig,
    AugmentConfig,
    EncodeConfig,
    ImportConfig,
    ModelConfig,
    ObjectiveConfig,
    PerceptualConfig,
    PreprocessConfig,
    ReconstructConfig,
    TrainConfig,
)

__all__ = [
    "AdversarialConfig",
    "AssociateConfig",
    "AugmentConfig",
    "ClusterConfig",
    "Config",
    "EmbedConfig",
    "EncodeConfig",
    "ExportConfig",
    "ImportConfig",
    "IngestConfig",
    "Interval",
    "ModelConfig",
    "ObjectiveConfig",
    "PerceptualConfig",
    "PreprocessConfig",
    "ReconstructConfig",
    "ReportConfig",
    "RoiConfig",
    "Setting",
    "SignificanceConfig",
    "SplitConfig",
    "TrainConfig",
    "group_of",
    "over",
    "placed",
    "resolved",
    "settings_as_keywords",
    "settings_of",
]
