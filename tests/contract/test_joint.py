"""Distance correlation without its bias, of all latents together, and given other maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr.errors import RoiError, UsageError

SIDE = 24


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    """Latents of which the first two tell `sign` only together, and the fourth follows BC;
    `like_bc` follows BC too.
    """
    rng = np.random.default_rng(0)
    z, noise = rng.normal(size=(SIDE, SIDE, 4)), rng.normal(size=(3, SIDE, SIDE))
    z[..., 3] = noise[0] + 0.3 * z[..., 3]
    maps = {
        "BC": noise[0],
        "sign": np.sign(z[..., 0] * z[..., 1]),
        "like_bc": noise[0] + 0.3 * noise[1],
        "none": noise[2],
    }
    return xr.Dataset(
        {"latents": (("y", "x", "latent"), z)} | {k: (("y", "x"), v) for k, v in maps.items()}
    )


def u_centred(values: np.ndarray) -> np.ndarray:
    """Distances of rows, U-centred: Szekely & Rizzo 2014, definition 2."""
    a = np.linalg.norm(values[:, None] - values[None], axis=-1)
    n = len(a)
    out = a - a.sum(0) / (n - 2) - a.sum(1)[:, None] / (n - 2) + a.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(out, 0)
    return out


def dense(x: np.ndarray, y: np.ndarray) -> float:
    a, b = u_centred(x), u_centred(y)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def test_values_are_those_of_the_formulae(ds: xr.Dataset) -> None:
    n_threads = torch.get_num_threads()
    x = ds.latents.values.reshape(-1, 4)
    column = {name: ds[name].values.reshape(-1, 1) for name in ("BC", "sign", "like_bc")}
    each = va.associate(
        ds.latents, ds[["sign", "like_bc"]], metrics="distance_correlation_unbiased"
    )
    for name in ("sign", "like_bc"):
        for i in range(4):
            found = float(each.sel(target=name, latent=i).item())
            assert found == pytest.approx(dense(x[:, i : i + 1], column[name]), abs=1e-9)
    table = va.associate_jointly(ds.latents, ds[["sign", "like_bc"]], given=ds.BC)
    for name in ("sign", "like_bc"):
        xy, xz, yz = (
            dense(x, column[name]),
            dense(x, column["BC"]),
            dense(column[name], column["BC"]),
        )
        partial = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
        found = table["association"].sel(target=name, latent="all").values
        np.testing.assert_allclose(found, [xy, partial], atol=1e-9)
    assert torch.get_num_threads() == n_threads, "numba has changed it"


def test_what_two_latents_tell_together_is_found_and_what_bc_explains_is_taken_off(
    ds: xr.Dataset,
) -> None:
    table = va.associate_jointly(ds.latents, ds[["sign", "like_bc", "none"]], given=ds.BC)
    one, given = table["association"].isel(latent=0)
    each = va.associate(ds.latents, ds.sign, metrics="distance_correlation_unbiased")
    assert float(one.sel(target="sign")) > 3 * float(each.max())
    assert (
        float(table["p_value"].sel(target="sign")[0, 0])
        < 1e-6
        < 0.01
        < float(table["p_value"].sel(target="none")[0, 0])
    )
    assert float(given.sel(target="like_bc")) < 0.2 * float(one.sel(target="like_bc"))
    assert any("sign" in line.split() and "all" in line.split() for line in va.describe(table))


def test_few_points_are_a_seeded_choice(ds: xr.Dataset) -> None:
    first, same, other = (
        va.associate_jointly(ds.latents, ds.sign, max_points=100, seed=seed) for seed in (0, 0, 1)
    )
    assert int(first["n"][0]) == 100
    xr.testing.assert_identical(first, same)
    assert not np.allclose(first["association"], other["association"])


def test_refusals(ds: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="given is 'place'"):
        va.associate_jointly(ds.latents, ds.sign, given="place")  # type: ignore[arg-type]
    with pytest.raises(RoiError, match="'BC' has 0 points"):
        va.associate_jointly(ds.latents, ds.BC.where(ds.BC > 99))
    with pytest.raises(UsageError, match="max_points is 3"):
        va.associate_jointly(ds.latents, ds.BC, max_points=3)
