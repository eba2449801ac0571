"""The sample under the pointer, in a small frame that goes with it: as stored, and decoded from its latents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import param
from bokeh.events import MouseLeave, MouseMove
from panel.custom import JSComponent

from vaearr.app.pictures import DRAW, packed

REST = 60  # milliseconds that the pointer rests before what is under it is shown
SIDE = 128  # pixels of a picture

At = Callable[[float, float], int | None]

STYLE = """
.frame { position: fixed; z-index: 9; pointer-events: none; padding: 4px; border: 1px solid var(--line);
  border-radius: 4px; background: var(--paper); color: var(--ink); font: 12px system-ui, sans-serif; }
.both { display: flex; gap: 4px; }
.one { width: 128px; height: 128px; display: grid; place-items: center; background: var(--bar); }
.words { width: 0; min-width: max(100%, 132px); max-height: 32px; overflow: hidden; overflow-wrap: anywhere; }
canvas { max-width: 100%; max-height: 100%; image-rendering: pixelated; display: block; }
[hidden] { display: none !important; }
"""

SCRIPT = """
export function render({ model }) {
  const frame = document.createElement("div"), both = document.createElement("div");
  const words = document.createElement("div");
  frame.className = "frame"; both.className = "both"; words.className = "words";
  frame.append(words, both);
  const canvases = ["stored", "decoded"].map((name) => {
    const one = document.createElement("div"), canvas = document.createElement("canvas");
    one.className = "one"; canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", `pointer: ${name}`);
    one.append(canvas); both.append(one);
    return canvas;
  });
  const at = { x: 0, y: 0, pressed: false };
  const place = () => {
    frame.hidden = !model.words || at.pressed;
    const right = at.x + 16 + frame.offsetWidth > innerWidth ? at.x - 16 - frame.offsetWidth : at.x + 16;
    frame.style.left = `${right}px`;
    frame.style.top = `${Math.max(0, Math.min(at.y + 16, innerHeight - frame.offsetHeight))}px`;
  };
  const show = () => {
    words.textContent = model.words;
    canvases.forEach((canvas, i) => {
      const picture = model.pictures[i];
      draw(canvas, picture ?? {});
      canvas.parentElement.hidden = !picture;
    });
    place();
  };
  const moved = (event) => {
    Object.assign(at, { x: event.clientX, y: event.clientY, pressed: event.buttons > 0 });
    place();
  };
  addEventListener("pointermove", moved, { capture: true });
  addEventListener("pointerdown", moved, { capture: true });
  show();
  model.on("pictures", show);
  return frame;
}
"""


class Preview(JSComponent):
    """The frame; it hides where there are no words."""

    words = param.String("")
    pictures = param.List(doc="as stored and decoded, packed")

    _esm = DRAW + SCRIPT
    _stylesheets: ClassVar[Any] = [STYLE]


class Pointer:
    """Fills the frame with the sample that the pointer rests at: `sample` gives its words and pictures.

    later: calls after so many milliseconds. safe: guards a call against errors.
    """

    def __init__(
        self,
        sample: Callable[[int], tuple[str, list[np.ndarray]]],
        later: Callable[[Callable[[], None], int], None],
        safe: Callable[..., Callable[[], None]],
    ) -> None:
        self.sample, self.later, self.show = sample, later, safe(self._show)
        self.frame = Preview(width=0, height=0, margin=0)
        self.place: tuple[At, float, float] | None = None
        self.waits = False
        self.shown: int | None = None

    def over(self, figure: Any, at: At) -> None:
        """Follow the pointer over a figure, where `at` tells the sample at a place."""
        figure.on_event(MouseMove, lambda event: self._moved((at, event.x, event.y)))
        figure.on_event(MouseLeave, lambda _: self._moved(None))

    def _moved(self, place: tuple[At, float, float] | None) -> None:
        self.place = place
        if not self.waits:
            self.waits = True
            self.later(partial(self._look, place), REST)

    def _look(self, before: tuple[At, float, float] | None) -> None:
        if self.place is not None and self.place != before:  # it still moves
            self.later(partial(self._look, self.place), REST)
            return
        self.waits = False
        self.show()

    def _show(self) -> None:
        found = None
        if self.place is not None:
            at, x, y = self.place
            found = at(x, y)
        if found != self.shown:
            words, pictures = ("", []) if found is None else self.sample(found)
            self.frame.param.update(words=words, pictures=[packed(one, most=SIDE) for one in pictures])
            self.shown = found
