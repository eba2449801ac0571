"""The pictures of what is chosen, drawn on canvases by one light element; under the pointer their values are shown."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import param
from panel.custom import JSComponent

from vaearr.app.figures import GREY_LIMITS
from vaearr.app.raster import block_mean
from vaearr.plots.common import robust_limits

MOST_SIDE = 400  # pixels sent of a picture along its longer side; a larger one in block means

STYLE = """
:host { display: block; color: var(--ink); font: 12px system-ui, sans-serif; }
.all { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 8px; max-width: 872px; }
figure { margin: 0; min-width: 0; }
figcaption { height: 18px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-weight: 600; }
.frame { aspect-ratio: 1; display: grid; place-items: center; background: var(--bar); }
canvas { max-width: 100%; max-height: 100%; image-rendering: pixelated; display: block; }
canvas[hidden] { display: none; }
"""

DRAW = """
function draw(canvas, { height = 0, width = 0, low, high, values, channels }) {
  canvas.hidden = !width;
  if (!width) { canvas.shown = null; return; }
  const given = new Float32Array(values), context = canvas.getContext("2d");
  canvas.width = width; canvas.height = height;
  canvas.style[width >= height ? "width" : "height"] = "100%";
  canvas.style[width >= height ? "height" : "width"] = "auto";
  const image = context.createImageData(width, height), scale = 255 / (high - low);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = scale * (given[channels === 3 ? 3 * i + c : i] - low);
    }
    image.data[4 * i + 3] = Number.isNaN(given[channels === 3 ? 3 * i : i]) ? 0 : 255;
  }
  context.putImageData(image, 0, 0);
  canvas.shown = { values: given, height, width, channels, at: performance.now() };
}
"""

SCRIPT = """
export function render({ model }) {
  const all = document.createElement("div");
  all.className = "all";
  for (const [name, heading] of Object.entries(model.headings)) {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    const frame = document.createElement("div"), canvas = document.createElement("canvas");
    frame.className = "frame"; caption.textContent = heading;
    canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", heading);
    frame.append(canvas); figure.append(caption, frame); all.append(figure);
    canvas.onmousemove = (event) => {
      const box = canvas.getBoundingClientRect(), { values, width, height, channels } = canvas.shown;
      const x = Math.min(width - 1, Math.floor((event.clientX - box.left) / box.width * width));
      const y = Math.min(height - 1, Math.floor((event.clientY - box.top) / box.height * height));
      const at = channels * (y * width + x);
      caption.textContent = `(${y}, ${x}): ${Array.from(values.slice(at, at + channels), (v) => +v.toPrecision(4))}`;
    };
    canvas.onmouseleave = () => { caption.textContent = heading; };
    const show = () => draw(canvas, model[name] ?? {});
    show();
    model.on(name, show);
  }
  return all;
}
"""

HEADINGS = {
    "stored": "as stored", "seen": "as the network sees it", "rebuilt": "reconstruction", "live": "from the sliders",
}  # fmt: skip


def packed(image: np.ndarray, limits: tuple[float, float] | None = None, *, most: int = MOST_SIDE) -> dict[str, Any]:
    """A picture as `draw` takes it."""
    low, high = limits or robust_limits(image, GREY_LIMITS)
    factor = -(-max(image.shape[:2]) // most)
    image = np.ascontiguousarray(block_mean(image, factor) if factor > 1 else image, "<f4")
    found = {"height": image.shape[0], "width": image.shape[1], "channels": 3 if image.ndim == 3 else 1}
    return found | {"low": low, "high": high, "values": image.tobytes()}


class Pictures(JSComponent):
    """Pictures by name. `put` and `clear` change them."""

    headings = param.Dict(doc="name -> heading of those that are there")
    stored = param.Dict(default={})
    seen = param.Dict(default={})
    rebuilt = param.Dict(default={})
    live = param.Dict(default={})

    _esm = DRAW + SCRIPT
    _stylesheets: ClassVar[Any] = [STYLE]

    def put(self, name: str, image: np.ndarray, limits: tuple[float, float] | None = None) -> None:
        """Show `(H, W)` or `(H, W, 3)` between two limits, by default its 0.5 % and 99.5 % percentile."""
        setattr(self, name, packed(image, limits))

    def clear(self, name: str) -> None:
        """Show nothing there."""
        setattr(self, name, {})
