"""A layer-wise comparison in a few lines of text."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr.layers.compare import LATENT, LAYER, OUTPUT, PAIR, TOP, top_layers
from vaearr.layers.pairs import LEVEL

LETTERS = 48  # of a layer's name


def layer_lines(found: xr.Dataset) -> list[str]:
    """The layers that differ most as a table, largest relative L2 first; then latent and output."""
    is_many = PAIR in found.dims
    top = top_layers(found, int(found.attrs.get("top", TOP)))
    of = f"{found.sizes[PAIR]} pairs, mean ± std" if is_many else "one pair"
    names = [_brief(str(name)) for name in found[LAYER].values]
    kinds = found["kind"].values.astype(str)
    width = max([len(names[i]) for i in top] + [6])
    kind = max([len(kinds[i]) for i in top] + [6])
    head = f"{'layer':<{width}}  {'class':<{kind}}  part     order  {'relative L2':>17}"
    head += f"  {'L2':>10}  {'RMS':>9}  {'cosine':>7}"
    lines = [f"layers that differ most, of {found.sizes[LAYER]} ({of})", head + ("  p (t, Holm)" if is_many else "")]
    lines += [_line(found, i, names[i], width, kind) for i in top]
    parts = found["part"].values.astype(str)
    lines += [_line(found, int(i), names[i], width, kind) for i in np.flatnonzero(np.isin(parts, (LATENT, OUTPUT)))]
    if is_many:
        for name, test in (("t_p_adjusted", "paired t-test"), ("wilcoxon_p_adjusted", "Wilcoxon signed-rank test")):
            p = found[name].values
            tested, clear = int(np.isfinite(p).sum()), int((p[np.isfinite(p)] < LEVEL).sum())
            lines.append(
                f"{test} of the change of a layer's RMS, b - a: {clear} of {tested} layers below {LEVEL:g} after Holm"
            )
    return lines


def _line(found: xr.Dataset, i: int, name: str, width: int, kind_width: int) -> str:
    end, is_many = ("_mean", True) if PAIR in found.dims else ("", False)
    l2, rms, cosine = (float(found[f"{measure}{end}"][i]) for measure in ("l2", "rms", "cosine"))
    relative = f"{float(found[f'relative_l2{end}'][i]):.4f}"
    if is_many:
        relative += f" ± {float(found['relative_l2_std'][i]):.4f}"
    part, order, kind = str(found["part"].values[i]), int(found["order"][i]), str(found["kind"].values[i])
    line = f"{name:<{width}}  {kind:<{kind_width}}  {part:<7}  {order:>5}  {relative:>17}"
    line += f"  {l2:>10.4g}  {rms:>9.4g}  {cosine:>7.4f}"
    p = float(found["t_p_adjusted"][i]) if is_many else np.nan
    return line + (f"  {p:>11.3g}" if np.isfinite(p) else "")


def _brief(name: str) -> str:
    return name if len(name) <= LETTERS else f"…{name[-LETTERS + 1 :]}"
