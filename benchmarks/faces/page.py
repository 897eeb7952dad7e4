"""Write the result as one self-contained HTML page: faces first, then figures, in plain words.

The page loads nothing and runs no script; its own policy forbids both. It shows photographs. Their terms decide whether
it may be passed on, and the page says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .pictures import Face, inline
from .style import CSS, LIMITS, METHOD, RESPECT

__all__ = ["Gallery", "page", "percent"]

NAMES = {
    "plaintext": ("Plaintext embeddings", "as most databases hold them"),
    "encrypted": ("Encrypted, sketch", "index vectors as they are"),
    "encrypted_normalised": ("Encrypted, normalised", "brought back to the range of embeddings"),
    "wrong_key": ("Encrypted, a wrong key", "decrypted with a key of the thief's own"),
    "mapper": ("Encrypted, a trained mapper", "trained under a key of the thief's own"),
    "aligned_0": ("Encrypted, aligned", "best attack of the lab, no known pairs"),
    "aligned_10": ("Encrypted, 10 known pairs", "best attack of the lab"),
    "aligned_20": ("Encrypted, 20 known pairs", "best attack of the lab"),
    "mapped_20": ("Encrypted, 20 known pairs", "and a trained mapper"),
    "aligned_50": ("Encrypted, 50 known pairs", "best attack of the lab"),
    "sap": ("Scheme sap", "index vectors as they are"),
    "sap_normalised": ("Scheme sap, normalised", "brought back to the range of embeddings"),
    "sap_wrong_key": ("Scheme sap, a wrong key", "decrypted with a key of the thief's own"),
    "sap_mapper": ("Scheme sap, a trained mapper", "trained under a key of the thief's own"),
    "sap_aligned_0": ("Scheme sap, aligned", "no known pairs"),
    "sap_aligned_10": ("Scheme sap, 10 known pairs", "best attack of the lab"),
    "sap_aligned_20": ("Scheme sap, 20 known pairs", "best attack of the lab"),
    "sap_mapped_20": ("Scheme sap, 20 known pairs", "and a trained mapper"),
    "ironcore": ("ironcore-alloy", "its ciphertexts as they are"),
    "ironcore_aligned_0": ("ironcore-alloy, aligned", "no known pairs"),
}
FLOORS = {
    "chance": ("Chance", "embeddings of other sentences"),
    "nothing": ("Nothing stolen", "the mean embedding, so the commonest words"),
}
LOOPS = {"search": "black box", "climb": "gradient", "ridge": "trained regression"}
TASKS = {
    "identification": "Identification (1:N)",
    "verification": "Verification (1:1)",
    "clustering": "Clustering",
    "classification": "Classification",
    "anomaly": "Anomalies",
}
FIGURES = {
    "same_lists": "the five nearest, as in plaintext",
    "rank_1": "right person first",
    "rank_5": "right person among five",
    "tar_at_far_1e-2": "accepted at 1% false accepts",
    "tar_at_far_1e-3": "accepted at 0.1% false accepts",
    "eer": "equal error rate",
    "accuracy_10_fold": "accuracy, ten folds",
    "ari": "adjusted Rand index",
    "nmi": "mutual information",
    "knn_accuracy": "k-NN accuracy",
    "stranger_auc": "strangers told apart, AUC",
    "misnamed_auc": "wrong names found, AUC",
}


@dataclass(frozen=True, eq=False)
class Gallery:
    """What is shown.

    Args:
        columns: title and small print of each column; those marked "+" in front are left out on narrow screens.
        rows: faces of one person each.
        loops: title -> (caption, face) of the frames of a loop.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Face]]
    loops: Mapping[str, Sequence[tuple[str, Face]]]


def page(results: Mapping[str, Any], gallery: Gallery) -> str:
    """HTML page of a results document and pictures."""
    parts = [
        _lead(results),
        _faces(gallery),
        _loops(gallery),
        _section("How many faces come back", _bars(results), "Share of the people whose rebuilt face a verifier takes "
                 "for the person. Upright mark: chance. Thin line: 95% interval."),
        _section("Everything else still works", _tasks(results.get("tasks") or {}), "The same photographs, searched "
                 "in plaintext and in the encrypted store, in percent. Hits are re-ranked on sealed exact vectors."),
        _section("Other ways to attack", _ways(results), "Black box, gradient, and a regression trained on "
                 "the thief's own faces. Percent accepted, attacked model / second model."),
        _section("The same for sentences", _text(results.get("text") or {}), "Questions of bank customers: what a "
                 "thief with other sentences of the kind learns of those that are stored, in percent."),
        f'<section class="note"><h2>What this does not show</h2>{LIMITS}</section>',
        f"<section><h2>How to read this</h2>{METHOD}</section>",
        f'<section class="note respect"><h2>The people in the pictures</h2>{RESPECT}{_credit(results)}</section>',
        _origin(results),
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        "'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>A stolen face embedding</title><style>{CSS}</style></head><body><main>'
        + "\n".join(part for part in parts if part)
        + "</main></body></html>\n"
    )


def percent(share: float) -> str:
    """Format a share as a percentage; only exact values become 0% or 100%."""
    if share in (0, 1):
        return f"{share:.0%}"
    return f"{100 * share:.2g}%" if share < 0.01 else f"{100 * share:.1f}%".replace(".0%", "%")


def _section(title: str, content: str, words: str) -> str:
    return f"<section><h2>{title}</h2><p>{words}</p>{content}</section>" if content else ""


def _lead(results: Mapping[str, Any]) -> str:
    shares, n = results["accepted_at_far_1e-3"], results["people"]
    plain, ours = round(n * shares["plaintext"]), round(n * shares["encrypted_normalised"])
    sealed = results["subjects"].get("sealed")
    begun = _known(results)
    if sealed:
        begun += (
            f"<p>These are the schemes sketch and sap. Under sealed, the default, the stolen files of the same "
            f'{sealed["records"]:,} embeddings hold <b class="good">{sealed["index_vectors"]:,} index vectors</b>: '
            "the attack has nothing to begin with, so there is no picture to show.</p>"
        )
    return (
        "<header><h1>Steal a face embedding, get the face</h1>"
        f'<p class="lead">A thief who copies plaintext embeddings rebuilds faces that a verifier takes for the '
        f'person in <b class="bad">{plain} of {n}</b> cases. From the same embeddings, encrypted, he gets strangers: '
        f'<b class="good">{ours} of {n}</b> accepted.</p>{begun}</header>'
    )


def _known(results: Mapping[str, Any]) -> str:
    """Say what known pairs give the thief, where it was measured."""
    way, judge, n = f"search@{results['iterations']}", results["model"]["name"], results["people"]
    rows = {name: results["details"].get(name, {}).get(way) for name in ("aligned_20", "sap_aligned_20")}
    told = [f"{round(n * row[judge]['accepted'])} of {n}" for row in rows.values() if row]
    if len(told) < len(rows):
        return ""
    return (
        "<p>A thief who also knows 20 of the stored photographs, and which records they are, gets "
        f'<b class="bad">{told[0]}</b> from sketch and <b class="bad">{told[1]}</b> from sap.</p>'
    )


def _figure(face: Face, extra: bool) -> str:
    if face.image is None:
        return f'<div class="face none{" extra" if extra else ""}"><span>nothing to begin with</span></div>'
    kind = "" if face.accepted is None else " bad" if face.accepted else " good"
    words = "" if face.cosine is None else f"<figcaption>other photo {face.cosine:.2f}</figcaption>"
    if face.accepted is not None:
        said = "✓ accepted" if face.accepted else "✗ stranger"
        words = f"<figcaption><b>{said}</b>alike {face.cosine:.2f}</figcaption>"
    return (
        f'<figure class="face{kind}{" extra" if extra else ""}"><img src="{inline(face.image)}" alt="">{words}</figure>'
    )


def _faces(gallery: Gallery) -> str:
    if not gallery.rows:
        return ""
    extras = [title.startswith("+") for title, _ in gallery.columns]
    heads = "".join(
        f'<div class="head{" extra" if extra else ""}">{escape(title.lstrip("+"))}<small>{escape(small)}</small></div>'
        for (title, small), extra in zip(gallery.columns, extras, strict=True)
    )
    body = "".join(_figure(face, extra) for row in gallery.rows for face, extra in zip(row, extras, strict=True))
    wide, narrow = len(extras), len(extras) - sum(extras)
    rule = (
        f"<style>.faces{{grid-template-columns:repeat({wide},1fr)}}@media(max-width:700px){{.faces"
        f"{{grid-template-columns:repeat({narrow},1fr)}}}}</style>"
    )
    return f'{rule}<div class="faces">{heads}{body}</div>'


def _loops(gallery: Gallery) -> str:
    out = []
    for title, frames in gallery.loops.items():
        shown = "".join(
            f'<figure class="face"><img src="{inline(face.image)}" alt="">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, face in frames
            if face.image is not None
        )
        out.append(f"<p>{escape(title)}</p><div class='loop'>{shown}</div>")
    words = "The best face so far, after so many questions to the public model. The first picture is the photograph."
    return _section("The loop, step by step", "".join(out), words)


def _bars(results: Mapping[str, Any]) -> str:
    way = f"search@{results['iterations']}"
    judges = [(results["model"]["name"], "attacked model", results["model"])]
    if results.get("second_model"):
        second = results["second_model"]
        judges.append((second["name"], "second, independent model", second))
    out = []
    for judge, words, facts in judges:
        chance = results["chance"][judge]["accepted"]
        best = percent(facts["genuine_accepted"])
        out.append(
            f'<div class="model">{escape(judge)}, the {words} <span class="dim">accepts two real photographs of a '
            f"person in {best} of these cases, random faces in {percent(chance)}</span></div>"
        )
        for name, ways in _ordered(results["details"]):
            used = way if way in ways else next((w for w in ways if w.startswith("search")), None)
            if used is None or judge not in ways[used]:
                continue
            row = ways[used][judge]
            low, high = (100 * end for end in row["interval"])
            title, small = NAMES.get(name, (name, ""))
            small = small if used == way else f"{small}, {used.partition('@')[2]} steps"
            kind = "b-bad" if row["interval"][0] > chance else "b-good"
            out.append(
                f'<div class="bar"><div class="name">{escape(title)}<small>{escape(small)}</small></div>'
                f'<div class="track {kind}"><i style="width:{100 * row["accepted"]:.1f}%"></i>'
                f'<u style="left:{low:.1f}%;width:{high - low:.1f}%"></u><s style="left:{100 * chance:.2f}%"></s></div>'
                f'<div class="figure"><b>{percent(row["accepted"])}</b> ({low:.0f} to {high:.0f})</div></div>'
            )
    return "".join(out)


def _table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _tasks(tasks: Mapping[str, Any]) -> str:
    rows = []
    for task, title in TASKS.items():
        found = tasks.get(task, {})
        for figure, plain in found.get("plaintext", {}).items():
            cells = [f"{title}: {FIGURES.get(figure, figure)}", f"{100 * plain:.2f}"]
            for name in ("sealed", "encrypted", "sap"):
                if name in found:
                    there = found[name][figure]
                    cells.append(f"{100 * there:.2f} ({100 * (there - plain):+.2f})")
            rows.append(cells)
    return _table(["Task", "plaintext", "sealed", "sketch", "sap"], rows) if rows else ""


def _ways(results: Mapping[str, Any]) -> str:
    details, order = results["details"], []
    for ways in details.values():
        order += [way for way in ways if way not in order]
    judges = list(results["chance"])

    def cell(ways: Mapping[str, Any], way: str) -> str:
        return " / ".join(f"{100 * ways[way][judge]['accepted']:.0f}" for judge in judges) if way in ways else ""

    heads = ["From"]
    for way in order:
        loop, _, count = way.partition("@")
        heads.append("nearest start" if count == "0" else f"{LOOPS.get(loop, loop)} {count}".strip())
    rows = [
        [", ".join(NAMES.get(name, (name, ""))), *(cell(ways, way) for way in order)]
        for name, ways in _ordered(details)
    ]
    if results["subjects"].get("sealed", {}).get("index_vectors") == 0:
        rows.insert(1, ["Sealed, the default", *["nothing to begin with"] * len(order)])
    return _table(heads, rows)


def _ordered(details: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the subjects in the order of NAMES, unknown ones last."""
    known = [name for name in NAMES if name in details]
    return [(name, details[name]) for name in [*known, *(name for name in details if name not in NAMES)]]


def _text(text: Mapping[str, Any]) -> str:
    if not text:
        return ""
    heads = ["From", "intent recognised", "words found with 8 guesses", "nearest sentence: same intent", "words shared"]
    rows = [
        [", ".join(part for part in (NAMES | FLOORS).get(name, (name, "")) if part)]
        + [f"{100 * value:.1f}" for value in figures.values()]
        for name, figures in text["figures"].items()
    ]
    return _table(heads, rows)


def _credit(results: Mapping[str, Any]) -> str:
    data = results["data"]
    return f"<p>{escape(data['credit'])}.</p>" if data.get("credit") else ""


def _origin(results: Mapping[str, Any]) -> str:
    scheme = results["subjects"].get("encrypted", {})
    shown = ", ".join(f"{name}={value}" for name, value in scheme.items() if value is not None)
    facts = [
        ("photographs", f"{results['data']['photographs']:,} of {results['data']['people']:,} people"),
        ("stored", f"{results['data']['stored']:,} embeddings under one key ({shown})"),
        ("command", results["command"]),
        ("versions", ", ".join(f"{name} {value}" for name, value in results["versions"].items())),
    ]
    lines = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts)
    return f"<section><h2>Where it comes from</h2><dl>{lines}</dl></section>"
