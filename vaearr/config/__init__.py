"""Frozen, typed settings: the same object drives the Python call, the command line and the Prefect
form.

Settings are stored with their results: `to_attrs` gives plain JSON for the attributes of a store,
`from_attrs` reads it back, and an unknown key is an error that lists the valid ones. Every setting
of a step is also a keyword of its function.
"""

from vaearr.config.base import (
    DEVICE,
    RUN,
    C,
    Config,
    Interval,
    Name,
    Setting,
    field,
    group_of,
    grouped,
    merged,
    refuse_unknown,
    resolved,
    settings_of,
)
from vaearr.config.data import IngestConfig, RoiConfig, SplitConfig
from vaearr.config.steps import (
    AssociateConfig,
    ClusterConfig,
    EncodeConfig,
    ProbeConfig,
    ReconstructConfig,
    SignificanceConfig,
)
from vaearr.config.training import (
    AdversarialConfig,
    AugmentConfig,
    ImportConfig,
    ModelConfig,
    ObjectiveConfig,
    PerceptualConfig,
    PreprocessConfig,
    TrainConfig,
)

__all__ = [
    "DEVICE",
    "RUN",
    "AdversarialConfig",
    "AssociateConfig",
    "AugmentConfig",
    "C",
    "ClusterConfig",
    "Config",
    "EncodeConfig",
    "ImportConfig",
    "IngestConfig",
    "Interval",
    "ModelConfig",
    "Name",
    "ObjectiveConfig",
    "PerceptualConfig",
    "PreprocessConfig",
    "ProbeConfig",
    "ReconstructConfig",
    "RoiConfig",
    "Setting",
    "SignificanceConfig",
    "SplitConfig",
    "TrainConfig",
    "field",
    "group_of",
    "grouped",
    "merged",
    "refuse_unknown",
    "resolved",
    "settings_of",
]
