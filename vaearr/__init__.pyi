"""The public names, where each is defined; `vaearr/__init__.py` loads a name when it is first used."""

from .analysis.association import (
    associate as associate,
)
from .analysis.association import (
    associate_jointly as associate_jointly,
)
from .analysis.clustering import cluster as cluster
from .analysis.clustering import cluster_scores as cluster_scores
from .analysis.planes import embed as embed
from .analysis.probing import probe as probe
from .batching import batches as batches
from .config.presets import preset as preset
from .ingestion.attaching import attach as attach
from .ingestion.ingest import ingest as ingest
from .models.artifacts import load_model as load_model
from .output.comparing import compare as compare
from .run import Run as Run
from .run import load_run as load_run
from .run.concat import concat as concat
from .run.encode import encode as encode
from .run.importing import import_model as import_model
from .run.keeping import keep as keep
from .run.train import train as train
from .schema.grid import roi as roi
from .schema.grid import to_grid as to_grid
from .schema.grid import to_samples as to_samples
from .schema.pattern_steps import bin_patterns as bin_patterns
from .schema.pattern_steps import crop as crop
from .schema.pattern_steps import neighbour_average as neighbour_average
from .schema.pattern_steps import remove_dynamic_background as remove_dynamic_background
from .schema.pattern_steps import remove_static_background as remove_static_background
from .schema.pattern_steps import rescale_intensity as rescale_intensity
from .sources import open_source as open_source
from .store.read import open_store as open_store
from .views import save as save
from .views import view as view
from .views.describe import describe as describe

__version__: str
