"""A run of a store and its steps, each computed once and stored with its recipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.computing.progress import Progress
from vaearr.config import (
    AssociateConfig,
    C,
    ClusterConfig,
    EncodeConfig,
    ProbeConfig,
    ReconstructConfig,
    RoiConfig,
    SignificanceConfig,
    refuse_unknown,
    resolved,
)
from vaearr.config.keywords import (
    AssociateSettings,
    ClusterSettings,
    EncodeSettings,
    ProbeSettings,
    ReconstructSettings,
)
from vaearr.config.parts import trusted_names
from vaearr.errors import NoInputError, UsageError
from vaearr.run.facts import run_facts, run_lines
from vaearr.schema.classes import CLASS, classes_of
from vaearr.store import (
    check_inputs,
    open_group,
    open_store,
    open_table,
    read_block,
    run_folder,
    run_manifest,
    store_of,
)

if TYPE_CHECKING:
    from vaearr.models.artifacts import TrainedModel
    from vaearr.run.traversals import Base, Others, Space, Unit


class Run:
    """A run of a store: a trained model, its latents, and the analyses of them.

    A run is opened with `load_run`. Its data are read when they are first used, and its network
    (torch) is loaded only for methods that need it. Every function that takes the path of a store
    takes a Run as well. In the examples of the methods, `run` is the run of ``scan.zarr`` and `ds`
    its Dataset.

    Parameters
    ----------
    path : Path
        The store.
    name : str
        Name of the run.
    device : str
        Device of the network.
    trust : str or collection of str
        Networks that are imported although the store names them, as `load_run` states.

    Examples
    --------
    >>> run = va.load_run("scan.zarr")
    >>> run.name, run.latent_shape
    ('vae', (3,))
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        device: str = "cpu",
        trust: str | Collection[str] = (),
    ) -> None:
        """Use `load_run`."""
        self.path = path
        self.name = name
        self.device = device
        self.trust = trusted_names(trust)
        self._opened: tuple[Any, xr.Dataset] | None = None
        self._layouts: dict[Any, xr.Dataset] = {}  # computed by `scatter`

    @property
    def ds(self) -> xr.Dataset:
        """The current Dataset of the store, lazy without dask."""
        root = open_group(self.path)
        if self._opened is None or self._opened[0] is not root:
            self._opened = root, open_store(self.path, chunks=None)
        return self._opened[1]

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What the run was created from: settings, fingerprints of its inputs, versions, time."""
        return run_manifest(self.path, self.name)

    @property
    def config(self) -> Mapping[str, Any]:
        """Settings of the training, or the origin of an imported model or of attached latents."""
        config: Mapping[str, Any] = self.manifest["config"]
        return config

    @cached_property
    def history(self) -> xr.Dataset:
        """Losses and their terms over `epoch`. Raises NoInputError without a training."""
        return self.table(n.HISTORY)

    @cached_property
    def health(self) -> xr.Dataset:
        """KL and activity of each latent dimension. Raises NoInputError for attached latents."""
        return self.table(n.HEALTH)

    def table(self, name: str) -> xr.Dataset:
        """Open a table of the run.

        Parameters
        ----------
        name : str
            Name of the table, such as ``"association"``.

        Returns
        -------
        xarray.Dataset
            The table as it is stored.

        Raises
        ------
        NoInputError
            If the run has no such table.

        Examples
        --------
        >>> run.associate("BC", metrics=["pearson"]).sizes["latent"]
        3
        >>> run.table("association").association.dims
        ('metric', 'latent', 'target')
        """
        return open_table(self.path, self.name, name)

    def current_table(self, name: str) -> xr.Dataset | None:
        """Open a table of the run if it is up to date.

        Parameters
        ----------
        name : str
            Name of the table, such as ``"association"``.

        Returns
        -------
        xarray.Dataset or None
            None if there is no such table, or a variable that it was computed from has changed.

        Examples
        --------
        >>> run.current_table("probe") is None  # none has been computed
        True
        """
        from vaearr.run.step import current_table

        return current_table(self, name)

    @cached_property
    def model(self) -> TrainedModel:
        """The network with its weights. Raises NoInputError for attached latents."""
        from vaearr.models.artifacts import check_network, load_model

        check_network(self.manifest, self.name, "decode")
        return load_model(self.path, self.name, device=self.device, trust=self.trust)

    @property
    def components(self) -> xr.DataArray:
        """Change of the decoded pattern per unit of each latent, `(component, *signal)`.

        These are the components of a linear model (pca, nmf); `va.view` shows them.
        """
        units = xr.DataArray(np.eye(self.model.latent_shape[0]), dims=(n.COMPONENT, n.LATENT))
        decoded = self.model.decode(units) - self.model.decode(0 * units)
        labels = np.arange(units.sizes[n.COMPONENT])
        return decoded.assign_coords({n.COMPONENT: labels}).rename("components")

    @property
    def result_attrs(self) -> dict[str, Any]:
        """Attributes of every result of this run: its name and the checksum of its weights."""
        return {"run": self.name, "weights_sha256": self.manifest.get("weights_sha256")}

    def variable(self, name: str) -> xr.DataArray:
        """Open a variable that belongs to the run.

        Parameters
        ----------
        name : str
            ``"latents"``, ``"latents_std"``, ``"reconstruction_error"``, ``"roi"`` or ``"split"``,
            whatever the name of the run.

        Returns
        -------
        xarray.DataArray
            The variable, lazy, ``(*navigation, [latent, [lz, ly, lx]])``.

        Raises
        ------
        NoInputError
            If it does not exist, such as the latents of a run that is not encoded.

        Examples
        --------
        >>> run.variable("roi").name, va.load_run("scan.zarr", "pca").variable("roi").name
        ('roi', 'roi_pca')
        """
        ds = self.ds
        stored_name = n.run_name(name, self.name)
        if stored_name not in ds:
            hint = ""
            if self.manifest.get("kind") != n.ATTACHED:
                hint = f"; write it with 'vaearr encode {self.path} --run {self.name}'"
            raise NoInputError(f"run {self.name!r} of {self.path} has no {stored_name}{hint}.")
        latent = n.run_name(n.LATENT, self.name)
        return ds[stored_name].transpose(
            *schema.navigation_dims(ds), latent, ..., missing_dims="ignore"
        )

    @property
    def latents(self) -> xr.DataArray:
        """Encoded latents, `(*navigation, latent[, lz, ly, lx])`.

        Raises NoInputError if the run is not encoded.
        """
        return self.variable(n.LATENTS)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latents of one sample in the store, `(L[, lz, ly, lx])`."""
        return self.latents.shape[len(schema.navigation_dims(self.ds)) :]

    def patterns_at(self, points: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """Read the stored patterns at grid points.

        Parameters
        ----------
        points : array-like of int, shape (k, n_navigation)
            Index of each sample along each navigation dim.

        Returns
        -------
        numpy.ndarray
            Patterns ``(k, *signal)`` in native byte order.

        Examples
        --------
        >>> run.patterns_at([[0, 5], [2, 7]]).shape
        (2, 9, 11)
        """
        navigation = schema.navigation_dims(self.ds)
        samples = []
        for point in points:
            region = {
                dim: slice(int(i), int(i) + 1) for dim, i in zip(navigation, point, strict=True)
            }
            samples.append(
                read_block(self.ds[n.PATTERNS], region).squeeze(axis=tuple(range(len(navigation))))
            )
        stacked = np.stack(samples)
        return stacked.astype(stacked.dtype.newbyteorder("="), copy=False)

    def to(self, device: str) -> Run:
        """Return the run with its network on another device.

        Parameters
        ----------
        device : str
            Name of the device, such as ``"cuda"``.

        Returns
        -------
        Run
            A second Run of the same store.

        Examples
        --------
        >>> run.to("cpu").model.device
        device(type='cpu')
        """
        if device == self.device:
            return self
        return Run(self.path, self.name, device=device, trust=self.trust)

    def check_patterns(self) -> None:
        """Check that the network fits the patterns of the store.

        Raises
        ------
        NoInputError
            If the run has no network.
        UsageError
            If the run was trained on patterns that differ from those of the store.

        Examples
        --------
        >>> run.check_patterns()
        """
        from vaearr.models.artifacts import check_fits

        check_fits(self.ds, self.manifest, self.model)

    def encode(
        self,
        data: xr.Dataset | None = None,
        *,
        config: EncodeConfig | None = None,
        overwrite: bool = False,
        progress: Progress = True,
        **settings: Unpack[EncodeSettings],
    ) -> xr.Dataset:
        """Write the latents of the samples of the region into the store.

        An interrupted call is resumed by the same call. The variables appear once they are
        complete. Latents that exist with the same settings are kept.

        Parameters
        ----------
        data : xarray.Dataset, optional
            The Dataset that the run was trained on, with its lazy steps; default: the patterns of
            the store.
        config : EncodeConfig, optional
            Settings. Other keywords replace single ones.
        overwrite : bool
            Replace latents that were created with different settings.
        progress : bool or callable
            Show a progress bar, or call a function with the blocks done, the number of blocks and
            a text.
        **settings
            Fields of `EncodeConfig`, such as ``window`` and ``draws``.

        Returns
        -------
        xarray.Dataset
            The opened store with ``latents`` (posterior mean) and ``latents_std`` ``(*navigation,
            latent[, lz, ly, lx])``, ``reconstruction_error (*navigation)`` and, with ``draws``,
            ``z_draws (*navigation, draw, latent[, …])``; NaN outside the region. Latents of
            collections and spatial latents have the attributes ``channel_mean``, ``channel_std``
            and ``diffusion_scale``.

        Raises
        ------
        NoInputError
            If the run has no network.
        ExistsError
            If latents exist that were created with different settings.
        UsageError
            If the run was trained on other data, or settings do not fit.

        Examples
        --------
        >>> run.encode().latents.dims
        ('y', 'x', 'latent')
        """
        from vaearr.run.encode import encode_run

        refuse_unknown(Run.encode, EncodeSettings, settings)
        chosen = self._settings(EncodeConfig, config, settings)
        return encode_run(self, data, chosen, overwrite=overwrite, progress=progress)

    def apply(
        self,
        store: StoreOrRun,
        *,
        name: str | None = None,
        roi: Any = None,
        overwrite: bool = False,
        device: str = "auto",
    ) -> Run:
        """Copy the run into another store, to encode the patterns there with the same model.

        Parameters
        ----------
        store : str, Path, Dataset or Run
            The other store. If the run was trained on scans joined by `va.concat` and this is one
            of them, it gets the model, history and health, and its part of the ROI and the split.
            In any other store the run counts as imported, see `va.import_model`: its health is
            computed from the patterns there, and a warning says if they differ from those of the
            training.
        name : str, optional
            Name of the run there; default: its name here.
        roi : xarray.DataArray or RoiConfig, optional
            Points to encode in a store that was not trained on, as in `va.train`.
        overwrite : bool
            Replace a different run of that name.
        device : str
            Device on which the health of an imported run is computed.

        Returns
        -------
        Run
            The run in the other store; an existing one if it was applied the same way before.

        Raises
        ------
        ExistsError
            If a different run of that name exists there.
        UsageError
            If the model does not fit the patterns there, or `roi` is given for a store of the
            training.

        Examples
        --------
        >>> run.apply("other.zarr").encode().latents.dims
        ('y', 'x', 'latent')
        """
        from vaearr.run.applying import apply_run

        return apply_run(self, store, name=name, roi=roi, overwrite=overwrite, device=device)

    def decode(self, latents: Any, **settings: Any) -> Any:
        """Decode latents into patterns in preprocessed units.

        Parameters
        ----------
        latents : array-like
            Latents ``(…, L[, lz, ly, lx])``.
        **settings
            Settings of `TrainedModel.decode`.

        Returns
        -------
        numpy.ndarray or xarray.DataArray
            Patterns ``(…, *signal)``, of the same kind as `latents`.

        Examples
        --------
        >>> run.decode(run.latents[:2]).dims
        ('y', 'x', 'dy', 'dx')
        """
        return self.model.decode(latents, **settings)

    def decode_samples(self, latents: np.ndarray, dim: str = n.SAMPLE) -> xr.DataArray:
        """Decode latents into patterns in stored units, as far as the preprocessing allows.

        Parameters
        ----------
        latents : numpy.ndarray
            ``(k, latent[, lz, ly, lx])``.
        dim : str
            Name of the first dimension of the result.

        Returns
        -------
        xarray.DataArray
            ``(dim, *signal)``. With a normalisation or a dynamic background the patterns are in
            preprocessed units, because no input exists whose scale could be restored; the attribute
            ``scale`` is ``"stored"`` or ``"preprocessed"``.

        Examples
        --------
        >>> run.decode_samples(np.zeros((2, 3), "float32")).sizes
        Frozen({'sample': 2, 'dy': 9, 'dx': 11})
        """
        from vaearr.run.decode import decoded_array

        return decoded_array(self, latents, {dim: len(latents)})

    def as_decoded(self, patterns: xr.DataArray) -> xr.DataArray:
        """Convert stored patterns to the units of decoded ones, to show them side by side.

        Parameters
        ----------
        patterns : DataArray
            ``(k, *signal)``, in memory.

        Returns
        -------
        xarray.DataArray
            The patterns in the units of `decode_samples`.

        Examples
        --------
        >>> pattern = ds.patterns.isel(y=2, x=[7]).compute()
        >>> run.as_decoded(pattern).sizes["dy"]
        9
        """
        from vaearr.run.decode import comparable_patterns

        return comparable_patterns(self, patterns)

    def encoded_latents(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the latents of all encoded samples.

        Returns
        -------
        numbers : numpy.ndarray
            ``(k,)``, row-major position of each sample in the navigation grid.
        latents : numpy.ndarray
            ``(k, latent[, lz, ly, lx])``; positions that a mask left out hold the mean of their
            channel.

        Raises
        ------
        NoInputError
            If no sample is encoded.

        Examples
        --------
        >>> numbers, latents = run.encoded_latents()
        >>> latents.shape == (len(numbers), 3)
        True
        """
        from vaearr.run.points import encoded_latents

        return encoded_latents(self)

    def associate(
        self,
        targets: str | Sequence[str] | None = None,
        *,
        significance: bool | SignificanceConfig | None = None,
        config: AssociateConfig | None = None,
        overwrite: bool = False,
        progress: Progress = True,
        **settings: Unpack[AssociateSettings],
    ) -> xr.Dataset:
        """Associate the latents with maps over the region of the run.

        The same call again returns the stored table.

        Parameters
        ----------
        targets : str or sequence of str, optional
            Names of variables ("BC", "elements", "phase"), of their entries ("Fe") or sums of
            elements ("Fe + 0.5*Ni", "rgb(Fe, Ni, Cr)"); default: BC, every element and phase that
            exists.
        significance : bool or SignificanceConfig, optional
            Compute p-values from surrogate maps as well.
        config : AssociateConfig, optional
            Settings. Other keywords replace single ones.
        overwrite : bool
            Replace a table that was created with different settings.
        progress : bool or callable
            Show a progress bar, or call a function.
        **settings
            Fields of `AssociateConfig`, such as ``metrics`` and ``name``.

        Returns
        -------
        xarray.Dataset
            ``association (metric, latent, target)``, with `significance` also ``p_value``,
            ``p_adjusted`` and ``n_effective``. Stored as table ``association`` of the run, or
            ``association_<name>``.

        Raises
        ------
        ExistsError
            If the name holds another table.
        NoInputError
            If the run is not encoded or a target does not exist.

        Examples
        --------
        >>> table = run.associate("BC", metrics=["pearson"])
        >>> strongest = abs(table.association).idxmax("latent")
        >>> strongest.dims
        ('metric', 'target')
        """
        from vaearr.run.analyses import associate_run

        refuse_unknown(Run.associate, AssociateSettings, settings)
        values = {**settings, "targets": _listed(targets)}
        if significance is True:
            configured = config.significance if config else None
            significance = configured or SignificanceConfig()
        if significance is not None:
            values["significance"] = significance or None
        chosen = self._settings(AssociateConfig, config, values)
        return associate_run(self, chosen, overwrite=overwrite, progress=progress)

    def partitions(
        self,
        reference: str,
        *,
        k_max: int = 12,
        name: str | None = None,
        overwrite: bool = False,
    ) -> xr.Dataset:
        """Compare clusters of each latent with clusters of a reference over the region of the run.

        Parameters
        ----------
        reference : str
            A variable of the store: scores, elements, a map, or a map of classes.
        k_max : int
            Largest number of clusters of a latent, and of a reference without classes.
        name : str, optional
            The table is ``partitions_<reference>_<name>``; default: ``partitions_<reference>``.
        overwrite : bool
            Replace a table that was created with different settings.

        Returns
        -------
        xarray.Dataset
            Agreement of the clusters of each latent, see
            `vaearr.analysis.association.latent_partitions`. Stored as a table of the run.

        Raises
        ------
        ExistsError
            If the name holds another table.
        NoInputError
            If the run is not encoded or the reference does not exist.
        UsageError
            If `k_max` is below 2.

        Examples
        --------
        >>> run.partitions("phase", k_max=3).ari.dims
        ('latent',)
        """
        from vaearr.run.analyses import partition_run

        return partition_run(self, reference, name, k_max=k_max, overwrite=overwrite)

    def cluster(
        self,
        features: str | Sequence[str] | None = None,
        *,
        config: ClusterConfig | None = None,
        overwrite: bool = False,
        **settings: Unpack[ClusterSettings],
    ) -> xr.Dataset:
        """Cluster the points of the region, and write the map of labels into the store.

        The same call again returns the stored result.

        Parameters
        ----------
        features : str or sequence of str, optional
            Variables to cluster by, or entries of them ("Fe", "latents: 3"); default: the latents
            of the run.
        config : ClusterConfig, optional
            Settings. Other keywords replace single ones.
        overwrite : bool
            Replace clusters that were created with different settings.
        **settings
            Fields of `ClusterConfig`, such as ``method``, ``k`` and ``name``.

        Returns
        -------
        xarray.Dataset
            The map, stored as variable ``name``, with its summary, stored as table
            ``clusters_<name>`` of the run. If there are phases, also the scores against them
            (``ari``, ``nmi``, …), stored with the confusion matrix as ``clusters_<name>_scores``.

        Raises
        ------
        ExistsError
            If the name holds anything else.
        NoInputError
            If the run is not encoded or a feature does not exist.

        Examples
        --------
        >>> run.cluster(["latents", "BC"], method="kmeans", k=3, name="groups").groups.dims
        ('y', 'x')
        """
        from vaearr.run.analyses import cluster_run

        refuse_unknown(Run.cluster, ClusterSettings, settings)
        chosen = self._settings(ClusterConfig, config, {**settings, "features": _listed(features)})
        return cluster_run(self, chosen, overwrite=overwrite)

    def probe(
        self,
        targets: str | Sequence[str] | None = None,
        *,
        config: ProbeConfig | None = None,
        overwrite: bool = False,
        progress: Progress = True,
        **settings: Unpack[ProbeSettings],
    ) -> xr.Dataset:
        """Measure how well latents and other features predict maps over the region of the run.

        The same call again returns the stored table.

        Parameters
        ----------
        targets : str or sequence of str, optional
            Maps to predict, as in `associate`.
        config : ProbeConfig, optional
            Settings. Other keywords replace single ones.
        overwrite : bool
            Replace a table that was created with different settings.
        progress : bool or callable
            Show a progress bar, or call a function.
        **settings
            Fields of `ProbeConfig`, such as ``by`` and ``features``.

        Returns
        -------
        xarray.Dataset
            Scores, see `va.probe`. Stored as table ``probe`` of the run, or ``probe_<name>``.

        Raises
        ------
        ExistsError
            If the name holds another table.
        NoInputError
            If the run is not encoded, or a feature or target does not exist.

        Examples
        --------
        >>> run.probe("BC", n_permutations=0).score.dims
        ('target', 'features', 'probe')
        """
        from vaearr.run.analyses import probe_run

        refuse_unknown(Run.probe, ProbeSettings, settings)
        chosen = self._settings(ProbeConfig, config, {**settings, "targets": _listed(targets)})
        return probe_run(self, chosen, overwrite=overwrite, progress=progress)

    def reconstruct(
        self,
        *,
        roi: xr.DataArray | RoiConfig | None = None,
        folder: str | Path | None = None,
        config: ReconstructConfig | None = None,
        overwrite: bool = False,
        progress: Progress = True,
        **settings: Unpack[ReconstructSettings],
    ) -> xr.Dataset:
        """Reconstruct samples of the store, and compare them with their inputs.

        Posterior means are decoded. What the preprocessing removed from a pattern (its mean and
        scale, its dynamic background) is restored, so that the network is only responsible for the
        shape. The same call again returns the stored table.

        Parameters
        ----------
        roi : xarray.DataArray or RoiConfig, optional
            Map or conditions; default: the region of the run.
        folder : str or Path, optional
            Folder for a file of each reconstruction: PNG, NIfTI or .npy in stored units, in the
            size and affine of its source. It appears once it is complete.
        config : ReconstructConfig, optional
            Settings. Other keywords replace single ones. ``out="variable"`` also writes the
            reconstructions as the float32 variable ``reconstruction`` (of a run b
            ``reconstruction_b``).
        overwrite : bool
            Replace a table or variable that was created with different settings.
        progress : bool or callable
            Show a progress bar, or call a function with the number done, the total number and a
            text.
        **settings
            Fields of `ReconstructConfig`, such as ``part`` and ``units``.

        Returns
        -------
        xarray.Dataset
            ``mse``, ``mae``, ``psnr`` (dB) and, for samples with sides of 11 or more, ``ssim`` over
            the navigation dims, NaN for samples left out; ``summary (part,
            metric, statistic)`` and ``count (part, metric)``; the examples ``input`` and
            ``reconstruction (example, *signal)``. Stored as table ``name`` of the run.

        Raises
        ------
        ExistsError
            If the name holds anything else.
        NoInputError
            If the part holds no sample of the region.
        RoiError
            If the region is empty.
        UsageError
            If settings do not fit.
        DataError
            If the store or the model is damaged.

        Examples
        --------
        >>> table = run.reconstruct(part="validation")
        >>> table.psnr.dims
        ('y', 'x')
        """
        from vaearr.run.reconstruct import reconstruct

        refuse_unknown(Run.reconstruct, ReconstructSettings, settings)
        chosen = self._settings(ReconstructConfig, config, settings)
        run = self.to(chosen.device)
        return reconstruct(
            run, chosen, roi=roi, folder=folder, overwrite=overwrite, progress=progress
        )

    def example_reconstructions(self, count: int = 8, seed: int = 0) -> xr.Dataset:
        """Reconstruct some validation samples in preprocessed units; nothing is stored.

        Parameters
        ----------
        count : int
            Number of samples.
        seed : int
            Seed of their choice.

        Returns
        -------
        xarray.Dataset
            As `reconstruct`, with ``input`` and ``reconstruction (example, …)``.

        Raises
        ------
        NoInputError
            If the run has no network or no samples in its split.

        Examples
        --------
        >>> sheet = va.view(run.example_reconstructions(4))
        """
        from vaearr.run.reconstruct import example_reconstructions

        return example_reconstructions(self, count, seed)

    def sample(self, n_samples: int = 16, seed: int = 0, *, source: str = "prior") -> xr.Dataset:
        """Sample latents and decode them.

        Parameters
        ----------
        n_samples : int
            Number of samples.
        seed : int
            The same seed gives the same samples, and fewer are the first of more.
        source : {"prior", "fitted"}
            ``"prior"``: N(0, 1). ``"fitted"``: the Gaussian with the mean and covariance of the
            aggregate posterior of an encoded run. Positions of a spatial latent are sampled
            independently, so that the decoded samples have no large structure; a diffusion model on
            the latents would add it.

        Returns
        -------
        xarray.Dataset
            ``latents (sample, latent[, lz, ly, lx])`` and ``decoded (sample, [channel,] dy, dx)``,
            in the units that its attribute ``scale`` states; the attribute ``warnings`` states why
            the prior is not the data. ``distance_to_data`` and ``is_far`` as in `traverse`.

        Raises
        ------
        UsageError
            For the prior of an autoencoder, which has none.
        NoInputError
            For the fitted distribution of a run that is not encoded.

        Examples
        --------
        >>> sheet = va.view(run.sample(16, seed=1))
        """
        from vaearr.run.draw import sample

        return sample(self, n_samples, seed, source)

    def interpolate(self, a: Any, b: Any, *, steps: int = 9, method: str = "lerp") -> xr.Dataset:
        """Interpolate between the posterior means of two samples, and decode.

        Parameters
        ----------
        a, b : mapping or int
            Coordinates such as ``{"x": 2.0, "y": 0.5}``, the nearest scan point within half a step;
            for a collection the value of its coordinate ``sample``.
        steps : int
            Number of points, both ends included.
        method : {"lerp", "slerp"}
            Linear or spherical linear interpolation.

        Returns
        -------
        xarray.Dataset
            ``latents (step, latent[, lz, ly, lx])``, ``decoded (step, *signal)`` and ``input (end,
            *signal)``, the two patterns in the units of ``decoded`` (attribute ``scale``);
            coordinate ``t`` from 0 to 1; ``distance_to_data`` and ``is_far`` as in `traverse`.

        Raises
        ------
        UsageError
            If the method or a point does not exist, or no unique arc connects the two vectors.

        Examples
        --------
        >>> path = run.interpolate({"x": 2.0, "y": 0.5}, {"x": 9.0, "y": 7.0}, steps=5)
        >>> path.decoded.dims
        ('step', 'dy', 'dx')
        """
        from vaearr.run.draw import interpolate

        return interpolate(self, a, b, steps, method)

    def statistics(self) -> xr.Dataset:
        """Compute statistics of each latent dimension over the region of the run, and store them.

        Returns
        -------
        xarray.Dataset
            Table ``latent_statistics`` of the run, see `vaearr.run.statistics.latent_statistics`.
            It is computed again only if the latents have changed.

        Raises
        ------
        NoInputError
            If the run is not encoded.

        Examples
        --------
        >>> run.statistics().kl.dims
        ('latent',)
        """
        from vaearr.run.statistics import stored_statistics

        return stored_statistics(self)

    def fidelity(
        self,
        n_samples: int = 1000,
        *,
        source: str = "prior",
        features: Any = None,
        part: str = "validation",
        seed: int = 0,
    ) -> xr.Dataset:
        """Compute the Fréchet distance of generated samples to the data.

        The distance is MONAI's ``FIDMetric`` (Heusel et al. 2017) of features of preprocessed
        samples. It needs the extra ``vaearr[monai]``.

        Parameters
        ----------
        n_samples : int
            Number of generated samples, and largest number of samples of each part of the split.
        source : {"prior", "fitted"}
            As in `sample`.
        features : callable, optional
            Function from preprocessed samples ``(B, C, …)`` to features ``(B, d)``; default: the
            posterior mean, of spatial latents the mean and standard deviation of each channel.
        part : {"validation", "train", "all"}
            Samples that are the reference.
        seed : int
            Seed of the generated samples, as in `sample`, and of the choice of reference samples.

        Returns
        -------
        xarray.Dataset
            ``frechet (compared)``: of ``draws`` and of ``reconstructions`` against the reference,
            and of the training ``data`` against the validation data, the smallest distance that can
            be expected; NaN if a side has fewer than two samples. ``n`` and ``n_reference``:
            samples on each side. The attribute ``warnings`` states the limits of the numbers.

        Raises
        ------
        MissingExtraError
            If MONAI is not installed.
        UsageError
            If the source, the part or the features do not fit.
        DataError
            If the reference has fewer than two samples.

        Examples
        --------
        >>> run.fidelity(500).frechet  # doctest: +SKIP
        """
        from vaearr.run.fidelity import fidelity

        return fidelity(self, n_samples, source, features, part, seed)

    def prototypes(
        self, by: str | None = None, *, classes: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Decode a typical sample and the mean latents of each class.

        The typical sample of a class is the one nearest the mean, among the half of its samples
        with the closest neighbours. The mean of a class of several orientations or shapes lies
        where no sample does, so it decodes to none of them.

        Parameters
        ----------
        by : str, optional
            Map or coordinate with a class for each sample. Default: the first that exists of
            ``label``, ``phase`` and ``clusters``.
        classes : sequence of str, optional
            Names of the classes; default: all with an encoded sample.

        Returns
        -------
        xarray.Dataset
            ``decoded (class, [channel,] dy, dx)`` of the typical sample, its latents
            ``sample_latents`` and its coordinates ``number``, ``x_of_sample``, …;
            ``decoded_mean`` of the mean latents ``latents (class, latent[, lz, ly, lx])``;
            ``n (class)``. The attribute ``scale`` states the units of the patterns.

        Raises
        ------
        NoInputError
            If the run is not encoded, or the map or samples of the classes do not exist.
        UsageError
            If the map holds no classes, or lacks one of `classes`.

        Examples
        --------
        >>> run.prototypes("phase").decoded.dims
        ('class', 'dy', 'dx')
        """
        from vaearr.run.traversals import prototypes

        return prototypes(self, by, classes)

    def traverse(
        self,
        dims: int | Sequence[int] | None = None,
        *,
        base: Base = "typical",
        span: tuple[float, float] = (-3.0, 3.0),
        steps: int = 9,
        unit: Unit = "std",
        by: str | None = None,
        others: Others = "data",
    ) -> xr.Dataset:
        """Decode latents along single dimensions, starting from a base.

        A real change, such as that of an orientation, is a move along several dimensions. By
        default each picture is therefore decoded from the encoded sample that is most similar to
        the base, among those with about that value of the dimension.

        Parameters
        ----------
        dims : int or sequence of int, optional
            Latent dimensions; default: all, that with the largest KL first.
        base : str, int, mapping or array
            ``"typical"``: the sample nearest the mean of all samples, see `prototypes`;
            ``"typical:NAME"``: that of a class. ``"mean"`` of all samples, ``"prototype:NAME"``:
            the mean of a class. Or a sample, by its number or coordinates ``{"x": …, "y": …}``; or
            latents ``(L[, lz, ly, lx])``.
        span : tuple of float
            First and last value: offsets from the base in units of ``std``, otherwise values of the
            dimension.
        steps : int
            Number of values of each dimension.
        unit : {"std", "absolute"}
            ``"std"``: standard deviations of the aggregate posterior. A channel of a spatial latent
            is shifted as a whole; its value is the mean over positions.
        by : str, optional
            Map of the class that `base` names, see `prototypes`.
        others : {"data", "base"}
            Values of the other dimensions. ``"data"``: each sample (of at most 5000 evenly spaced
            ones, and the base) belongs to the closest value of the row; of these, the one is decoded
            whose other dimensions are nearest those of the base, each divided by its standard
            deviation. A value without samples repeats the sample with the closest value.
            ``"base"``: those of the base; only this dimension changes.

        Returns
        -------
        xarray.Dataset
            ``decoded (latent_dim, step, [channel,] dy, dx)``, ``latents (latent_dim, step,
            latent[, …])``, the coordinate ``value (latent_dim, step)`` of the decoded latents, and
            ``base (latent[, …])``; of a base that is a sample of the store also its coordinates
            ``base_x``, …. The attribute ``base`` describes it. Of an encoded run also
            ``distance_to_data (latent_dim, step)``: the Euclidean distance of the latents from the
            nearest encoded sample, each dimension divided by the standard deviation of its
            aggregate posterior, in units of the median distance from a sample to its nearest
            neighbour (both among at most 5000 evenly spaced samples); and ``is_far``, True where it
            exceeds the distance below which 99 % of these samples have a neighbour (the attribute
            ``limit``). The decoder was not trained there.

        Raises
        ------
        UsageError
            If the base, a dimension or the span is not valid.
        NoInputError
            If the run is not encoded.

        Examples
        --------
        >>> frames = run.traverse([0, 1], span=(-2, 2), steps=5)
        >>> frames.decoded.sizes["step"]
        5
        >>> sheet = va.view(frames)
        """
        from vaearr.run.traversals import traverse

        return traverse(self, dims, base, span, steps, unit, by, others)

    def manifold(
        self,
        dims: Sequence[int] | None = None,
        *,
        base: Base = "typical",
        span: tuple[float, float] = (-3.0, 3.0),
        steps: int = 15,
        unit: Unit = "std",
        by: str | None = None,
    ) -> xr.Dataset:
        """Decode a grid over two latent dimensions.

        Parameters
        ----------
        dims : sequence of int, optional
            The dimension along the columns, to the right, and that along the rows, upwards (the
            first row holds the smallest value); default: the two with the largest KL. The other
            dimensions keep the values of the base.
        base, span, unit, by
            As in `traverse`.
        steps : int
            Number of values of each dimension.

        Returns
        -------
        xarray.Dataset
            ``decoded (row, column, [channel,] dy, dx)`` and ``latents (row, column, latent[, …])``;
            the coordinates ``column`` and ``row`` are the values of the two dimensions;
            ``distance_to_data`` and ``is_far`` as in `traverse`.

        Raises
        ------
        UsageError
            As in `traverse`, and if there are not two dimensions that vary.
        NoInputError
            If the run is not encoded.

        Examples
        --------
        >>> run.manifold((0, 1), steps=3).decoded.sizes["dy"]
        9
        """
        from vaearr.run.traversals import manifold

        return manifold(self, dims, base, span, steps, unit, by)

    def line(
        self,
        points: Sequence[Sequence[float]] | np.ndarray = (),
        *,
        space: Space = "plane",
        dims: Sequence[int] | None = None,
        steps: int | None = None,
        base: Base = "typical",
        by: str | None = None,
        seed: int = 0,
        max_points: int = 5000,
        perplexity: float = 30.0,
    ) -> xr.Dataset:
        """Decode points of a plane, or evenly spaced points on the line through them.

        Parameters
        ----------
        points : array-like, shape (k, 2)
            Points in the coordinates of the plane.
        space : {"plane", "pca", "tsne", "umap"}
            ``"plane"``: two latent dimensions; the others keep the values of the base. ``"pca"`` is
            inverted exactly; what is not in its plane stays at the mean. ``"tsne"`` and ``"umap"``
            have no inverse: the nearest sample to each point is decoded.
        dims, base
            Of ``"plane"``, as in `manifold`.
        steps : int, optional
            Number of points on the line; by default the points themselves are decoded.
        by, seed, max_points, perplexity
            As in `scatter`.

        Returns
        -------
        xarray.Dataset
            ``decoded (step, …)``, ``latents (step, latent[, lz, ly, lx])``, ``requested (step,
            axis)``, ``position (step, axis)`` of the latents in the plane, and ``scatter (point,
            axis)``, the samples with their coordinates; ``distance_to_data`` and ``is_far`` as in
            `traverse`.

        Raises
        ------
        UsageError
            If the points or the space are not valid, and as in `scatter` and `traverse`.
        NoInputError
            If the run is not encoded.

        Examples
        --------
        >>> run.line([(-2, 0), (2, 0)], space="pca", steps=5).sizes["step"]
        5
        """
        from vaearr.run.traversals import line

        return line(self, points, space, dims, steps, base, by, seed, max_points, perplexity)

    def describe(self) -> xr.Dataset:
        """Summarise each latent dimension over the encoded samples.

        The numbers are those of `pandas.DataFrame.describe`. Spatial latents are averaged over
        their positions.

        Returns
        -------
        xarray.Dataset
            ``count``, ``mean``, ``std``, ``min``, ``25%``, ``50%``, ``75%``, ``max``, each
            ``(latent,)``.

        Raises
        ------
        NoInputError
            If the run is not encoded.

        Examples
        --------
        >>> run.describe()["std"].dims
        ('latent',)
        """
        from vaearr.run.points import latent_points

        vectors = latent_points(self)["vectors"].to_series().unstack(n.LATENT)
        return xr.Dataset.from_dataframe(vectors.describe().T).assign_attrs(self.result_attrs)

    def histograms(
        self,
        by: str | None = None,
        *,
        classes: Sequence[str] | None = None,
        dims: int | Sequence[int] | None = None,
        bins: int | None = None,
    ) -> xr.Dataset:
        """Count the encoded samples along each latent dimension, by class.

        Spatial latents are averaged over their positions.

        Parameters
        ----------
        by : str, optional
            Map or coordinate with a class for each sample. Default: the first that exists of
            ``label``, ``phase`` and ``clusters``; without any, all samples are counted together.
        classes : sequence of str, optional
            Names of the classes; default: all.
        dims : int or sequence of int, optional
            Latent dimensions; default: all.
        bins : int, optional
            Bins of each dimension between its extremes; default: twice the square root of the
            number of samples, between 5 and 50.

        Returns
        -------
        xarray.Dataset
            ``counts ([class,] latent, bin)`` and ``edges (latent, edge)``.

        Raises
        ------
        NoInputError
            If the run is not encoded, or the map or samples of the classes do not exist.
        UsageError
            If a class or dimension does not exist.

        Examples
        --------
        >>> run.histograms("phase", bins=10).counts.dims
        ('class', 'latent', 'bin')
        """
        from vaearr.run.spread import histograms

        return histograms(self, by, classes, dims, bins)

    def pairs(
        self,
        by: str | None = None,
        *,
        dims: Sequence[int] | None = None,
        max_points: int = 2000,
        seed: int = 0,
    ) -> xr.Dataset:
        """Collect samples and correlations of latent dimensions for a pair plot.

        Parameters
        ----------
        by : str, optional
            Map or coordinate with a class for each sample, as in `histograms`.
        dims : sequence of int, optional
            Two or more dimensions; default: the six of largest variance.
        max_points : int
            Largest number of samples in the plot.
        seed : int
            Seed of the choice of samples.

        Returns
        -------
        xarray.Dataset
            ``vectors (point, latent)`` with the coordinates and classes of the samples;
            ``correlation (latent, other)``, Pearson, over all samples, NaN of a constant dimension.

        Raises
        ------
        UsageError
            If there are fewer than two dimensions, and as in `histograms`.
        NoInputError
            As in `histograms`.

        Examples
        --------
        >>> run.pairs(max_points=100).sizes["latent"]
        3
        """
        from vaearr.run.spread import pairs

        return pairs(self, by, dims, max_points, seed)

    def activations(
        self,
        by: str | None = None,
        *,
        classes: Sequence[str] | None = None,
        dims: int | Sequence[int] | None = None,
        max_points: int = 2000,
        seed: int = 0,
    ) -> xr.Dataset:
        """Sort the latents of samples by class, and average them over each class.

        Parameters
        ----------
        by, classes, dims
            As in `histograms`. Samples without a class are left out.
        max_points, seed
            As in `pairs`.

        Returns
        -------
        xarray.Dataset
            ``activation (point, latent)``; if there are classes also the coordinate
            ``class_of_point``, and over all samples ``class_mean (class, latent)`` and ``n
            (class)``.

        Raises
        ------
        NoInputError, UsageError
            As in `histograms`.

        Examples
        --------
        >>> run.activations("phase").class_mean.dims
        ('class', 'latent')
        """
        from vaearr.run.spread import activations

        return activations(self, by, classes, dims, max_points, seed)

    def scatter(
        self,
        method: Literal["tsne", "pca", "umap"] = "tsne",
        *,
        by: str | None = None,
        seed: int = 0,
        max_points: int = 5000,
        perplexity: float = 30.0,
        neighbours: int = 15,
    ) -> xr.Dataset:
        """Lay out samples in a plane by their latents, with their classes.

        The Run keeps the layout: the same call with another `by` is not computed again.

        Parameters
        ----------
        method, seed, max_points, perplexity, neighbours
            As in `va.embed`.
        by : str, optional
            Map or coordinate with a class for each sample, as in `histograms`.

        Returns
        -------
        xarray.Dataset
            The result of `va.embed`, with the coordinate ``class`` of each point if there are
            classes.

        Raises
        ------
        NoInputError, UsageError, MissingExtraError
            As in `va.embed` and `histograms`.

        Examples
        --------
        >>> run.scatter("pca").position.dims
        ('point', 'axis')
        """
        from vaearr.analysis.planes import embed

        settings: dict[str, Any] = {
            "seed": seed,
            "max_points": max_points,
            "perplexity": perplexity,
            "neighbours": neighbours,
        }
        codes = classes_of(self.ds, by)
        latents = self.latents
        key = (method, *settings.values(), *check_inputs(self.path, [str(latents.name)]).values())
        if key not in self._layouts:
            self._layouts[key] = embed(latents, method, **settings)
        result = self._layouts[key].copy()
        if codes is not None:
            result.coords[CLASS] = "point", codes.values.ravel()[result["number"]], codes.attrs
        return result.assign_attrs(self.result_attrs)

    def layers(self, a: Any, b: Any, *, top: int = 10, progress: Progress = True) -> xr.Dataset:
        """Compare two samples, or all pairs of two labels, at each layer of the network.

        Parameters
        ----------
        a, b : int, mapping, array-like or str
            Two samples: the number of a sample, the coordinates of a scan point, or a stored
            pattern. Or two labels of a collection: their samples with the same file name are
            compared pair by pair.
        top : int
            Number of layers whose difference maps are kept.
        progress : bool or callable
            Show a progress bar over the pairs, or call a function.

        Returns
        -------
        xarray.Dataset
            Distances over ``layer``, in the order of execution, see
            `vaearr.analysis.layers.compare_layers`; of pairs with their spread and paired tests,
            see `vaearr.analysis.layers.compare_pairs`, and file names without a partner as the
            attribute ``unpaired``.

        Raises
        ------
        NoInputError
            If a sample or label does not exist, or if no file name has both labels.

        Examples
        --------
        >>> table = run.layers({"x": 2.0, "y": 1.5}, {"x": 9.0, "y": 7.0})
        >>> table.l2.dims
        ('layer',)
        """
        from vaearr.analysis.layers import compare_layers, compare_pairs
        from vaearr.run.draw import stored_sample
        from vaearr.schema.classes import paired_samples

        if isinstance(a, str) and isinstance(b, str):
            first, second, unpaired = paired_samples(self.ds, a, b)
            table = compare_pairs(self.model, first, second, top=top, progress=progress)
            table.attrs["unpaired"] = unpaired
        else:
            samples = stored_sample(self, a), stored_sample(self, b)
            table = compare_layers(self.model, *samples, top=top)
        return table.assign_attrs(self.result_attrs)

    def report(self, out: str | Path | None = None) -> Path:
        """Write a report of the run: a page that works offline, its figures and their numbers.

        The page starts with the verdict, the strongest findings and the latent maps. An existing
        report in the folder is replaced file by file, its record last.

        Parameters
        ----------
        out : str or Path, optional
            Folder of the report; default: ``<store without .zarr>.reports/<run>``.

        Returns
        -------
        Path
            The page ``index.html``; next to it are the figures in ``png/`` and ``svg/``, their numbers
            in ``data/`` (CSV), and ``report.json``.

        Raises
        ------
        NoInputError
            If the run is not encoded.
        ExistsError
            If the folder holds anything but a report.

        Examples
        --------
        >>> page = run.report()  # doctest: +SKIP
        """
        from vaearr.output.reporting import write_report

        return write_report(self, out)

    def explore(
        self,
        *,
        save: str | Path | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        show: bool = True,
        seed: int = 0,
        overwrite: bool = False,
    ) -> Any:
        """Serve an interactive page of the run until interrupted, or save it as one HTML file.

        The page shows maps and scatters of the samples, the selected sample, and what the decoder
        makes of latents that sliders set. In the saved file, which works without a network or a
        server, a slider moves one dimension at a time, over pictures that were decoded beforehand
        for the 64 dimensions of most importance.

        Parameters
        ----------
        save : str or Path, optional
            An .html file to write; nothing is served.
        port : int
            Port of the server; 0 takes a free one.
        host : str
            Address of this machine. Any other than a loopback address lets everyone in the network
            read the store through the page, and a warning says so.
        show : bool
            Open the page in the browser.
        seed : int
            Seed of the choice of the at most 5000 samples in the saved file.
        overwrite : bool
            Replace an existing file.

        Returns
        -------
        Path, server or None
            The saved file. In a notebook the server, which ``stop()`` ends; it runs as long as the
            kernel. Elsewhere None, after an interruption.

        Raises
        ------
        NoInputError
            If the run is not encoded, or the folder of the file does not exist.
        ExistsError
            If the file exists and `overwrite` is not set.
        UsageError
            If the host or port cannot be used, or the file does not end in .html.

        Examples
        --------
        >>> page = run.explore(save="scan.html")  # doctest: +SKIP
        """
        if save is not None:
            from vaearr.app.saved import save_page

            return save_page(self, save, seed=seed, overwrite=overwrite)
        from vaearr.app.serve import serve

        return serve(self, port=port, host=host, show=show)

    def export(
        self,
        out: str | Path,
        format: Literal["csv", "parquet", "npy", "png", "pdf", "seed0"] = "csv",
        *,
        variables: Sequence[str] = (),
        latents: Sequence[int] = (),
    ) -> Path:
        """Write the latents and maps of the store as plain files into a folder.

        Nothing is overwritten: a file with the same content stays, and one with other content is an
        error before anything is written.

        Parameters
        ----------
        out : str or Path
            Folder for the files.
        format : str
            ``"csv"``, ``"parquet"``: a row for each encoded sample, with step numbers x, y[, z],
            latents and variables. ``"npy"``: latents of every scan point (NaN outside the ROI) and
            of the ROI, with the step numbers of the rows. ``"png"``, ``"pdf"``: the sheet of latent
            maps, or a picture of each variable. ``"seed0"``: the files of the earlier programs.
        variables : sequence of str
            Further columns of a table, or the maps to draw.
        latents : sequence of int
            Latent dimensions; default: all.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        NoInputError
            If the run is not encoded, or a variable or latent dimension does not exist.
        UsageError
            For an unknown format, or a setting that means nothing for the format.
        ExistsError
            If the folder lies in a store, or holds a file with other content.
        MissingExtraError
            If a package that the format needs is not installed.

        Examples
        --------
        >>> folder = run.export("tables", variables=["BC"])
        >>> [path.name for path in folder.iterdir()]
        ['latents.csv']
        """
        from vaearr.output.exporting import export_run

        return export_run(self, out, format, variables=variables, latents=latents)

    def _settings(self, kind: type[C], config: C | None, values: Mapping[str, Any]) -> C:
        """Settings of a step of this run."""
        return resolved(kind, config, {**values, "run": self.name})

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        heading, *lines = map(escape, self._lines())
        rows = "".join(f"<tr><td>{line}</td></tr>" for line in lines)
        html = f"<b>{heading}</b><table>{rows}</table>"
        if self.manifest.get("kind") == n.ATTACHED:
            return html
        health = self.health.to_dataframe().to_html(float_format="{:.3g}".format)
        return f"{html}<details><summary>health</summary>{health}</details>"

    def _lines(self) -> list[str]:
        facts = run_facts(self.path, self.ds, self.name)
        return [
            f"<run {self.name!r} of {self.path}>",
            *run_lines(facts, schema.samples_word(self.ds)),
        ]


StoreOrRun = str | Path | xr.Dataset | Run


def load_run(
    store: StoreOrRun,
    run: str | None = None,
    *,
    device: str = "cpu",
    trust: str | Collection[str] = (),
) -> Run:
    """Open a run of a store.

    Parameters
    ----------
    store : str, Path, xarray.Dataset or Run
        Path of the store, or a Dataset that was opened from it. A Run is returned unchanged.
    run : str, optional
        Name of the run; default: "vae", or that of a Run.
    device : str
        Device of the network.
    trust : str or sequence of str
        Networks of your packages that the run may name, as `package.module:Name`. Other names in a
        store are refused, because loading them imports and runs that package.

    Returns
    -------
    Run
        The run. Nothing is read before it is used.

    Raises
    ------
    NoInputError
        If the store has no such run; the message lists those it has.
    UsageError
        If a Run of another name is given.

    Examples
    --------
    >>> run = va.load_run("scan.zarr")
    >>> run.latents.dims
    ('y', 'x', 'latent')
    """
    if isinstance(store, Run):
        if run not in (None, store.name):
            raise UsageError(
                f"the run {store.name!r} is given together with run={run!r}; leave one of them out."
            )
        return store
    run = n.DEFAULT_RUN if run is None else run
    path = store_of(store)
    run_folder(path, run)
    return Run(path, run, device=device, trust=trust)


def path_of(store: StoreOrRun) -> Path:
    """Path of a store."""
    return store.path if isinstance(store, Run) else store_of(store)


def _listed(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names as a setting."""
    if isinstance(names, str):
        return (names,)
    return None if names is None else tuple(names)
