"""The script of a saved page: its figures, pictures and selects. Texts of the store go in as text, never as HTML."""

from __future__ import annotations

from vaearr.app.saved_controls import SLIDERS, TABLES

VIEW = r"""
(async () => {
const $ = (id) => document.getElementById(id);
const P = JSON.parse($("data").textContent);
if (!window.DecompressionStream) {
  $("count").textContent = "this browser cannot unpack the page; use a newer one";
  return;
}

// ---- unpacking
const inflate = async (text) => new Uint8Array(await new Response(
  new Blob([unbase64(text)]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
const floats = (text) => new Float32Array(unbase64(text).buffer);
const atPoints = async (o) => {
  const q = new Uint16Array((await inflate(o.points)).buffer), step = (o.high - o.low) / 65534;
  return Float32Array.from(q, (v) => (v === 65535 ? NaN : o.low + v * step));
};
const summed = (bytes, width, every) => {  // differences along rows of `width` values of `every` channels
  for (let row = 0; row < bytes.length; row += width * every)
    for (let i = row + every; i < row + width * every; i++) bytes[i] = (bytes[i] + bytes[i - every]) & 255;
  return bytes;
};
const pictures = async (text, [, width, channels]) => summed(await inflate(text), width, channels);
const element = (tag, text, about = {}) => Object.assign(document.createElement(tag), { textContent: text }, about);
const options = (select, words) =>
  select.replaceChildren(...words.map((w, i) => element("option", w, { value: String(i) })));
const digits = (v) => (Number.isFinite(v) ? String(Number(v.toPrecision(3))).replace("-", "\u2212") : "none");

const doc = await new Promise((found) => {
  const wait = setInterval(() => {
    const d = window.Bokeh?.documents?.[0];
    if (d?.is_idle) { clearInterval(wait); found(d); }
  }, 20);
});
const [map, plane, histogram, points, colors, cells, mark, bars] =
  ["map", "plane", "histogram", "points", "colors", "cells", "mark", "bars"].map((name) => doc.get_model_by_name(name));
const V = await Promise.all(P.layers.map(atPoints));
const axes = P.layers.map((l, i) => ({ title: l.title, values: V[i] })).filter((a, i) => !P.layers[i].names.length);
for (const s of P.scores) axes.push({ title: s.title, values: await atPoints(s) });
const words = JSON.parse(new TextDecoder().decode(await inflate(P.words)));
const n = P.numbers.length, L = P.dims, M = P.map, D = P.decoding;
const state = { layer: P.layer, chosen: 0, depth: 0, selected: [], found: -1 };

// ---- light and dark
const themed = (dark) => {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "light" : "dark";
  const ink = dark ? "#e6eaee" : "#1d242b", line = dark ? "#5b6670" : "#a9b4be";
  for (const f of [map, plane, histogram]) if (f) {
    f.setv({ outline_line_color: line });
    f.title.setv({ text_color: ink });
    for (const axis of [...f.below, ...f.left]) axis.setv({ axis_label_text_color: ink, major_label_text_color: ink,
      axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null });
    for (const grid of f.center) if (grid.type === "Grid") grid.setv({ grid_line_color: line });
    for (const bar of f.right) bar.setv({ major_label_text_color: ink, major_tick_line_color: ink });
  }
};
const wants = window.matchMedia("(prefers-color-scheme: dark)");
themed(wants.matches);
wants.addEventListener("change", () => themed(wants.matches));
$("theme").addEventListener("click", () => themed(document.documentElement.dataset.theme !== "dark"));

// ---- map, points, colours
const place = () => {  // of points on the map; those of other layers are nowhere
  const mx = new Float32Array(n).fill(NaN), my = new Float32Array(n).fill(NaN);
  if (M) for (let i = 0; i < n; i++) {
    const cell = P.numbers[i], column = cell % M.columns, row = Math.floor(cell / M.columns) % M.rows;
    if (Math.floor(cell / (M.columns * M.rows)) !== M.kept[state.depth]) continue;
    mx[i] = M.x0 + (column + 0.5) * M.dx; my[i] = M.y0 + (row + 0.5) * M.dy;
  }
  return { mx, my };
};
const unpackedMaps = {};
const drawMap = async () => {
  if (!M) return;
  const l = P.layers[state.layer], at = state.layer;
  unpackedMaps[at] ??= summed(await inflate(l.map), M.wide, 1);
  if (at !== state.layer) return;
  const [low, high] = l.names.length ? [0, 254] : l.colors, image = cells.data.image[0], size = M.down * M.wide;
  for (let i = 0; i < size; i++) {
    const q = unpackedMaps[at][state.depth * size + i];
    image[i] = q === 255 ? NaN : low + q * (high - low) / 254;
  }
  cells.change.emit();
  map.title.text = l.title + (M.words.length ? `, ${M.words[state.depth]}` : "");
};
const extent = (values) => {
  let low = Infinity, high = -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  const margin = 0.04 * (high - low) || 0.5;
  return { start: low - margin, end: high + margin };
};
const drawPoints = (rescaled) => {
  const [x, y] = [$("across"), $("up")].map((s) => axes[Number(s.value)]);
  points.data = { x: x.values, y: y.values, value: V[state.layer], ...place() };
  if (rescaled) {
    plane.x_range.setv(extent(x.values));
    plane.y_range.setv(extent(y.values));
    plane.below[0].axis_label = x.title;
    plane.left[0].axis_label = y.title;
  }
  plane.title.text = `coloured by ${P.layers[state.layer].title}`;
  marked();
};
const marked = () => {
  const d = points.data, i = state.chosen;
  mark.data = { x: [d.x[i]], y: [d.y[i]], mx: [d.mx[i]], my: [d.my[i]] };
};
const showLayer = async (i) => {
  state.layer = i;
  $("layer").value = String(i);
  const l = P.layers[i];
  colors.setv({ palette: l.names.length ? l.palette : P.scale, low: l.colors[0], high: l.colors[1] });
  for (const f of [map, plane]) if (f) for (const bar of f.right) bar.visible = !l.names.length;
  $("legend").replaceChildren(...l.names.map((name, k) => {
    const item = element("button", name, { type: "button", title: "select this class" });
    const dot = document.createElement("i");
    dot.style.background = l.palette[k];
    item.prepend(dot);
    item.addEventListener("click", () => between(k, k));
    return item;
  }));
  $("range").hidden = l.names.length > 0;
  $("from").value = $("upto").value = "";
  drawPoints(false);
  counted();
  await drawMap();
};

// ---- what is selected, in words and as histogram
const counted = () => {
  const l = P.layers[state.layer], values = V[state.layer], some = state.selected;
  const [part, whole] = [some.length, n].map((k) => k.toLocaleString("en"));
  $("count").textContent = `${some.length ? part : "no point"} of ${whole} ${some.length ? "points " : ""}selected`;
  $("count").dataset.selected = String(some.length);
  const classes = l.names.length, low = classes ? -0.5 : l.low, high = classes ? classes - 0.5 : l.high;
  const size = classes || 40, step = (high - low) / size;
  const share = (chosen) => {
    const out = new Array(size).fill(0);
    let known = 0;
    for (const i of chosen) if (Number.isFinite(values[i])) {
      known++;
      out[Math.max(0, Math.min(size - 1, Math.floor((values[i] - low) / step)))]++;
    }
    return out.map((c) => (known ? 100 * c / known : 0));
  };
  const every = share(values.keys()), mine = share(some), left = every.map((_, i) => low + i * step);
  bars.data = { left, right: left.map((v) => v + step), every, some: mine };
  histogram.x_range.setv({ start: low, end: high });
  histogram.y_range.setv({ start: 0, end: 1.08 * Math.max(...every, ...mine) || 1 });
  const axis = histogram.below[0];
  axis.ticker.setv({ min_interval: classes ? 1 : 0, num_minor_ticks: classes ? 0 : 5 });
  axis.major_label_overrides = new Map(l.names.map((name, i) => [i, name]));
  axis.major_label_orientation = classes > 4 && Math.max(...l.names.map((w) => w.length)) > 4 ? 0.8 : "horizontal";
  histogram.title.text = l.title;
};
points.selected.properties.indices.change.connect(() => {
  state.selected = Array.from(points.selected.indices);
  counted();
});
const between = (low, high) => {
  const values = V[state.layer];
  points.selected.indices = Array.from(values.keys()).filter((i) => values[i] >= low && values[i] <= high);
};
$("choose").addEventListener("click", () => {
  const number = (id, other) => ($(id).value === "" ? other : Number($(id).value));
  between(number("from", -Infinity), number("upto", Infinity));
});
$("clear").addEventListener("click", () => { points.selected.indices = []; });

// ---- pictures
const paint = (canvas, bytes, at, [height, width, channels]) => {
  const image = new ImageData(width, height);
  for (let i = 0, from = at; i < width * height; i++, from += channels) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[from + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  canvas.width = width; canvas.height = height;
  const side = Number(canvas.dataset.side || 200) / Math.max(width, height);
  canvas.style.width = `${width * side}px`;
  canvas.style.height = `${height * side}px`;
  canvas.getContext("2d").putImageData(image, 0, 0);
};
const T = P.thumbnails, carried = new Map(T.which.map((point, i) => [point, i])), pieces = {};
const nearest = (i) => {  // in the latents, each on the scale of its standard deviation
  let best = -1, least = Infinity;
  for (const other of T.which) {
    let sum = 0;
    for (let d = 0; d < L; d++) sum += ((V[d][i] - V[d][other]) / P.std[d]) ** 2;
    if (sum < least) { least = sum; best = other; }
  }
  return best;
};
let shown = -1;
const show = async (i) => {
  shown = i;
  const l = P.layers[state.layer], value = V[state.layer][i];
  const about = l.names.length ? (Number.isFinite(value) ? l.names[value] : "none") : digits(value);
  const from = carried.has(i) ? i : nearest(i);
  $("stored-words").textContent = `${words[i]}; ${l.title}: ${about}.` + (from < 0 ? " No picture is carried."
    : from === i ? "" : ` The picture is of the nearest sample that has one here: ${words[from]}.`);
  if (from < 0) return;
  const k = carried.get(from), piece = Math.floor(k / T.each);
  pieces[piece] ??= await pictures(T.pieces[piece], T.shape);
  if (shown !== i) return;
  paint($("stored"), pieces[piece], (k % T.each) * T.shape.reduce((a, b) => a * b), T.shape);
  $("stored").dataset.sample = String(P.numbers[from]);
};
const choose = (i) => {
  state.chosen = i;
  $("sample").value = String(P.numbers[i]);
  marked();
  show(i);
  if (D?.kind === "program") set((d) => V[d][i]);
  else $("decoder-note").lastChild.textContent =
    ` Latents of this sample: ${Array.from({ length: L }, (_, d) => digits(V[d][i])).join(", ")}.`;
};
const closest = ({ name, x, y }, reach) => {
  const d = points.data, [f, u, v] = name === "map" ? [map, d.mx, d.my] : [plane, d.x, d.y];
  const sx = f.frame_width / (f.x_range.end - f.x_range.start), sy = f.frame_height / (f.y_range.end - f.y_range.start);
  let best = -1, least = reach * reach;
  for (let i = 0; i < n; i++) {
    const away = ((u[i] - x) * sx) ** 2 + ((v[i] - y) * sy) ** 2;
    if (away < least) { least = away; best = i; }
  }
  return best;
};
let moved = null;
document.addEventListener("place", ({ detail }) => {
  if (detail.kind === "tap") { const i = closest(detail, 1e6); if (i >= 0) choose(i); return; }
  if (!moved) requestAnimationFrame(() => {
    const under = moved.kind === "mouseleave" ? -1 : closest(moved, 12), i = under >= 0 ? under : state.chosen;
    moved = null;
    if (i !== shown) show(i);
  });
  moved = detail;
});
$("sample").addEventListener("change", () => {
  const wanted = Number($("sample").value);
  let best = 0;
  P.numbers.forEach((number, i) => { if (Math.abs(number - wanted) < Math.abs(P.numbers[best] - wanted)) best = i; });
  choose(best);
});
__SLIDERS__
__TABLES__
// ---- beginning
options($("layer"), P.layers.map((l) => l.title));
for (const [id, start] of [["across", P.axes[0]], ["up", P.axes[1]]]) {
  options($(id), axes.map((a) => a.title));
  $(id).value = String(start);
  $(id).addEventListener("change", () => drawPoints(true));
}
$("layer").addEventListener("change", () => { showLayer(Number($("layer").value)); show(state.chosen); });
if (M) {
  $("map-note").textContent = M.note;
  map.below[0].axis_label = M.across;
  map.left[0].axis_label = M.up;
  if (M.kept.length > 1) {
    $("depth-label").hidden = false;
    $("depth").max = String(M.kept.length - 1);
    const deeper = () => {
      state.depth = Number($("depth").value);
      $("depth-words").textContent = M.words[state.depth];
      drawPoints(false);
      drawMap();
    };
    $("depth").value = state.depth = String(Math.floor(M.kept.length / 2));
    state.depth = Number(state.depth);
    $("depth").addEventListener("input", deeper);
    $("depth-words").textContent = M.words[state.depth];
  }
}
$("selection-note").textContent = `Drag a box or a lasso over the points${M ? " or the map" : ""}, or select by ` +
  "value here, a class by its name above; click a point to see its picture. Grey: all points; colour: the selected " +
  "ones; both as a share of their own number.";
$("plane-note").textContent = P.plane_note;
drawPoints(true);
await showLayer(P.layer);
choose(P.first);
document.documentElement.dataset.ready = "yes";
})();
"""


def script() -> str:
    """All of it."""
    return VIEW.replace("__SLIDERS__", SLIDERS).replace("__TABLES__", TABLES)
