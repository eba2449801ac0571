"""The page around the views: its outline, colours in light and dark, keys that walk the map."""

from __future__ import annotations

LIGHT = {
    "ink": "#1d2733", "paper": "#ffffff", "bar": "#eef2f6", "line": "#b9c4cf", "accent": "#0b63a5", "band": "#cfe3f3",
    "mark": "#e5007e", "warn": "#8a3b00",
}  # fmt: skip
DARK = {
    "ink": "#e6ebf0", "paper": "#15191e", "bar": "#20272f", "line": "#56626e", "accent": "#6fb7ee", "band": "#2c4a63",
    "mark": "#ff5cb0", "warn": "#ffb87a",
}  # fmt: skip
COOKIE = "vaearr_theme"

PAGE = """
{% extends base %}
{% block postamble %}
<style>
  :root { color-scheme: {{ scheme }}; {{ shades }} --bokeh-base-font: system-ui, sans-serif; }
  html, body { background: var(--paper); color: var(--ink); font: 13px system-ui, sans-serif; }
  header { display: flex; gap: 14px; align-items: center; height: 34px; padding: 0 12px; background: var(--bar);
    border-bottom: 1px solid var(--line); white-space: nowrap; overflow: hidden; }
  header b { font-size: 16px; } header .grow { flex: 1; overflow: hidden; text-overflow: ellipsis; }
  header button { font: inherit; color: inherit; background: none; border: 1px solid var(--line); border-radius: 4px;
    padding: 3px 10px; cursor: pointer; }
  :focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
  main { display: grid; grid-template-columns: 452px minmax(0, 1fr); gap: 0 6px; padding: 4px 10px; }
  section { min-width: 0; overflow-x: auto; }
  #walk { width: fit-content; border-radius: 4px; }
</style>
{% endblock %}
{% block contents %}
<header>
  <b>vaearr</b>
  <span class="grow" title="{{ summary }}"><span id="about">{{ summary }}</span> ({{ origin }})</span>
  <button id="theme" type="button">{{ other }}</button>
</header>
<main>
  <section aria-label="choose samples">
    {{ embed(roots.choosers) }}
    {% if has_map %}
    <div id="walk" tabindex="0" role="application" aria-label="map; the arrow keys move the chosen point">
      {{ embed(roots.map) }}
    </div>
    {% endif %}
    {{ embed(roots.plane) }}
  </section>
  <section aria-label="what was chosen">{{ embed(roots.pictures) }}{{ embed(roots.tabs) }}</section>
</main>
<script>
  document.getElementById("theme").onclick = () => {
    document.cookie = "{{ cookie }}={{ other }}; path=/; max-age=31536000; SameSite=Strict";
    location.reload();
  };
  const walk = document.getElementById("walk");
  const step = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowUp: ["y", -1], ArrowDown: ["y", 1],
    PageUp: ["z", -1], PageDown: ["z", 1] };
  const fields = {};
  const find = (title) => {
    for (const root of window.Bokeh?.documents[0]?.roots() ?? []) {
      for (const model of root.references()) if (model.title === title) return model;
    }
  };
  if (walk) walk.addEventListener("keydown", (event) => {
    if (event.target !== walk || !(event.key in step)) return;
    const [dim, by] = step[event.key];
    const field = fields[dim] ??= find(`${dim} (position)`);
    if (!field) return;
    event.preventDefault();
    field.value = Math.min(field.high, Math.max(field.low, field.value + by));
  });
</script>
{% endblock %}
"""


PANEL = {
    "background-color": "paper", "background-text-color": "ink", "surface-color": "bar", "surface-text-color": "ink",
    "primary-color": "accent", "primary-text-color": "paper",
}  # fmt: skip


def shades(is_dark: bool) -> str:
    """Colours of the page as CSS variables, those of panel's widgets too."""
    own = [f"--glyphs: {'invert(1)' if is_dark else 'none'};"]
    own += [f"--{name}: {color};" for name, color in (DARK if is_dark else LIGHT).items()]
    return " ".join(own + [f"--design-{name}: var(--{own_name});" for name, own_name in PANEL.items()])
