"""What identifies stored values, and checks of their chunks.

Each chunk file that vaearr writes ends with a checksum of its content (CRC32C, or that of zstd). A
fingerprint is computed from these, so it costs one short read per chunk and is the same for a copy
of the store. Recipes hold the fingerprints of the inputs of a result. Patterns changed by lazy steps
are identified by samples instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DamagedError, DataError, UsageError
from vaearr.recipe import FINGERPRINTS, nested
from vaearr.schema.grid import to_samples
from vaearr.schema.pattern_steps import STEPS
from vaearr.store.folders import PART, file_sizes, has_file, sha256_of
from vaearr.store.layout import chunks_of
from vaearr.store.listing import SEAL, attributes_of, read_metadata
from vaearr.store.paths import METADATA

VALUE_METADATA = ("shape", "data_type", "chunk_grid", "codecs", "fill_value")
CHECKSUM_BYTES = 4
IDENTITY_SAMPLES = 16
IDENTITY_TOLERANCE = 1e-3  # relative and absolute difference that another machine may cause


def variable_fingerprint(store: Path, name: str) -> str:
    """Identify the stored values of a variable.

    Parameters
    ----------
    store
        The folder of a store.
    name
        A variable or coordinate of the store.

    Returns
    -------
    str
        A hash of the array's shape, type and codecs, and of size and checksum of each chunk.

    Raises
    ------
    DamagedError
        If a chunk is missing or empty.
    """
    folder = store / name
    array = zarr.open_array(folder, mode="r", zarr_format=3)
    sizes = check_chunks(store, name, array)
    metadata = read_metadata(folder)
    codecs = json.dumps(metadata["codecs"][-1:])
    has_checksum = '"crc32c"' in codecs or '"checksum": true' in codecs
    array_type = {key: metadata.get(key) for key in VALUE_METADATA}
    values = hashlib.sha256(json.dumps(array_type, sort_keys=True).encode())
    for chunk in sorted(chunk_files(sizes)):
        values.update(f"{chunk} {sizes[chunk]} ".encode())
        if has_checksum:
            with (folder / chunk).open("rb") as file:
                file.seek(max(0, sizes[chunk] - CHECKSUM_BYTES))
                values.update(file.read())
        else:
            values.update(sha256_of(folder / chunk).encode())
    return values.hexdigest()[:32]


def check_chunks(store: Path, name: str, array: zarr.Array) -> dict[str, int]:
    """Raise DamagedError for a chunk that is missing or empty; return the sizes of all files.

    A chunk may be missing from an array without checksums: plain xarray leaves out those that hold
    nothing but the fill value.
    """
    has_file(store, name)
    sizes = file_sizes(store / name)
    expected: Iterable[str] = chunk_files(sizes)
    if SEAL in sizes:
        expected = (chunk for chunk, _ in chunks_of(array))
    for chunk in expected:
        if sizes.get(chunk):
            continue
        key = f"{name}/{chunk}"
        problem = "is empty" if has_file(store, key) else "is missing"
        raise damaged(store, key, problem)
    return sizes


def chunk_files(names: Iterable[str]) -> list[str]:
    """Return those of an array's files that are chunks."""
    return [name for name in names if name not in (METADATA, SEAL) and not name.endswith(PART)]


def undecodable(array: zarr.Array) -> Iterator[tuple[str, str]]:
    """Yield each chunk of an array that cannot be decoded, and the reason."""
    for chunk, region in chunks_of(array):
        try:
            array[region]
        except Exception as error:  # codecs have errors of their own
            yield chunk, " ".join(str(error).split())[:160]


def damaged(store: Path | str, key: str, problem: str) -> DamagedError:
    """Return the error for a damaged file of a store."""
    return DamagedError(
        f"{store} is damaged: {key} {problem}; 'vaearr verify {store}' says what to do, or restore "
        "it from a copy."
    )


def check_patterns(store: Path) -> str:
    """Return the fingerprint of the patterns. Raises DamagedError if they were changed."""
    recorded = attributes_of(store / n.RUNS).get(n.PATTERNS_FINGERPRINT)
    present = variable_fingerprint(store, n.PATTERNS)
    if recorded in (None, present):  # None: a store of an earlier version
        return present
    raise DamagedError(
        f"the patterns of {store} were changed since they were ingested ('vaearr verify {store}' "
        "names them); restore them from a copy, or accept the new values with "
        f"'vaearr verify {store} --seal' and train again."
    )


def check_inputs(store: Path, names: Collection[str]) -> dict[str, str]:
    """Check that variables are current, and return their fingerprints, for a recipe.

    Names that do not exist in the store are left out.

    Raises
    ------
    DamagedError
        If the patterns are not those that were ingested, or a chunk is missing.
    DataError
        If one of the variables was created from values that have changed since.
    """
    fingerprints = {n.PATTERNS: check_patterns(store)}  # checked even if not named
    for name in names:
        _check_input(store, name, fingerprints)
    return {name: fingerprints[name] for name in names if name in fingerprints}


def _check_input(store: Path, name: str, fingerprints: dict[str, str]) -> None:
    """Add the fingerprints of a variable and of all its inputs, after a check of each."""
    if name in fingerprints or not has_file(store, f"{name}/{METADATA}"):
        return
    fingerprints[name] = variable_fingerprint(store, name)
    recipe = nested(attributes_of(store / name), n.PROVENANCE)
    inputs: Mapping[str, Any] = {}
    if isinstance(recipe, Mapping):
        inputs = recipe.get(FINGERPRINTS) or {}
    for source, fingerprint in inputs.items():
        _check_input(store, source, fingerprints)
        if fingerprints.get(source, fingerprint) != fingerprint:
            raise DataError(
                f"{name!r} of {store} was created from other inputs: {source} changed since; "
                f"create {name!r} again with --overwrite (overwrite=True), or restore {source} "
                "from a copy."
            )


def sampled_identity(ds: xr.Dataset, roi: xr.DataArray) -> dict[str, Any]:
    """Identify the patterns of a Dataset with lazy steps by a few of them, spread over a region.

    Parameters
    ----------
    ds
        The patterns.
    roi
        Boolean map over the navigation dims, of the complete grid of the store.

    Returns
    -------
    dict
        Shape and dtype of a sample, mean and standard deviation of each chosen pattern, and the
        recorded steps.

    Raises
    ------
    UsageError
        If the Dataset lacks chosen points.
    DataError
        If a chosen pattern holds NaN or infinite values.
    """
    samples = to_samples(roi, roi)
    n_chosen = min(IDENTITY_SAMPLES, samples.size)
    numbers = np.linspace(0, samples.size - 1, n_chosen).astype(int)
    points = {dim: samples[dim][numbers] for dim in roi.dims}
    try:
        chosen = ds[n.PATTERNS].sel(points).transpose(n.SAMPLE, ...)
    except KeyError:
        raise UsageError(
            "the Dataset lacks points of the run's region; give the whole region."
        ) from None
    rows = chosen.values.reshape(n_chosen, -1).astype("f8")
    is_damaged = ~np.isfinite(rows).all(1)
    if is_damaged.any():
        point = [f"{dim} = {values.values[is_damaged][0]}" for dim, values in points.items()]
        raise DataError(
            f"patterns of the region hold NaN or infinite values, such as at {', '.join(point)}; "
            "leave these points out, or check whether a step gave the patterns new coordinates: "
            "values assigned to a Dataset are aligned with its old coordinates (use ds.drop_dims "
            "before, or vaearr.schema.pattern_steps, which does)."
        )
    return {
        "sample_shape": list(schema.input_shape(ds)),
        "dtype": str(ds[n.PATTERNS].dtype),
        "mean": rows.mean(1).tolist(),
        "std": rows.std(1).tolist(),
        "steps": nested(ds[n.PATTERNS].attrs, STEPS),
    }


def same_patterns(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two sampled identities are of the same patterns."""
    for key in ("sample_shape", "dtype"):
        if first[key] != second[key]:
            return False
    moments = np.array([first["mean"], first["std"]])
    others = np.array([second["mean"], second["std"]])
    if moments.shape != others.shape:
        return False
    return np.allclose(moments, others, IDENTITY_TOLERANCE, IDENTITY_TOLERANCE)
