"""Print the figures of results.json and olivetti.json as docs/faces.md shows them.

    python -m benchmarks.faces.tables       after a run: paste what it prints

A test checks the page against it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faces.page import percent
from encvec_store.lab.leakage.reading import percent as exact

__all__ = ["OLIVETTI", "RESULTS", "blocks"]

RESULTS = Path(__file__).with_name("results.json")
"""LFW: `make faces ARGS=--full` writes it."""
OLIVETTI = Path(__file__).with_name("olivetti.json")
"""What `python -m benchmarks.faces.command run` wrote of the Olivetti faces without torch."""
THIEVES = Path(__file__).parents[1] / "results" / "faces-thieves.jsonl"
"""What `python -m benchmarks.faces.thieves` wrote."""
DRAWN = THIEVES.with_name("faces-drawn.jsonl")
"""What `python -m benchmarks.faces.drawn` wrote beside the picture."""
_SUBJECTS = {
    "plaintext": "plaintext, as most databases hold them",
    "encrypted": "encrypted, sketch",
    "encrypted_normalised": "... brought back to the range of embeddings",
    "wrong_key": "... decrypted with a wrong key",
    "mapper": "... a mapper trained under a wrong key",
    "aligned_0": "... aligned without the key, no known pairs",
    "aligned_10": "... aligned, 10 known pairs",
    "aligned_20": "... aligned, 20 known pairs",
    "mapped_20": "... aligned, 20 known pairs, and a trained mapper",
    "aligned_50": "... aligned, 50 known pairs",
    "sap": "`sap`, beta 2.5, as it is",
    "sap_normalised": "... brought back to the range of embeddings",
    "sap_wrong_key": "... decrypted with a wrong key",
    "sap_mapper": "... a mapper trained under a wrong key",
    "sap_aligned_0": "... aligned without the key, no known pairs",
    "sap_aligned_10": "... aligned, 10 known pairs",
    "sap_aligned_20": "... aligned, 20 known pairs",
    "sap_mapped_20": "... aligned, 20 known pairs, and a trained mapper",
    "ironcore": "{ironcore}, beta 2.5, as it is",
    "ironcore_aligned_0": "... aligned without the key, no known pairs",
}
_PARTS = {
    "nearest start, of {pool:,} random faces": ("{}", "search@0"),
    "black box, {first:,} iterations": ("{}", "search@{first}"),
    "black box, {last:,} iterations": ("{}", "search@{last}"),
    "gradient, {climb} steps": ("{}", "climb@{climb}"),
    "ridge": ("{}", "ridge"),
    "normalised, {last:,} iterations": ("{}_normalised", "search@{last}"),
    "decrypted with a wrong key": ("{before}wrong_key", "search@{last}"),
    "mapper trained under his own key": ("{before}mapper", "search@{last}"),
    "aligned, no known pairs": ("{before}aligned_0", "search@{last}"),
    "aligned, 10 known pairs": ("{before}aligned_10", "search@{last}"),
    "aligned, 20 known pairs": ("{before}aligned_20", "search@{last}"),
    "... and a trained mapper": ("{before}mapped_20", "search@{last}"),
}
"""What is tried -> subject and way; index vectors as they are where no more is said."""
_EVERYDAY = {
    "retrieval: five nearest as in plaintext": ("identification", "same_lists"),
    "retrieval: right person first": ("identification", "rank_1"),
    "matching: TAR at FAR 1e-3": ("verification", "tar_at_far_1e-3"),
    "classification: k-NN accuracy": ("classification", "knn_accuracy"),
    "clustering: ARI": ("clustering", "ari"),
    "anomalies: strangers told apart, AUC": ("anomaly", "stranger_auc"),
    "anomalies: wrong names found, AUC": ("anomaly", "misnamed_auc"),
}
_COLUMNS = ("plaintext", "sealed", "encrypted", "sap")
_TASKS = {
    "identification": {
        "same_lists": "identification, the five nearest as in plaintext",
        "rank_1": "identification, rank 1",
        "rank_5": "identification, rank 5",
    },
    "verification": {
        "tar_at_far_1e-2": "verification, TAR at FAR 1e-2",
        "tar_at_far_1e-3": "verification, TAR at FAR 1e-3",
        "eer": "verification, equal error rate",
        "accuracy_10_fold": "verification, accuracy, ten folds",
    },
    "clustering": {"ari": "clusters, ARI", "nmi": "clusters, NMI"},
    "classification": {"knn_accuracy": "k-NN accuracy"},
    "anomaly": {"stranger_auc": "strangers told apart, AUC", "misnamed_auc": "wrong names found, AUC"},
}
_SENTENCES = {
    **{name: words for name, words in _SUBJECTS.items() if not name.startswith(("sap", "ironcore"))},
    "plaintext": "plaintext",
    "chance": "chance: embeddings of other sentences",
    "nothing": "nothing stolen: the most common words are guessed",
}
_JUDGES = ("facenet", "face-api")


def blocks(results: Mapping[str, Any], olivetti: Mapping[str, Any]) -> dict[str, str]:
    """Markdown by name: drawn, parts, begun, lead, attack, ways, second, everyday, tasks, sentences, pairs, thieves."""
    rows = results["details"]
    kinds = {"ironcore": results["subjects"].get("ironcore", {}).get("name", "")}
    titles = {name: words.format(**kinds) for name, words in _SUBJECTS.items() if name in rows}
    thieves, drawn = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in (THIEVES, DRAWN)
    )
    return {
        "drawn": _drawn(drawn),
        "parts": _parts(olivetti),
        "begun": _begun(olivetti),
        "lead": _lead(results),
        "attack": _attack(results, titles),
        "ways": _ways(results, titles),
        "second": _second(rows),
        "everyday": _everyday(results["tasks"]),
        "tasks": _tasks(results["tasks"]),
        "sentences": _sentences(results["text"]),
        "pairs": _pairs(thieves),
        "thieves": _thieves(thieves),
    }


def _parts(results: Mapping[str, Any]) -> str:
    counts, rows, judge = results["settings"]["iterations"], results["details"], results["model"]["name"]
    numbers = {**results["settings"], "first": min(counts), "last": max(counts)}

    def tried(column: str, subject: str, way: str) -> str:
        if column == "sealed":
            return "nothing to begin with"
        name = subject.format(column, before="sap_" if column == "sap" else "")
        if column == "plaintext" and name != column:
            return ""
        row = rows[name][way.format(**numbers)][judge]
        return f"{percent(row['accepted'])}, {row['cosine_stolen']:.2f}"

    if results["subjects"]["sealed"]["index_vectors"]:
        raise SystemExit("a sealed store has index vectors: the page says that it has none")
    body = [
        [words.format(**numbers), *(tried(column, *given) for column in _COLUMNS)] for words, given in _PARTS.items()
    ]
    body += [
        [words, *(f"{100 * results['tasks'][task][column][figure]:.2f}%" for column in _COLUMNS)]
        for words, (task, figure) in _EVERYDAY.items()
    ]
    return _table(["part", "plaintext", "`sealed`", "`sketch`", "`sap`"], body)


def _begun(results: Mapping[str, Any]) -> str:
    sealed, chance = results["subjects"]["sealed"], results["chance"][results["model"]["name"]]
    return (
        f"The stolen files of the sealed store hold {sealed['records']:,} records and {sealed['index_vectors']} index "
        f"vectors. By chance, {percent(chance['accepted'])} of random faces are accepted, at a cosine of "
        f"{chance['cosine_stolen']:.2f}; of two real photographs of a person, "
        f"{percent(results['model']['genuine_accepted'])}."
    )


def _lead(results: Mapping[str, Any]) -> str:
    scheme = results["subjects"]["encrypted"]
    counts = " and ".join(f"{count:,}" for count in results["settings"]["iterations"])
    return (
        f"LFW, {results['data']['stored']:,} photographs stored under one key (`{scheme['name']}`, k={scheme['k']}, "
        f"beta {scheme['beta']}), {results['people']} people attacked, black box, {counts} iterations."
    )


def _attack(results: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    counts, rows, chance = results["settings"]["iterations"], results["details"], results["chance"]
    last = f"search@{results['iterations']}"
    ways = [(judge, f"search@{count}") for judge in _JUDGES for count in counts]
    heads = [f"{'FaceNet' if judge == 'facenet' else judge}, {count:,}" for judge in _JUDGES for count in counts]
    body = [
        [title, *(_share(rows[name][way][judge]) for judge, way in ways), _cosines(rows[name][last]["facenet"])]
        for name, title in titles.items()
    ]
    body.append(
        ["chance: random faces of the generator"]
        + [percent(chance[judge]["accepted"]) for judge, _ in ways]
        + [_cosines(chance["facenet"])]
    )
    ceilings = {"facenet": results["model"], "face-api": results["second_model"]}
    body.append(
        ["ceiling: two real photographs", *(percent(ceilings[judge]["genuine_accepted"]) for judge, _ in ways), ""]
    )
    return _table(["embeddings stolen", *heads, "cosine to the stolen / to other photographs"], body)


def _ways(results: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    ways = {f"climb@{results['settings']['climb']}": "gradient, {} steps", "ridge": "ridge"}
    ways = {way: title.format(way.partition("@")[2]) for way, title in ways.items()}
    heads = [f"{title}: {judge}" for title in ways.values() for judge in ("FaceNet", "face-api")]
    rows = results["details"]
    body = [
        [title, *(percent(rows[name][way][judge]["accepted"]) for way in ways for judge in _JUDGES)]
        for name, title in titles.items()
    ]
    return _table(["embeddings stolen", *heads], body)


def _second(rows: Mapping[str, Any]) -> str:
    def most(name: str) -> float:
        ways = (told["face-api"] for way, told in rows[name].items() if way != "ridge")
        return max(float(told["accepted_against_stolen"]) for told in ways)

    ours = max(map(most, ("encrypted", "encrypted_normalised", "wrong_key", "aligned_0")))
    return (
        f"Against the stolen photograph itself face-api accepts up to {percent(most('plaintext'))} of the faces "
        f"rebuilt from plaintext, and {percent(ours)} of those from the index vectors of a sketch without pairs."
    )


def _differences(tasks: Mapping[str, Any]) -> list[float]:
    return [
        100 * abs(found["encrypted"][figure] - plain)
        for found in tasks.values()
        for figure, plain in found["plaintext"].items()
    ]


def _everyday(tasks: Mapping[str, Any]) -> str:
    return (
        "Identification, verification, clustering, classification and anomalies through the encrypted store stay "
        f"within {max(_differences(tasks)):.2f} points of plaintext."
    )


def _tasks(tasks: Mapping[str, Any]) -> str:
    names = ("plaintext", "encrypted", "sap")
    body = [
        [words, *(f"{100 * tasks[task][name][figure]:.2f}" for name in names)]
        for task, figures in _TASKS.items()
        for figure, words in figures.items()
        if figure in tasks[task]["plaintext"]
    ]
    return _table(["task, %", "plaintext", "encrypted", "`sap`"], body)


def _sentences(text: Mapping[str, Any]) -> str:
    heads = [
        "embeddings stolen",
        "intent recognised",
        "words found with 8 guesses",
        "nearest sentence of the same intent",
    ]
    keys = ("intent_accuracy", "word_recall_at_8", "nearest_sentence_same_intent", "nearest_sentence_shared_words")
    body = [
        [title, *(f"{100 * text['figures'][name][key]:.1f}%" for key in keys)]
        for name, title in _SENTENCES.items()
        if name in text["figures"]
    ]
    return _table([*heads, "words shared with it"], body)


def _pairs(rows: Sequence[Mapping[str, Any]]) -> str:
    named = {
        (row["scheme"], int(row["what"].split()[0])): exact(row["identified"])
        for row in rows
        if "known pairs" in row["what"]
    }
    told = " and ".join(f"{named['sketch', pairs]} with {pairs}" for pairs in (10, 20))
    return f"Of LFW, stored under `sketch`, he names {told} known pairs; under `sap`, {named['sap', 10]} with 10."


def _drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    plain = next(row for row in rows if "plaintext" in row.get("line", ""))
    sealed = next(row for row in rows if row.get("what") == "sealed")
    known, alone = (
        {row["scheme"]: row["accepted"] for row in rows if "scheme" in row and ("known" in row["what"]) is pairs}
        for pairs in (True, False)
    )
    return (
        f"Of these {plain['shown']}, a verifier accepts {plain['accepted']} faces rebuilt from plaintext embeddings. "
        f"From index vectors, by a mapper trained on other faces, it accepts {alone['sketch']} (`sketch`) and "
        f"{alone['sap']} (`sap`); once the thief knows 20 other records, {known['sketch']} and {known['sap']}. Under "
        f"`sealed`, the default, the stolen files of the same {sealed['n']:,} records hold "
        f"{sealed['index_vectors']} index vectors: there is nothing to begin with."
    )


def _thieves(rows: Sequence[Mapping[str, Any]]) -> str:
    body = [
        [
            f"`{row['scheme']}`",
            str(row["what"]),
            exact(row["identified"]) if "identified" in row else "",
            exact(row["mapped_identified"]) if "mapped_identified" in row else "nothing to begin with",
            f"{row['cosine']:.2f} / {row['cosine_centered']:.2f}" if "cosine" in row else "",
        ]
        for row in rows
    ]
    heads = ["scheme", "the thief has", "named", "named by the mapper's embedding", "cosine / mean taken off"]
    return _table(heads, body)


def _share(row: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in row["interval"])
    return f"{percent(row['accepted'])} ({low:.0f} to {high:.0f})"


def _cosines(row: Mapping[str, Any]) -> str:
    return f"{row['cosine_stolen']:.2f} / {row['cosine_other']:.2f}"


def _table(heads: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [list(heads), ["---"] * len(heads), *body]
    return (
        "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("| --- ", "|---").replace("--- |", "---|")
    )


def main() -> None:
    """Print every block."""
    read = (json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, OLIVETTI))
    for name, text in blocks(*read).items():
        print(f"<!-- {name} -->\n\n{text}\n")


if __name__ == "__main__":
    main()
