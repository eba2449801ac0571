"""The scripts of a saved page for its sliders, the association ranking and the classes; parts of `saved_script`."""

SLIDERS = r"""
// ---- sliders
const setting = D ? Float32Array.from(D.centre) : new Float32Array(0), inputs = new Map();
const about = element("span", ""), more = element("span", "");
$("decoder-note").append(about, more);
const fixed = (v) => {
  const size = Math.abs(v);
  return size < 100 && size >= 0.1 ? v.toFixed(2).replace("-", "\u2212") : digits(Number(v.toFixed(3)));
};
const near = (v) => (Math.abs(v) < 1e-3 * (D.limits[1] - D.limits[0]) ? "0" : digits(v));
const scale = D ? `black is ${near(D.limits[0])}, white ${near(D.limits[1])} ${D.units}` : "";
let decode = () => {}, waiting = 0;
const decodeSoon = () => {
  if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; decode(); });
};
const set = (value) => {
  for (const [d, { input, output }] of inputs) {
    const v = value(d);
    if (!Number.isFinite(v)) continue;
    setting[d] = v;
    if (v < Number(input.min)) input.min = String(v);
    if (v > Number(input.max)) input.max = String(v);
    input.value = String(v);
    output.value = fixed(v);
  }
  decodeSoon();
};
const slider = (d, about) => {
  const label = element("label", `latent ${d}`), input = element("input", "", { type: "range", ...about });
  const output = element("output", "");
  label.append(input, output);
  label.dataset.latent = String(d);
  $("sliders").append(label);
  inputs.set(d, { input, output, label });
  return { input, output };
};
let base = D?.kind === "program" ? floats(D.base) : null, centre = D?.centre;
const patternOf = (latents, means, words) => {  // what a spatial latent looks like within; sliders shift it
  [base, centre] = [latents, means];
  if (base.length === L) return;
  about.textContent = `${made} A slider shifts its channel as a whole; the pattern within is that of the ${words}.`;
};
const made = "Pictures are decoded in this page: the browser runs the decoder of the run itself " +
  `(${D?.n_ops} operations, weights in half precision).`;
const aside = (program) => {  // a slow decoder beside the page, which goes on meanwhile
  const source = $("machine").textContent + "let run; onmessage = ({ data }) => { " +
    "if (data.program) run = timed(data.program); else postMessage(run(data.z)); };";
  const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))), asked = [];
  worker.onmessage = ({ data }) => asked.shift()(data);
  worker.postMessage({ program });
  return (z) => new Promise((answer) => { asked.push(answer); worker.postMessage({ z }); });
};
if (D?.kind === "program") {
  const run = (D.is_slow ? aside : timed)(D.program), each = floats(D.base).length / L;
  const [, channels, height, width] = D.program.shape, size = height * width;
  const bytes = new Uint8ClampedArray(size * (channels === 3 ? 3 : 1));
  const latents = () => Float32Array.from(base, (v, i) => {
    const d = Math.floor(i / each);
    return each === 1 ? setting[d] : v + setting[d] - centre[d];
  });
  let is_busy = false, is_late = false;
  decode = async () => {  // one at a time; the last setting counts
    if (is_busy) { is_late = true; return; }
    is_busy = true;
    const { out, took } = await run(latents());
    const factor = 255 / (D.limits[1] - D.limits[0]), every = channels === 3 ? 3 : 1;
    for (let c = 0; c < every; c++)
      for (let i = 0; i < size; i++) bytes[i * every + c] = (out[c * size + i] - D.limits[0]) * factor;
    paint($("decoded"), bytes, 0, [height, width, every]);
    $("decoded").dataset.ms = String(took);
    $("decoded").dataset.count = String(Number($("decoded").dataset.count || 0) + 1);
    $("decoded-words").textContent = `from the sliders, ${took < 10 ? took.toFixed(1) : Math.round(took)} ms; ` +
      scale;
    is_busy = false;
    if (is_late) { is_late = false; decode(); }
  };
  for (const d of D.dims) {
    const step = (D.high[d] - D.low[d]) / 200;
    const { input, output } = slider(d, { min: String(D.low[d]), max: String(D.high[d]), step: "any" });
    input.addEventListener("input", () => {
      setting[d] = Number(input.value);
      output.value = fixed(setting[d]);
      decodeSoon();
    });
    input.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (!way) return;
      event.preventDefault();
      input.value = String(Number(input.value) + way * step);
      input.dispatchEvent(new Event("input"));
    });
  }
  about.textContent = made;
  patternOf(base, centre, D.base_words);
  let worst = 0, checked = 0;
  const check = async () => {
    if (is_busy) { setTimeout(check, 100); return; }
    const expected = floats(D.pictures[checked]), { out } = await run(floats(D.checks[checked]));
    const range = D.limits[1] - D.limits[0];
    for (let i = 0; i < expected.length; i++) {
      const off = Math.abs(out[i * D.every] - expected[i]) / range;
      if (!(off <= worst)) worst = Number.isNaN(off) ? Infinity : off;
    }
    if (++checked < D.checks.length) { setTimeout(check, 30); return; }
    more.textContent = ` Checked in this browser against ${checked} pictures by PyTorch, at settings drawn over ` +
      `the sliders' whole ranges: the largest difference is ${digits(100 * worst)} % of the grey range.`;
    if (worst >= 0.01) {
      more.className = "bad";
      more.textContent += " That is too much: do not trust the decoded pictures here.";
    }
    $("decoder-note").dataset.error = String(worst);
  };
  setTimeout(check, 300);
} else if (D?.kind === "frames") {
  const frames = await pictures(D.frames, D.shape), first = await pictures(D.first, D.shape);
  const size = D.shape.reduce((a, b) => a * b);
  const middle = String(Math.floor((D.steps - 1) / 2));
  const rest = () => {
    for (const [d, { input, output }] of inputs) { input.value = middle; output.value = fixed(D.centre[d]); }
    paint($("decoded"), first, 0, D.shape);
    $("decoded-words").textContent = `the base: ${D.base_words}`;
  };
  D.dims.forEach((d, row) => {
    const { input, output } = slider(d, { min: "0", max: String(D.steps - 1), step: "1" });
    input.addEventListener("input", () => {
      const step = Number(input.value);
      for (const [other, item] of inputs) if (other !== d) {
        item.input.value = middle;
        item.output.value = fixed(D.centre[other]);
      }
      output.value = fixed(D.values[row][step]);
      paint($("decoded"), frames, (row * D.steps + step) * size, D.shape);
      $("decoded").dataset.count = String(Number($("decoded").dataset.count || 0) + 1);
      const value = digits(D.values[row][step]);
      $("decoded-words").textContent = `latent ${d} at ${value}, the others as the base; ${scale}`;
    });
  });
  decode = rest;
  rest();
  about.textContent = `Pictures were decoded when this page was made, ${D.steps} of each dimension, ${D.reach} ` +
    `standard deviations to either side of the base (${D.base_words}): each slider shows its own dimension moved ` +
    `alone, several are not combined. The decoder cannot run in the page: ${D.why}.`;
  const [whole, small] = [D.whole, D.shape].map(([height, width]) => `${height} × ${width}`);
  if (whole !== small) about.textContent += ` Shown at ${small} of ${whole} pixels.`;
  for (const id of ["to-sample", "to-mean"]) $(id).hidden = true;
} else {
  for (const id of ["decoded-figure", "sliders", "to"]) $(id).hidden = true;
  about.textContent = P.no_network;
}
if (inputs.size < 6) $("sliders").className = "one";
$("to-sample").addEventListener("click", () => choose(state.chosen));
$("to-base").addEventListener("click", () => {
  if (D.kind !== "program") { decode(); return; }
  patternOf(floats(D.base), D.centre, D.base_words);
  set((d) => D.centre[d]);
});
$("to-mean").addEventListener("click", () => {
  const some = state.selected.length ? state.selected : Array.from({ length: n }, (_, i) => i);
  set((d) => some.reduce((sum, i) => sum + V[d][i], 0) / some.length);
});
"""

TABLES = r"""
// ---- association and classes
const A = P.ranking;
const find = (d) => {
  state.found = d;
  showLayer(d);
  show(state.chosen);
  for (const [other, { label }] of inputs) label.className = other === d ? "found" : "";
  inputs.get(d)?.label.scrollIntoView({ block: "nearest" });
};
if (A) {
  const values = new Float32Array((await inflate(A.values)).buffer);
  options($("metric"), A.metrics);
  options($("target"), A.targets);
  const ranked = () => {
    const at = (Number($("metric").value) * A.targets.length + Number($("target").value)) * L;
    const row = Array.from(values.slice(at, at + L)), size = (v) => (Number.isFinite(v) ? Math.abs(v) : -1);
    const most = Math.max(...row.map(size), 1e-9);
    $("ranks").replaceChildren(...row.map((v, d) => [v, d]).sort((a, b) => size(b[0]) - size(a[0])).map(([v, d]) => {
      const line = document.createElement("tr"), cell = document.createElement("td");
      const button = element("button", `latent ${d}`, { type: "button" });
      button.addEventListener("click", () => find(d));
      cell.append(button);
      const bar = document.createElement("td"), length = document.createElement("i");
      length.style.width = `${100 * Math.max(0, size(v)) / most}%`;
      bar.append(length);
      line.append(cell, element("td", digits(v), { className: "number" }), bar);
      return line;
    }));
  };
  for (const id of ["metric", "target"]) $(id).addEventListener("change", ranked);
  ranked();
  $("ranking-note").textContent = "The strongest first, by size; a click shows that dimension.";
} else {
  for (const id of ["metric", "target"]) $(id).parentElement.hidden = true;
  $("ranking-note").textContent = P.no_ranking;
}
const C = P.classes;
if (C) {
  $("classes-heading").textContent = `Mean of each ${C.by}, decoded`;
  const bytes = await pictures(C.pictures, C.shape), size = C.shape.reduce((a, b) => a * b);
  const whole = C.whole && new Float32Array((await inflate(C.whole)).buffer);
  C.names.forEach((name, k) => {
    const button = element("button", "", { type: "button" }), canvas = document.createElement("canvas");
    canvas.dataset.side = "66";
    paint(canvas, bytes, k * size, C.shape);
    button.append(canvas, element("span", `${name} (${C.n[k]})`));
    button.addEventListener("click", () => {
      if (D.kind === "program") {
        const size = base.length, own = whole?.slice(k * size, (k + 1) * size);
        if (own) patternOf(own, C.latents[k], `mean of ${C.by} ${name}`);
        set((d) => C.latents[k][d]);
        return;
      }
      paint($("decoded"), bytes, k * size, C.shape);
      $("decoded-words").textContent = `mean of ${C.by} ${name}`;
    });
    $("classes").append(button);
  });
  $("classes-note").textContent = "The number of samples is in brackets. " +
    (D.kind === "program" ? "A click sets the sliders to the mean." : "A click shows the picture.") +
    (C.left_out ? ` ${C.left_out} smaller classes are left out.` : "");
} else $("classes-panel").hidden = true;
"""
