"""The page's style sheet and its fixed texts.

Colours are those of Okabe and Ito's palette (2008); a sign and a word always say the same as a colour.
"""

from __future__ import annotations

__all__ = ["CSS", "LIMITS", "METHOD", "RESPECT"]

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59626d;--rule:#d9dee4;--card:#f5f7f9;
--bad:#c04a00;--good:#0072b2}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e8eaed;--dim:#a3acb6;--rule:#343a42;--card:#1e2329;
--bad:#ff8a4c;--good:#56b4e9}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.9rem;line-height:1.2;margin:.3em 0}h2{font-size:1.25rem;margin:2.2em 0 .3em}
p{margin:.4em 0;max-width:46em}section>p,.dim{color:var(--dim)}
.lead{font-size:1.2rem;line-height:1.4;max-width:44em}.lead b{white-space:nowrap}
.lead b.bad{color:var(--bad)}.lead b.good{color:var(--good)}
.faces{display:grid;gap:10px 14px;margin:1.2em 0;align-items:start}
.faces .head{font-size:.86rem;line-height:1.3;font-weight:600;align-self:end}
.faces .head small{display:block;font-weight:400;color:var(--dim)}
.face img{width:100%;display:block;border-radius:6px;background:var(--card)}
.face.bad img{outline:3px solid var(--bad)}.face.good img{outline:3px solid var(--good)}
.none{display:grid;place-items:center;aspect-ratio:1;border-radius:6px;background:var(--card);color:var(--dim);
font-size:.78rem;line-height:1.25;text-align:center;padding:4px}
.face{margin:0}.face figcaption{font-size:.8rem;line-height:1.3;margin-top:5px;color:var(--dim)}
.face figcaption b{display:block;font-weight:600}
.bad>figcaption b{color:var(--bad)}.good>figcaption b{color:var(--good)}
.loop{display:grid;gap:6px;grid-template-columns:repeat(auto-fill,minmax(76px,1fr));margin:.4em 0 1em}
.loop .face figcaption{text-align:center}
.bar{display:grid;grid-template-columns:minmax(11em,17em) 1fr 8em;gap:5px 12px;align-items:center;margin-top:5px}
.bar .name{font-size:.9rem}.bar .name small{color:var(--dim);display:block;line-height:1.25}
.bar .figure{text-align:right;font-variant-numeric:tabular-nums;font-size:.9rem}
.track{position:relative;height:18px;background:var(--card);border-radius:4px}
.track i{position:absolute;left:0;top:0;bottom:0;border-radius:4px;background:var(--c)}
.track u{position:absolute;top:8px;height:2px;background:var(--fg);opacity:.65}
.track s{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--fg)}
.model{font-weight:600;margin-top:.9em}.model .dim{font-weight:400}
.b-bad{--c:var(--bad)}.b-good{--c:var(--good)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;width:100%;margin:.6em 0}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left;white-space:normal;min-width:11em}
.note{border:2px solid var(--bad);border-radius:8px;padding:2px 18px 12px;margin-top:2.2em}
.respect{border-color:var(--good)}.note h2{margin-top:.6em}
li{margin:.25em 0;max-width:46em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;font-size:.9rem}dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere}code{font:.88em ui-monospace,monospace}
@media(max-width:700px){main{padding:14px 12px 40px}h1{font-size:1.45rem}.lead{font-size:1.06rem}
th,td{padding:5px 7px 5px 0;white-space:normal}table{font-size:.8rem}th:first-child,td:first-child{min-width:8em}
.faces{gap:8px}.faces .extra{display:none}.face figcaption{font-size:.72rem}.faces .head{font-size:.74rem}
.bar{grid-template-columns:1fr 7.5em;margin-top:9px}.bar .track{grid-column:1/-1;order:1}
dl{grid-template-columns:1fr}dt{margin-top:.4em}.loop{grid-template-columns:repeat(auto-fill,minmax(58px,1fr))}}
@media print{.face,.bar{break-inside:avoid}}
"""

METHOD = """<ul>
<li><b>The loop</b> is the published one (Vendrow and Vendrow, 2021): take the nearest of many random faces, change it a
little, embed it again, keep what has come closer. The thief needs the public model and the stolen vector, nothing
else. <b>Gradient</b> is the same thief looking inside the model.</li>
<li><b>Accepted</b>: a verifier takes the rebuilt face for the person. It holds <em>another</em> photograph than the
one whose embedding was stolen, and a threshold at which it takes one pair of strangers in a thousand.</li>
<li><b>Alike</b> is the cosine of the rebuilt face to the photograph whose embedding was stolen; under a photograph, to
another one of the same person.</li>
<li><b>The second model</b> was made by others on other faces, and the thief never saw it: what it accepts is the
person's likeness, not a trick on the first model.</li>
<li><b>Chance</b> is how often it accepts random faces of the thief's generator. Intervals are Wilson's, at 95%, over
people.</li>
<li><b>His generator</b> was fitted on other people's photographs: none of the people shown is in it.</li></ul>"""

LIMITS = """<ul>
<li>A thief who knows some tens of stored photographs <em>and which records they are</em> names many of the others, and
with more of them solves for the secret. No searchable encryption of this kind survives that.</li>
<li>Whoever holds the very photographs that are stored can tell which record is which.</li>
<li>Whoever has the key reads everything.</li>
<li>These are attacks that we know and could run. A better one may come; this is a measurement, no proof.</li>
<li>A stronger generator makes prettier faces of plaintext embeddings. It cannot find what a vector does not say.</li>
</ul>"""

RESPECT = """<p>Only public research data is used, under its terms and with credit. Nobody's private pictures are here.
The attack takes labelled photographs that you have, embeds and attacks them: it has no way to be given a stolen vector,
and does nothing that the published papers do not.</p>"""
