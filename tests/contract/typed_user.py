"""What a typed user writes; checked by `test_typing`, not run."""

from pathlib import Path

import xarray as xr

import vaearr as va
from vaearr.config import ClusterConfig, EncodeConfig, TrainConfig

store: Path = Path("stores/scan.zarr")
ds: xr.Dataset = va.open_store(store)
roi: xr.DataArray = va.roi(ds, x=(0, 5), where="BC > 45")
run = va.train(store, run="vae", roi=roi, latent_dim=16, epochs=3)
config = TrainConfig(epochs=4)
again = va.train(ds, run="b", config=config)
encoded: xr.Dataset = va.encode(store, run="vae")
z = run.decode(ds.latents)
table: xr.DataArray = va.associate(ds.latents, ds[["BC"]], metrics=["pearson"])
labels: xr.DataArray = va.cluster(ds[["latents"]], method="kmeans", k=4)
pca = va.train(store, run="pca", model="pca", latent_dim="auto")
kept: xr.Dataset = va.keep(ds, labels=labels)
settings = (ClusterConfig(method="gmm"), EncodeConfig(batch_size=3))
page: Path = run.report()
folder: Path = run.export("tables", "csv", variables=["BC"])
for batch in va.batches(ds, batch_size=4, shuffle=True, seed=0):
    print(batch)
model = va.load_model(store, "vae")
print(
    pca.components,
    run.name,
    run.health,
    again.history,
    z,
    page,
    table,
    model,
    settings,
    labels,
    kept,
    encoded,
)
va.ingest("scan.h5", store, maps={"BC": "bc.csv"}, size=[32, 32], classes=["a"])
va.train(store, objective={"beta": 2.0}, window=3)  # type: ignore[call-arg]
va.train(store, epochs="many")  # type: ignore[arg-type]
run.associate("BC", metrics=["pearson"], quantiles=[0.1, 0.9])
run.associate("BC", metric="pearson")  # type: ignore[call-arg]
run.associate("BC", metrics=3)  # type: ignore[arg-type]
