"""How a saved page looks: its style, and its panels without any content."""

STYLE = """
:root { color-scheme: light; --page: #eceff2; --panel: #fff; --ink: #1d242b; --soft: #4d5965; --line: #d3d9de;
  --mark: #c4006c; --button: #f3f5f7; }
:root[data-theme="dark"] { color-scheme: dark; --page: #15191d; --panel: #20262c; --ink: #e6eaee; --soft: #a9b4be;
  --line: #3a434c; --mark: #ff6db8; --button: #2c343c; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.35; font-size: 14px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
header { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: center; padding: 6px 12px; }
header details[open] { flex-basis: 100%; }
h1 { font-size: 1.05rem; margin: 0; }
h2 { font-size: .95rem; margin: 0 0 4px; }
header details { color: var(--soft); font-size: .86rem; }
p { margin: .2rem 0; }
main { display: grid; grid-template-columns: 468px 404px minmax(440px, 1fr); gap: 8px; padding: 0 12px 16px; }
main > div { display: flex; flex-direction: column; gap: 8px; min-width: 0; }
#top { display: flex; flex-wrap: wrap; gap: 3px 14px; align-items: center; padding: 4px 12px; position: sticky; top: 0;
  z-index: 5; background: var(--page); }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 8px 10px;
  min-width: 0; }
[hidden] { display: none !important; }
.row { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; margin: 2px 0; }
.note { color: var(--soft); font-size: .84rem; }
.count { color: var(--mark); font-weight: 600; }
.bad { color: #c00; font-weight: 600; }
:root[data-theme="dark"] .bad { color: #ff8a80; }
button, select, input[type="number"] { font: inherit; color: var(--ink); background: var(--button);
  border: 1px solid var(--line); border-radius: 5px; padding: 2px 7px; max-width: 100%; }
button { cursor: pointer; }
select { max-width: 126px; }
#layer { max-width: 260px; }
input[type="number"] { width: 84px; }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 1px; }
figure { margin: 0; width: 200px; }
figcaption { font-size: .82rem; color: var(--soft); overflow-wrap: anywhere; }
canvas { background: #8883; image-rendering: pixelated; display: block; }
#pictures { display: flex; gap: 12px; align-items: flex-start; }
#sliders { max-height: 262px; overflow-y: auto; display: grid; grid-template-columns: 1fr 1fr; gap: 0 14px; }
#sliders.one { grid-template-columns: 1fr; }
#sliders label { display: grid; grid-template-columns: 62px 1fr 50px; gap: 6px; align-items: center;
  font-size: .84rem; }
#sliders label.found { color: var(--mark); font-weight: 600; }
#sliders input { width: 100%; }
input[type="range"] { accent-color: var(--mark); }
output { text-align: right; font-variant-numeric: tabular-nums; }
#legend { display: flex; flex-wrap: wrap; gap: 2px 9px; font-size: .82rem; max-height: 40px; overflow-y: auto; }
#legend button { border: 0; background: none; padding: 0; }
#legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 3px; }
.scroll { max-height: 250px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: 1px 8px 1px 0; border-bottom: 1px solid var(--line); }
td.number { text-align: right; }
td button { border: 0; background: none; padding: 1px 2px; text-decoration: underline; color: var(--ink); }
td i { display: block; height: 8px; border-radius: 2px; background: var(--mark); }
td:last-child { width: 130px; }
#classes { display: flex; flex-wrap: wrap; gap: 6px; max-height: 320px; overflow-y: auto; }
#classes button { padding: 3px; width: 74px; font-size: .8rem; overflow-wrap: anywhere;
  display: flex; flex-direction: column; align-items: center; }
#classes canvas { margin: 0 auto 2px; }
@media (max-width: 1320px) { main { grid-template-columns: repeat(auto-fill, minmax(468px, 1fr)); } }
"""

TOP = """<div id="top"><label>show <select id="layer"></select></label>
<span class="count" id="count" role="status"></span><div id="legend"></div></div>"""

PANELS = {
    "map": """<section aria-label="map"><h2>Map</h2>
<div class="row"><label id="depth-label" hidden>layer <input id="depth" type="range" min="0" step="1" value="0">
<output id="depth-words"></output></label></div>
\x00map\x00<p class="note" id="map-note"></p></section>""",
    "samples": """<section aria-label="samples"><h2>Samples</h2>
<div class="row"><label>across <select id="across"></select></label><label>up <select id="up"></select></label></div>
\x00plane\x00<p class="note" id="plane-note"></p></section>""",
    "pictures": """<section aria-label="pictures and sliders">
<div id="pictures"><figure><canvas id="stored" width="1" height="1" role="img" aria-label="stored picture"></canvas>
<figcaption id="stored-words"></figcaption></figure>
<figure id="decoded-figure"><canvas id="decoded" width="1" height="1" role="img" aria-label="decoded picture"></canvas>
<figcaption id="decoded-words"></figcaption></figure></div>
<div class="row"><label>sample <input id="sample" type="number" min="0" step="1"></label>
<span id="to" class="row">sliders to <button id="to-sample" type="button">the sample</button>
<button id="to-mean" type="button">mean of the selected</button>
<button id="to-base" type="button">the base</button></span></div>
<div id="sliders" role="group" aria-label="latent dimensions"></div>
<p class="note" id="decoder-note"></p></section>""",
    "selection": """<section aria-label="selection"><h2>Selected points against all</h2>
\x00histogram\x00
<div class="row"><span class="row" id="range"><label>from <input id="from" type="number" step="any"></label>
<label>to <input id="upto" type="number" step="any"></label><button id="choose" type="button">select</button></span>
<button id="clear" type="button">clear</button></div>
<p class="note" id="selection-note"></p></section>""",
    "ranking": """<section aria-label="association"><h2>Association of latents with side maps</h2>
<div class="row"><label>measure <select id="metric"></select></label>
<label>with <select id="target"></select></label></div>
<div class="scroll"><table><tbody id="ranks"></tbody></table></div>
<p class="note" id="ranking-note"></p></section>""",
    "classes": """<section id="classes-panel" aria-label="classes"><h2 id="classes-heading"></h2>
<div id="classes"></div><p class="note" id="classes-note"></p></section>""",
}
COLUMNS = {
    "scan": (("map", "selection"), ("samples", "ranking"), ("pictures", "classes")),
    "collection": (("samples", "ranking"), ("selection", "classes"), ("pictures",)),
}


def body(kind: str) -> str:
    """The panels of a kind of store in their columns; figures go where their names stand between NUL."""
    columns = ("".join(PANELS[name] for name in column) for column in COLUMNS[kind])
    return f"{TOP}<main>{''.join(f'<div>{column}</div>' for column in columns)}</main>"
