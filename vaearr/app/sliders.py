"""All latent dimensions as one light element: a slider each, over the store's spread, with the chosen sample's value.

A move is sent when the one before has been answered, with the values as they stand by then: a fast drag never queues.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import param
from panel.custom import JSComponent

STYLE = """
:host { display: block; color: var(--ink); font: 12px system-ui, sans-serif; }
.all { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 0 12px; overflow-y: auto;
  max-height: var(--sliders-height, 400px); padding: 2px 4px; }
.row { display: grid; grid-template-columns: 28px minmax(0, 1fr) 42px; align-items: center; height: 24px; gap: 11px; }
button { font: inherit; color: inherit; background: none; border: 1px solid transparent; border-radius: 3px;
  padding: 1px 3px; cursor: pointer; text-align: right; }
button:hover { border-color: var(--line); }
.row output { margin-left: -6px; }
.row.shown button { border-color: var(--accent); font-weight: bold; }
.lane { position: relative; height: 22px; }
.band { position: absolute; top: 4px; height: 14px; background: var(--band); border-radius: 2px; }
.at { position: absolute; top: 0; height: 22px; width: 3px; margin-left: -1.5px; background: var(--mark); }
input { position: absolute; left: -7px; width: calc(100% + 14px); top: 2px; height: 18px; margin: 0; background: none;
  appearance: none; -webkit-appearance: none; }
input::-webkit-slider-runnable-track { height: 4px; border-radius: 2px; background: var(--line); }
input::-moz-range-track { height: 4px; border-radius: 2px; background: var(--line); }
input::-webkit-slider-thumb { -webkit-appearance: none; width: 14px; height: 14px; margin-top: -5px; border-radius: 7px;
  background: var(--accent); border: 2px solid var(--paper); box-sizing: border-box; }
input::-moz-range-thumb { width: 12px; height: 12px; border-radius: 8px; background: var(--accent);
  border: 2px solid var(--paper); }
input:focus-visible, button:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
input:disabled { opacity: 0; }
output { text-align: right; font-variant-numeric: tabular-nums; }
"""

SCRIPT = """
export function render({ model }) {
  const all = document.createElement("div");
  all.className = "all";
  const low = model.low.slice(), high = model.high.slice();
  let waiting = false, waits = false;
  const send = () => {
    if (waiting) { waits = true; return; }
    waiting = true; waits = false;
    model.send_msg({ epoch: model.epoch, moved: rows.map((row) => row.value) });
  };
  const place = (i, value) => `${100 * Math.min(1, Math.max(0, (value - low[i]) / (high[i] - low[i])))}%`;
  const words = (value) => value.toFixed(2).replace("-", "\\u2212");
  const rows = low.map((_, i) => {
    const row = document.createElement("div"); row.className = "row";
    const name = document.createElement("button");
    name.textContent = i; name.title = `show latent ${i} in the map`; name.setAttribute("aria-label", name.title);
    name.tabIndex = -1;
    name.onclick = () => { model.send_msg({ wanted: i }); };
    const lane = document.createElement("div"); lane.className = "lane";
    const band = document.createElement("div"); band.className = "band"; band.title = "mean \\u00b1 1 std of the store";
    const at = document.createElement("div"); at.className = "at";
    const input = document.createElement("input");
    input.type = "range"; input.setAttribute("aria-label", `latent ${i}`); input.disabled = model.fixed;
    const output = document.createElement("output");
    const found = { row, at, input, output, value: 0 };
    input.oninput = () => { found.value = +input.value; output.textContent = words(found.value); send(); };
    lane.append(band, at, input); row.append(name, lane, output); all.append(row);
    found.fit = (value) => {
      low[i] = Math.min(low[i], value); high[i] = Math.max(high[i], value);
      input.min = low[i]; input.max = high[i]; input.step = (high[i] - low[i]) / 200;
      band.style.left = place(i, model.band[0][i]);
      band.style.width = `calc(${place(i, model.band[1][i])} - ${place(i, model.band[0][i])})`;
    };
    return found;
  });
  const show = () => {
    model.values.forEach((value, i) => {
      const row = rows[i];
      row.fit(value); row.value = value; row.input.value = value; row.output.textContent = words(value);
    });
  };
  const sample = () => rows.forEach((row, i) => {
    const value = model.sample[i];
    row.at.hidden = value === undefined || !Number.isFinite(value);
    if (!row.at.hidden) { row.fit(value); row.at.style.left = place(i, value); row.input.value = row.value; }
  });
  const shown = () => rows.forEach((row, i) => row.row.classList.toggle("shown", i === model.shown));
  const answered = () => { waiting = false; if (waits) send(); };
  show(); sample(); shown();
  const watch = { values: show, epoch: show, sample, shown, answered };
  for (const [name, call] of Object.entries(watch)) model.on(name, call);
  return all;
}
"""


class Sliders(JSComponent):
    """Sliders of all dimensions.

    They send messages (`on_msg`): `{"epoch", "moved"}`, the values after a move, for `take`, whereupon `answered` is to
    be raised; and `{"wanted"}`, a dimension to show in the map.
    """

    low = param.List()
    high = param.List()
    band = param.List(doc="mean - std and mean + std of each dimension over the store")
    values = param.List(doc="values that the page sets")
    sample = param.List(doc="values of the chosen sample, empty for none")
    shown = param.Integer(-1, doc="dimension that the map shows, -1 for none")
    epoch = param.Integer(0, doc="how often the page has set the values")
    answered = param.Integer(0)
    fixed = param.Boolean(False)

    _esm = SCRIPT
    _stylesheets: ClassVar[Any] = [STYLE]

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.vector = np.array(self.values, np.float64)  # what the sliders show

    def take(self, message: dict[str, Any]) -> bool:
        """Take the values of a move; False for one made before the page set the values anew, which is void."""
        is_current = bool(message["epoch"] == self.epoch)
        if is_current:
            self.vector = np.array(message["moved"], np.float64)
        return is_current

    def to(self, vector: np.ndarray) -> None:
        """Set all sliders; a move that is under way is void."""
        self.vector = np.array(vector, np.float64)
        self.param.update(values=[float(v) for v in vector], epoch=self.epoch + 1)
