"""Many pairs of samples through one network: each layer's differences, their mean and spread, and a paired test."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr.analysis.association.p_values import adjust
from vaearr.analysis.layers.compare import (
    LAYER,
    PAIR,
    TOP,
    Layer,
    check_part,
    layer_table,
    pair_batch,
    trace,
    with_maps,
)
from vaearr.analysis.layers.measures import LONG_NAMES, MEASURES
from vaearr.errors import DataError, UsageError, VaearrError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.hooks import LEAF

SHOWN = 8  # reasons in an error
ROUNDING = 1e-5  # relative change of a layer's size that is rounding, as where a normalisation fixes that size
LEVEL = 0.05  # of p-values that the warning about too few pairs speaks of
TESTS = {
    "rms_change_mean": "mean over pairs of rms_b - rms_a",
    "rms_change_std": "standard deviation over pairs of rms_b - rms_a",
    "effect_size": "rms_change_mean / rms_change_std",
    "t": "paired t statistic of rms_b - rms_a",
    "t_p_value": "two-sided p-value of the paired t-test",
    "t_p_adjusted": "p-value of the paired t-test, Holm over layers",
    "wilcoxon": "Wilcoxon signed-rank statistic of rms_b - rms_a",
    "wilcoxon_p_value": "two-sided p-value of the Wilcoxon signed-rank test",
    "wilcoxon_p_adjusted": "p-value of the Wilcoxon test, Holm over layers",
}


@dataclass(frozen=True)
class Pair:
    """Two samples with a name; `read` gives them `(a, b)` when their turn comes."""

    name: str
    read: Callable[[], tuple[Any, Any]]


@dataclass
class Gathered:
    """What has become of the pairs so far."""

    names: list[str] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    sums: list[np.ndarray] = field(default_factory=list)
    squares: list[torch.Tensor | None] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def add(self, name: str, layers: list[Layer]) -> None:
        """The layers of a further pair; their maps are summed. Raises DataError where the layers are others."""
        if not self.layers:
            self.layers, self.squares = layers, [layer.squares for layer in layers]
        elif [(one.label, one.shape) for one in layers] != [(one.label, one.shape) for one in self.layers]:
            raise DataError(f"pair {name!r} runs other layers than the first pair; compare it alone.")
        else:
            for i, layer in enumerate(layers):
                summed = self.squares[i]
                if summed is not None and layer.squares is not None:
                    self.squares[i] = summed + layer.squares
        self.names.append(name)
        self.sums.append(torch.stack([layer.sums for layer in layers]).cpu().numpy())


def compare_pairs(
    model: TrainedModel,
    pairs: Iterable[Pair | tuple[Any, Any]],
    *,
    part: str = "both",
    level: str = LEAF,
    top: int = TOP,
    skip_bad: bool = False,
    on_pair: Callable[[int], None] | None = None,
) -> xr.Dataset:
    """`compare_layers` for many pairs, one after the other, with mean, spread and a paired test for each layer.

    The differences l2, rms and so on are distances: they are never negative, so that a test of them against zero says
    nothing. What is tested is whether a layer answers more strongly to b than to a: the change rms_b - rms_a of its
    activation's root mean square over the pairs, by the paired t-test (the changes are about normal) and by the
    Wilcoxon signed-rank test (they are symmetric about their median), both two-sided, each corrected by Holm over the
    layers of encoder and decoder. The pairs are taken as independent; images of one person are not. A change of
    less than 1e-5 of the size is rounding and counts as 0; where no pair changes, t is 0 and p 1.

    Parameters
    ----------
    pairs : `(a, b)` of stored patterns, or a `Pair` each, read in its turn
    part, level, top : as for `compare_layers`; the maps are root mean squares over the pairs
    skip_bad : leave out pairs that cannot be read or do not fit
    on_pair : called with the number of pairs that are done

    Returns
    -------
    xr.Dataset
        The measures over `(pair, layer)`; `<measure>_mean`, `<measure>_std` (with n - 1) and `n_<measure>`, the number
        of pairs where it is finite, over `layer`; `rms_change_mean`, `rms_change_std`, `effect_size`, `t`, `wilcoxon`
        and their p-values, plain and adjusted. With one pair spreads and tests are NaN. Coordinates and maps as of
        `compare_layers`. attrs: `n`, `failed` (pairs left out, with the reason), `warnings`.

    Raises DataError where pairs cannot be read or do not fit (all named, unless `skip_bad` and some are left), and what
    `compare_layers` raises.
    """
    check_part(part, top)
    found = Gathered()
    total = 0
    for total, given in enumerate(pairs, 1):
        pair = given if isinstance(given, Pair) else Pair(str(total - 1), lambda given=given: given)  # type: ignore[misc]
        try:
            traced = trace(model, pair_batch(model, *pair.read()), part=part, level=level)
        except UsageError:
            raise
        except (VaearrError, OSError) as error:
            found.bad.append(f"{pair.name}: {error}")
        else:
            found.add(pair.name, traced.layers)
        if on_pair:
            on_pair(total)
    _refuse_bad(found, total, skip_bad=skip_bad)
    table = layer_table(found.layers, np.stack(found.sums), found.names)
    table = table.merge(_aggregates(table)).merge(_tests(table))
    squares = [None if square is None else square / len(found.names) for square in found.squares]
    table = with_maps(table, squares, model, top)
    return table.assign_attrs(
        part=part,
        level=level,
        top=top,
        n=len(found.names),
        failed=found.bad,
        warnings=_warnings(table),
    )


def _refuse_bad(found: Gathered, total: int, *, skip_bad: bool) -> None:
    if not total:
        raise DataError("there is no pair to compare; give one or more.")
    if found.bad and (not skip_bad or not found.names):
        listed = "; ".join(text.rstrip(".") for text in found.bad[:SHOWN])
        more = f"; and {len(found.bad) - SHOWN} more" if len(found.bad) > SHOWN else ""
        then = "correct them, or leave them out with skip_bad=True (--skip-bad)" if found.names else "none is left"
        raise DataError(f"{len(found.bad)} of {total} pairs cannot be compared: {listed}{more}. Of these: {then}.")


def _aggregates(table: xr.Dataset) -> xr.Dataset:
    out = {}
    for name in MEASURES:
        values, words = table[name].values, LONG_NAMES[name]
        known = np.isfinite(values)
        n = known.sum(0)
        mean = np.divide(np.where(known, values, 0.0).sum(0), n, out=np.full(len(n), np.nan), where=n > 0)
        off = np.where(known, values - mean, 0.0)
        std = np.full(len(n), np.nan)
        np.sqrt(np.divide((off**2).sum(0), n - 1, out=std, where=n > 1), out=std, where=n > 1)
        out[f"{name}_mean"] = (LAYER, mean, {"long_name": f"{words}, mean over pairs", "units": "1"})
        out[f"{name}_std"] = (LAYER, std, {"long_name": f"{words}, standard deviation over pairs", "units": "1"})
        out[f"n_{name}"] = (LAYER, n, {"long_name": f"pairs with a finite {name}"})
    return xr.Dataset(out)


def _tests(table: xr.Dataset) -> xr.Dataset:
    one, two = (table[name].transpose(PAIR, LAYER).values for name in ("rms_a", "rms_b"))
    change = two - one
    values = paired_tests(np.where(np.abs(change) <= ROUNDING * np.maximum(one, two), 0.0, change))
    for kind in ("t", "wilcoxon"):
        p = np.where(
            np.isin(table["part"].values.astype(str), ("encoder", "decoder")), values[f"{kind}_p_value"], np.nan
        )
        values[f"{kind}_p_adjusted"] = adjust(p, "holm")
    return xr.Dataset(
        {name: (LAYER, values[name], {"long_name": words, "units": "1"}) for name, words in TESTS.items()}
    )


def paired_tests(change: np.ndarray) -> dict[str, np.ndarray]:
    """Two-sided paired t-test and Wilcoxon signed-rank test of changes `(pair, layer)` for each layer `(layer,)`.

    t = mean / (std / sqrt(n)) with n - 1 degrees of freedom; Wilcoxon, Biometrics Bulletin 1, 80 (1945), zeros left
    out, with its exact distribution for few pairs without ties. All NaN with fewer than two pairs; where every change
    is 0, t is 0 and both p are 1.
    """
    from scipy import stats

    n, n_layers = change.shape
    names = [name for name in TESTS if not name.endswith("_adjusted")]
    found = {name: np.full(n_layers, np.nan) for name in names}
    found["rms_change_mean"] = change.mean(0)
    if n < 2:
        return found
    mean, std = change.mean(0), change.std(0, ddof=1)
    found["rms_change_std"] = std
    none = (change == 0).all(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(std > 0, mean / std, np.nan)
    found["effect_size"] = np.where(none, 0.0, effect)
    found["t"] = found["effect_size"] * np.sqrt(n)
    found["t_p_value"] = 2 * stats.t.sf(np.abs(found["t"]), n - 1)
    for i in range(n_layers):
        if none[i]:
            found["wilcoxon"][i], found["wilcoxon_p_value"][i] = 0.0, 1.0
        elif np.isfinite(change[:, i]).all():
            with warnings.catch_warnings():  # of few pairs, which is said once for all layers
                warnings.simplefilter("ignore")
                test: Any = stats.wilcoxon(change[:, i])
            found["wilcoxon"][i], found["wilcoxon_p_value"][i] = test.statistic, test.pvalue
    return found


def _warnings(table: xr.Dataset) -> list[str]:
    n = table.sizes[PAIR]
    if n < 2:
        return ["one pair has no spread and allows no test: these are NaN; give two pairs or more."]
    m = int(np.isfinite(table["wilcoxon_p_adjusted"]).sum())
    least = min(1.0, m * 2.0 ** (1 - n))
    if least > LEVEL:
        return [
            f"with {n} pairs and {m} layers no adjusted p-value of the Wilcoxon test can be below {least:.2g}; "
            "give more pairs, or compare blocks instead of single layers."
        ]
    return []
