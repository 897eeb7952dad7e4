"""The style sheet of every page that the program writes.

Colours are of Okabe and Ito's palette (jfly.uni-koeln.de/color, 2008), which colour-blind people tell apart; a shape
and a word always say the same.
"""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59626d;--rule:#d9dee4;--card:#f5f7f9;
--chance:#0072b2;--little:#00795a;--leaks:#a86200;--broken:#c04a00;
--disjoint:#0072b2;--same:#d55e00;--superset:#009e73;--pairs:#a8517f;--other:#59626d;
--plaintext:#59626d;--sketch:#0072b2;--sap:#c04a00;--sealed:#00795a;--cells:#a8517f;
--peer0:#8a6d00;--peer1:#009e73;--peer2:#6a51a3;--peer3:#b0306a;--peer4:#1b1f24}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e8eaed;--dim:#a3acb6;--rule:#343a42;--card:#1e2329;
--chance:#56b4e9;--little:#2fc79a;--leaks:#f0b429;--broken:#ff8a4c;
--disjoint:#56b4e9;--same:#ff8a4c;--superset:#2fc79a;--pairs:#df94be;--other:#a3acb6;
--plaintext:#a3acb6;--sketch:#56b4e9;--sap:#ff8a4c;--sealed:#2fc79a;--cells:#df94be;
--peer0:#e6c84f;--peer1:#2fc79a;--peer2:#b8a5e8;--peer3:#f07aa8;--peer4:#e8eaed}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:1.7rem;line-height:1.2;margin:.4em 0}h2{font-size:1.25rem;margin:2em 0 .3em}h3{font-size:1rem;margin:0}
p{margin:.3em 0}section>p{color:var(--dim);max-width:48em}
.lead{font-size:1.25rem;font-weight:600;line-height:1.35}
.verdicts{list-style:none;margin:.5em 0;padding:0;display:grid;gap:8px}
.verdicts li{display:grid;grid-template-columns:1.6em 7em 1fr;gap:2px 10px;padding:7px 14px;background:var(--card);
border-left:6px solid var(--c,var(--rule));border-radius:6px}
.number{color:var(--dim);padding-top:.15em}.share strong{font-size:1.35rem;line-height:1.3;color:var(--c)}
.tag{color:var(--c);font-weight:600;white-space:nowrap;margin-left:.5em}.facts{color:var(--dim);font-size:.86rem}
.chance{--c:var(--chance)}.little{--c:var(--little)}.leaks{--c:var(--leaks)}.broken{--c:var(--broken)}
.disjoint{--c:var(--disjoint)}.same{--c:var(--same)}.superset{--c:var(--superset)}.pairs{--c:var(--pairs)}
.other{--c:var(--other)}.plaintext{--c:var(--plaintext)}.sketch{--c:var(--sketch)}.sap{--c:var(--sap)}
.sealed{--c:var(--sealed)}.cells{--c:var(--cells)}
.peer0{--c:var(--peer0)}.peer1{--c:var(--peer1)}.peer2{--c:var(--peer2)}.peer3{--c:var(--peer3)}.peer4{--c:var(--peer4)}
.bars{display:grid;grid-template-columns:20.5em 1fr 5em;gap:1px 12px;align-items:center;margin-top:1em}
.name{grid-column:1/-1;font-weight:600;margin-top:.6em}.who{color:var(--dim);font-size:.86rem}.figure{text-align:right}
.bar{width:100%;height:22px;display:block;overflow:visible}.bar rect{fill:var(--c)}
.asked{grid-template-columns:21em 1fr 14.5em;margin-top:1.2em}.asked .figure{color:var(--c);text-align:left}
.asked small{color:var(--dim)}.said{grid-column:1/-1;margin:0 0 .3em}
.ticks{position:relative;height:1.5em;font-size:.8rem;color:var(--dim)}
.ticks span{position:absolute;transform:translateX(-50%)}.ticks span:first-child{transform:none}
.grid{stroke:var(--rule);stroke-width:1}.whisker{stroke:var(--fg);stroke-width:1.3;opacity:.75}
line.chance{stroke:var(--fg);stroke-width:2;stroke-dasharray:3 2}
.plot{width:100%;display:block}.plot text{font-size:11px;fill:var(--dim)}.plot .label{fill:var(--fg);font-weight:600}
.plot polyline{fill:none;stroke:var(--c);stroke-width:2}.plot g.thin polyline{stroke-width:1.2;stroke-dasharray:5 3}
.plot g.chance polyline{stroke:var(--dim);stroke-dasharray:4 3;stroke-width:1.5}
.mark{fill:var(--c);stroke:var(--bg);stroke-width:1}.hollow{fill:var(--bg);stroke:var(--c);stroke-width:1.6}
.sign{width:1.2em;height:1.2em;vertical-align:-.22em}
.single{max-width:520px}.grids{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:18px}
.large{grid-template-columns:repeat(auto-fill,minmax(min(100%,460px),1fr))}
figure{margin:0}figcaption{font-weight:600;font-size:.9rem;text-align:center}
.plain{grid-template-columns:1fr}.plain li{grid-template-columns:1fr}.plain li>span{display:none}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:.6em 0;font-size:.9rem}.legend span{color:var(--c)}
summary{cursor:pointer;margin:1em 0;font-weight:600}.chips{font-size:1.05rem}
.limits{border:2px solid var(--leaks);border-radius:8px;padding:2px 18px 12px;margin-top:2em}
.limits h2{margin-top:.6em}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.84rem;width:100%}
th,td{padding:4px 10px 4px 0;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th,td.text{text-align:left;font-weight:400}tbody th,td.text{white-space:normal;min-width:12.5em}
thead th{font-weight:600;text-align:right}thead th.text{font-weight:600;text-align:left;min-width:0}
.thefts{font-size:1rem;margin:1em 0 .6em;table-layout:fixed}.thefts th:first-child{width:34%}
.thefts th,.thefts td{white-space:normal;text-align:left;vertical-align:top;padding:8px 12px 8px 0;min-width:0}
.thefts tbody th{font-weight:600}.thefts small{display:block;font-size:.82rem;font-weight:400;color:var(--dim)}
.thefts b{color:var(--c)}.thefts span{color:var(--dim)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px}dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere}code{font:.88em ui-monospace,monospace}li code{white-space:nowrap}
@media(max-width:1000px){tbody th,td.text{min-width:8em}}
@media(max-width:640px){.told table,.told tbody,.told tr,.told th,.told td{display:block;white-space:normal}
.told thead{display:none}.told tr{border-bottom:1px solid var(--rule);padding:6px 0}
.told th,.told td{border:0;padding:1px 0;text-align:left}.told td:nth-child(2){font-weight:600}
.told th{color:var(--dim)}
.thefts,.thefts tbody,.thefts tr,.thefts th,.thefts td{display:block;width:auto}
.thefts thead{display:none}.thefts tr{border-bottom:1px solid var(--rule);padding:8px 0}
.thefts th:first-child{width:auto}.thefts th,.thefts td{border:0;padding:3px 0}
.thefts td::before{content:attr(data-of) ": ";color:var(--dim)}.thefts td small{display:inline;margin-left:.4em}
main{padding:12px 14px 40px}h1{font-size:1.4rem}.lead{font-size:1.1rem}
.verdicts li{grid-template-columns:1.2em 1fr;padding:10px}.verdicts li>div:last-child{grid-column:1/-1}
.bars{grid-template-columns:1fr 4.5em}.asked{grid-template-columns:1fr}.asked .figure{margin-top:-4px}
.bars .who:empty{display:none}.bars .who{grid-column:1/-1;margin-bottom:-4px}
.share strong{font-size:1.6rem}.tag{margin-left:0}dl{grid-template-columns:1fr}dt{margin-top:.4em}}
@media print{body{background:#fff}.verdicts li,figure{break-inside:avoid}}
"""
