"""A trained run of a store, and what is done with it: encode, decode, reconstruct, draw, judge, a second stage."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

import vaearr as va
from vaearr import names as n
from vaearr import schema
from vaearr.config.parts import trusted_names
from vaearr.errors import NoInputError, UsageError
from vaearr.run import spread, traversals
from vaearr.run.facts import run_facts, run_lines
from vaearr.store import (
    open_group,
    open_store,
    open_table,
    read_ahead,
    read_block,
    run_folder,
    run_manifest,
    store_blocks,
    store_of,
)

if TYPE_CHECKING:
    from vaearr.models.artifacts import TrainedModel


class Run:
    """A run of a store. Nothing is opened before it is needed, the network (torch) last of all.

    `path` and `name` say which; `ds` is the store's Dataset as it is now, `manifest` what the run was made from,
    `config` its settings, `history` and `health` the tables of its training, `latents` what it encoded, `model` the
    network with its weights checked. What works on a run takes it in the place of a store's path, and has a method
    here.
    """

    def __init__(
        self, path: Path, name: str, *, device: str = "cpu", trust: str | Collection[str] = (), **known: Any
    ) -> None:
        """device: of the network. trust: networks of the user's own that it may be, see `load_run`. known: `manifest`,
        `history`, `health` by whoever has them already."""
        self.path = self.store = path
        self.name, self.device = name, device
        self.trust = trusted_names(trust)
        self._opened: tuple[Any, xr.Dataset] | None = None
        self.__dict__.update(known)

    @property
    def ds(self) -> xr.Dataset:
        """The store's Dataset, lazy without dask; opened again where something was published since."""
        root = open_group(self.path)
        if self._opened is None or self._opened[0] is not root:
            self._opened = root, open_store(self.path, chunks=None)
        return self._opened[1]

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What produced the run: settings, fingerprint of the data, checksum of the weights, versions, time."""
        return run_manifest(self.path, self.name)

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of the training (of an import or attached latents: where they come from)."""
        found: Mapping[str, Any] = self.manifest["config"]
        return found

    @cached_property
    def history(self) -> xr.Dataset:
        """Losses and their parts over `epoch`. Raises NoInputError for a run that was not trained here."""
        return open_table(self.path, self.name, n.HISTORY)

    @cached_property
    def health(self) -> xr.Dataset:
        """KL and activity of each latent dimension, with warnings. Raises NoInputError for attached latents."""
        return open_table(self.path, self.name, n.HEALTH)

    def table(self, name: str) -> xr.Dataset:
        """A table of the run by its name, such as `association`. Raises NoInputError where it is not there."""
        return open_table(self.path, self.name, name)

    @cached_property
    def model(self) -> TrainedModel:
        """The trained network. Raises NoInputError for attached latents."""
        from vaearr.models.artifacts import check_network, load_model

        check_network(self.manifest, self.name, "decode")
        return load_model(self.path, self.name, device=self.device, trust=self.trust)

    @property
    def components(self) -> xr.DataArray:
        """What one unit of each latent adds to a decoded pattern, `(component, *signal)`.

        Components of a linear model (pca, nmf, ppca); `va.view` shows them.
        """
        units = xr.DataArray(np.eye(self.model.latent_shape[0]), dims=(n.COMPONENT, n.LATENT))
        decoded = self.model.decode(units) - self.model.decode(0 * units)
        labels = np.arange(units.sizes[n.COMPONENT])
        return decoded.assign_coords({n.COMPONENT: labels}).rename("components")

    @property
    def attrs(self) -> dict[str, Any]:
        """What a result says about where it comes from."""
        return {"run": self.name, "weights_sha256": self.manifest.get("weights_sha256")}

    def own(self, variable: str) -> xr.DataArray:
        """One of the run's variables, `latents`, `latents_std`, `reconstruction_error`, `roi` or `split`, lazy.

        The navigation dims come first, then the latent dim, then positions. Raises NoInputError where it is not there.
        """
        name, ds = n.run_name(variable, self.name), self.ds
        if name not in ds:
            is_attached = self.manifest.get("kind") == n.ATTACHED
            hint = "" if is_attached else f"; write it with 'vaearr encode {self.path} --run {self.name}'"
            raise NoInputError(f"run {self.name!r} of {self.path} has no {name}{hint}.")
        latent = [dim for dim in ds[name].dims if dim == n.run_name(n.LATENT, self.name)]
        return ds[name].transpose(*schema.navigation_dims(ds), *latent, ...)

    @property
    def latents(self) -> xr.DataArray:
        """What `encode` wrote, `(*navigation, latent[, lz, ly, lx])`. Raises NoInputError for a run not encoded."""
        return self.own(n.LATENTS)

    @property
    def grid(self) -> tuple[int, ...]:
        """Sizes of the navigation dims."""
        return schema.navigation_shape(self.ds)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's latents in the store, `(L[, lz, ly, lx])`."""
        return self.latents.shape[len(self.grid) :]

    def latent_blocks(self, *others: str) -> Iterator[tuple[np.ndarray, ...]]:
        """Shard by shard: numbers of the known samples in row-major order of the grid `(k,)`, latents `(k, *shape)`.

        A sample is known where all its latents, of a spatial one at any position, are finite; positions that a mask
        left out stay NaN. others: names of the run's variables, such as `latents_std`, whose rows come too.
        """
        variables, nav = [self.latents, *map(self.own, others)], schema.navigation_dims(self.ds)
        numbers, regions = np.arange(np.prod(self.grid)).reshape(self.grid), store_blocks(self.path)
        read = read_ahead(lambda region: [read_block(variable, region) for variable in variables], regions)
        for region, blocks in zip(regions, read, strict=True):
            rows = [block.reshape(-1, *block.shape[len(nav) :]) for block in blocks]
            known = np.isfinite(rows[0]).all(1).reshape(len(rows[0]), -1).any(1)
            if known.any():
                yield numbers[tuple(region[d] for d in nav)].ravel()[known], *(part[known] for part in rows)

    def samples(self, points: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """The stored patterns of a few grid points, `(k, *signal)`, in native byte order."""
        nav, patterns = schema.navigation_dims(self.ds), self.ds[n.PATTERNS]
        places = [{dim: slice(int(i), int(i) + 1) for dim, i in zip(nav, p, strict=True)} for p in points]
        found = np.concatenate([read_block(patterns, place) for place in places])
        return found.reshape(len(places), *found.shape[len(nav) :]).astype(found.dtype.newbyteorder("="), copy=False)

    def encode(self, **settings: Any) -> xr.Dataset:
        """Write the latents into the store, see `va.encode`; returns the opened store."""
        return va.encode(self, **settings)

    def apply(
        self,
        store: StoreOrRun,
        *,
        name: str | None = None,
        roi: Any = None,
        overwrite: bool = False,
        device: str = "auto",
    ) -> Run:
        """Copy the run into another store, so that its patterns can be encoded by the same model.

        Parameters
        ----------
        store : str, Path, Dataset or Run
            The other store. Of a run trained on scans joined by `va.concat`, a store of one of these scans gets the
            model, history, health, and its part of the ROI and split. In any other store the run counts as imported,
            see `va.import_model`: its health is measured on the new patterns, and a warning says if they look unlike
            those of the training.
        name : str, optional
            Name of the run there; default: its name here.
        roi : DataArray or RoiConfig, optional
            Points to encode in a store that was not trained on, as in `va.train`.
        overwrite : bool
            Replace a different run of that name.
        device : str
            Device on which the health of an imported run is measured.

        Returns
        -------
        Run
            The run in the other store; an existing one if it was applied the same way before.
        """
        from vaearr.run.applying import apply_run

        return apply_run(self, store, name=name, roi=roi, overwrite=overwrite, device=device)

    def decode(self, latents: Any, **settings: Any) -> Any:
        """Patterns that the decoder expects for latents, in preprocessed units, see `TrainedModel.decode`."""
        return self.model.decode(latents, **settings)

    def reconstruct(self, patterns: Any = None, **settings: Any) -> Any:
        """Patterns as stored, through the network and back, see `TrainedModel.reconstruct`; without any the store's own
        samples, reconstructed and judged, see `va.reconstruct_store`."""
        return va.reconstruct_store(self, **settings) if patterns is None else self.model.reconstruct(patterns)

    def sample(self, n_samples: int = 16, **settings: Any) -> xr.Dataset:
        """Draws from the prior, decoded, see `va.sample_prior`."""
        return va.sample_prior(self, n_samples=n_samples, **settings)

    def interpolate(self, a: Any, b: Any, **settings: Any) -> xr.Dataset:
        """The way between two samples, decoded, see `va.interpolate`."""
        return va.interpolate(self, a=a, b=b, **settings)

    # what classes, dimensions, planes and lines decode to, and how the encoded samples spread
    prototypes = traversals.prototypes
    traverse = traversals.traverse
    manifold = traversals.manifold
    line = traversals.line
    describe = spread.describe
    histograms = spread.histograms
    pairs = spread.pairs
    activations = spread.activations
    scatter = spread.scatter

    def statistics(self, *, write: bool = False) -> xr.Dataset:
        """Statistics of each latent dimension, see `va.latent_statistics`."""
        return va.latent_statistics(self, write=write)

    def layers(self, a: Any, b: Any, **settings: Any) -> xr.Dataset:
        """How far two samples are apart at each layer, see `va.compare_layers`."""
        return va.compare_layers(self.model, a, b, **settings)

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        heading, *lines = map(escape, self._lines())
        rows = "".join(f"<tr><td>{line}</td></tr>" for line in lines)
        kind = self.manifest.get("kind")
        table = "" if kind == n.ATTACHED else self.health.to_dataframe().to_html(float_format="{:.3g}".format)
        return f"<b>{heading}</b><table>{rows}</table><details><summary>health</summary>{table}</details>"

    def _lines(self) -> list[str]:
        """What a reader wants to know first, in words."""
        facts = run_facts(self.path, self.ds, self.name)
        return [f"<run {self.name!r} of {self.path}>", *run_lines(facts, schema.samples_word(self.ds))]


StoreOrRun = str | Path | xr.Dataset | Run


def load_run(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    *,
    device: str = "cpu",
    trust: str | Collection[str] = (),
) -> Run:
    """Open a run of a store; nothing is read before it is used.

    Parameters
    ----------
    store
        Path of the store, or a Dataset that was opened from it. A Run is returned as it is.
    run
        Name of the run.
    device
        Device of the network.
    trust
        Networks of your own packages that the run may name, as `package.module:Name`. Such a name
        in a store is refused otherwise, because loading it imports and runs that package.

    Returns
    -------
    Run
        Functions that take a store's path take it, too.

    Raises
    ------
    NoInputError
        If the store has no such run; the message lists those it has.
    """
    if isinstance(store, Run):
        return store
    path = store_of(store)
    run_folder(path, run)
    return Run(path, run, device=device, trust=trust)


def path_of(store: StoreOrRun) -> Path:
    """The store that is meant."""
    return store.path if isinstance(store, Run) else store_of(store)


def with_run(store: StoreOrRun, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of a step, with the name of the run where one is given in the place of a store.

    Raises UsageError where the settings name another run.
    """
    if not isinstance(store, Run):
        return settings
    if settings.get("run", store.name) != store.name:
        raise UsageError(
            f"the run {store.name!r} is given together with run={settings['run']!r}; leave one of them out."
        )
    return {**settings, "run": store.name}


def open_run(store: StoreOrRun, run: str = n.DEFAULT_RUN, *, device: str = "cpu") -> Run:
    """`load_run` with the network loaded, so that what is wrong with it is told before any work on stored patterns.

    Raises UsageError too for a run of other patterns than the store's.
    """
    from vaearr.models.artifacts import check_fits

    found = load_run(store, run, device=device)
    check_fits(found.ds, found.manifest, found.model)
    return found
