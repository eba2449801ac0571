"""Which known factors a collection's latents hold, against principal components of the samples, on request.

`VAEARR_BENCH_FACTORS=STORE pytest tests/benchmarks/test_factors.py -m benchmarks -s` takes an encoded store whose
samples bring numbers (from a manifest). Of each number it prints R^2 of a ridge regression, each sample predicted by
one that has not seen it: from all latents, and from 5 principal components of the preprocessed samples. The ridge's
penalty is chosen among the others, by their own leave-one-out error.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vaearr as va
from vaearr import names as n
from vaearr.models.preprocess import preprocess
from vaearr.store import open_store

STORE, RUN = os.environ.get("VAEARR_BENCH_FACTORS"), os.environ.get("VAEARR_BENCH_RUN", n.DEFAULT_RUN)
pytestmark = pytest.mark.benchmarks
ALPHAS = np.logspace(-2, 6, 17)
N_COMPONENTS = 5


def explained(features: np.ndarray, factor: np.ndarray) -> float:
    """R^2 of leave-one-out predictions: `(k, d), (k,)`; features as they are, in one scale for all."""
    features = (features - features.mean(0)) / features.std()
    predicted = np.empty_like(factor)
    for i in range(len(factor)):
        others = np.arange(len(factor)) != i
        predicted[i] = RidgeCV(ALPHAS).fit(features[others], factor[others]).predict(features[[i]])[0]
    return float(1 - ((factor - predicted) ** 2).sum() / ((factor - factor.mean()) ** 2).sum())


def factors_of(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """Numbers that came with the samples."""
    found = {str(k): v.load() for k, v in ds.data_vars.items() if v.dims == (n.SAMPLE,) and v.dtype.kind == "f"}
    return {name: values for name, values in found.items() if n.PROVENANCE not in values.attrs}


@pytest.mark.skipif(not STORE, reason="VAEARR_BENCH_FACTORS does not name a store")
def test_factors_from_latents_and_from_principal_components() -> None:
    ds, model = open_store(Path(str(STORE))), va.load_model(str(STORE), RUN)
    latents = ds[n.run_name(n.LATENTS, RUN)].load()
    factors = factors_of(ds)
    assert factors, "the store's samples bring no numbers"
    seen = preprocess(ds[n.PATTERNS], model.preprocess_config).load()
    for name, values in factors.items():
        known = values.notnull().values
        rows = latents.values[known].reshape(known.sum(), -1)
        flat = seen.values[known].reshape(known.sum(), -1)
        scores = make_pipeline(StandardScaler(with_std=False), PCA(N_COMPONENTS)).fit_transform(flat)
        factor = values.values[known].astype("f8")
        ours, theirs = explained(np.nan_to_num(rows), factor), explained(scores, factor)
        print(f"\n{name} (n = {known.sum()}): {ours:.3f} from latents, {theirs:.3f} from {N_COMPONENTS} components")
        assert np.isfinite([ours, theirs]).all()
