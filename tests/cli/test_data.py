"""`encvec search`, `get`, `delete`, `count`: right answers, documents of one shape, exit codes."""

import io
import json
import re

import numpy as np
import pytest

from tests.cli.conftest import DIM

pytestmark = pytest.mark.usefixtures("docs")


def nearest_scores(vectors, query):
    return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


def nearest(vectors, query, k, keep=None):
    scores = nearest_scores(vectors, query)
    order = [int(n) for n in np.argsort(-scores) if keep is None or keep(n)]
    return [f"r{n}" for n in order[:k]], scores[order[:k]]


def test_search_json_is_one_document_a_query(home, encvec, docs, vectors):
    np.save("q.npy", vectors[100:103])
    answer = encvec("search", "docs", "--vector-file", "q.npy", "-k", 5, "--json")
    assert (answer.code, answer.err, len(answer.lines)) == (0, "", 3)
    for number, line in enumerate(answer.lines):
        assert line.keys() == {"query", "hits"}
        assert line["query"] == number
        assert all(hit.keys() == {"id", "score", "metadata", "document"} for hit in line["hits"])
        ids, scores = nearest(docs, vectors[100 + number], 5)
        assert [hit["id"] for hit in line["hits"]] == ids
        assert np.allclose([hit["score"] for hit in line["hits"]], scores, atol=1e-5)


def test_every_way_to_give_a_query_gives_the_same(home, encvec, docs, vectors, monkeypatch):
    text = json.dumps(docs[3].tolist())
    np.save("q.npy", docs[3])
    (home / "q.json").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    ways = [("--vector", text), ("--vector-file", "q.npy"), ("--vector-file", "q.json"), ("--vector-file", "-")]
    answers = [encvec("search", "docs", *way, "-k", 4, "--json").document for way in [*ways, ("--id", "r3")]]
    assert answers[0]["hits"][0]["id"] == "r3"
    assert all(answer == answers[0] for answer in answers)


def test_search_filters_and_gives_vectors(encvec, docs):
    options = ["--where", '{"lang": "de", "n": {"gte": 12}}', "--vectors", "--oversample", "60", "--json"]
    hits = encvec("search", "docs", "--id", "r0", "-k", "100", *options).document["hits"]
    ids, _ = nearest(docs, docs[0], 100, lambda n: n % 3 == 0 and n >= 12)
    assert [hit["id"] for hit in hits] == ids
    assert all(np.array_equal(np.float32(hit["vector"]), docs[int(hit["id"][1:])]) for hit in hits)


def test_search_explained(home, encvec, vectors):
    assert "compared one by one: 60 opened vectors in memory" in encvec("search", "docs", "--id", "r0", "--explain").out
    np.save("a.npy", vectors)
    assert encvec("ingest", "noisy", "a.npy", "--scheme", "sap", "--field", "lang=blind").code == 0
    search = ("search", "noisy", "--id", "a:0", "-k", "3", "--explain")
    plain = encvec(*search)
    assert (plain.code, plain.err) == (0, "")
    assert "candidates: 30, of which the nearest 3" in plain.out
    assert "key version 1: scan, 300 of 300 records" in plain.out
    assert "a:0" not in plain.out, "explained, not answered"
    where = ("--where", '{"lang": "de"}')
    told = encvec(*search, *where, "--json").document["explain"]
    assert "filter: " in told
    assert told.splitlines()[1:] == encvec(*search, *where).out.splitlines()[1:]


def test_oversample_is_for_this_search(home, encvec, vectors):
    np.save("a.npy", vectors)
    assert encvec("ingest", "noisy", "a.npy", "--scheme", "sap", "--beta", "8").code == 0
    exact = {f"a:{n}" for n in np.argsort(-nearest_scores(vectors, vectors[0]))[:10]}

    def found(*options):
        hits = encvec("search", "noisy", "--id", "a:0", "--json", *options).document["hits"]
        return len(exact & {hit["id"] for hit in hits})

    assert found("--oversample", 30) == 10
    assert found("--oversample", 1) < 10
    assert encvec("stats", "noisy", "--json").document["oversample"] == 10


def test_search_prints_a_table(encvec):
    answer = encvec("search", "docs", "--id", "r5", "-k", 2)
    first, second, *_ = answer.out.splitlines()
    assert first.split() == ["id", "score", "document", "metadata"]
    assert re.fullmatch(r'r5 +1 +text 5 +\{"lang": "en", "n": 5\} *', second)


def test_no_hits_is_no_error(encvec):
    answer = encvec("search", "docs", "--id", "r5", "--where", '{"lang": "xx"}')
    assert (answer.code, answer.out, answer.err) == (0, "", "encvec: no hits\n")
    answer = encvec("search", "docs", "--id", "r5", "--where", '{"lang": "xx"}', "--json")
    assert answer.document == {"query": 0, "hits": []}


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ([], "UsageError", "one of --vector, --vector-file, --id and --like"),
        (["--id", "r1", "--vector", "[1]"], "UsageError", "one of"),
        (["--id", "r1", "--like", "r2"], "UsageError", "one of"),
        (["--id", "r1", "--unlike", "r2"], "UsageError", "--unlike goes with --like"),
        (["--like", "r1", "--explain"], "UsageError", "--explain goes with"),
        (["--like", "r1", "--unlike", "nope"], "InputError", "no record 'nope'"),
        (["--id", "nope"], "InputError", "no record 'nope' in collection 'docs'"),
        (["--vector", "[1, 2]"], "ShapeError", "a query of 2 numbers, where 'docs' has vectors of 8"),
        (["--vector", "[0, 0, 0, 0, 0, 0, 0, 0]"], "ZeroVectorError", "zero"),
        (["--vector", "[NaN, 0, 0, 0, 0, 0, 0, 0]"], "NonFiniteError", "NaN"),
        (["--vector", "x"], "InputError", "--vector is not JSON"),
        (["--vector-file", "nope.npy"], "OSError", "nope.npy: No such file or directory"),
        (["--vector-file", "docs.jsonl"], "InputError", "docs.jsonl is not JSON"),
        (["--id", "r1", "-k", "0"], "UsageError", "-k"),
        (["--id", "r1", "--where", "{"], "FilterError", "--where is not JSON"),
        (["--id", "r1", "--where", '{"x": 1}'], "UnknownFieldError", "the collection declares: lang, n"),
        (["--id", "r1", "--where", '{"n": {"near": 1}}'], "FilterError", "unknown operator 'near'"),
    ],
    ids=str,
)
def test_search_says_what_is_wrong(encvec, options, kind, said):
    answer = encvec("search", "docs", *options, "--json")
    assert (answer.code, answer.out, answer.error["type"]) == (2, "", kind)
    assert said in answer.error["message"]
    plain = encvec("search", "docs", *options)
    assert (plain.code, plain.out, plain.err.count("\n")) == (2, "", 1)
    assert plain.err.startswith("encvec: ")


def test_pages_orders_and_groups(encvec, docs):
    order = ["get", "docs", "--all", "--order-by", "-n", "--offset", 1, "--limit", 2, "--json"]
    assert [line["id"] for line in encvec(*order).lines] == ["r58", "r57"]
    assert [line["id"] for line in encvec("get", "docs", "r1", "r2", "--order-by", "-n", "--json").lines] == [
        "r2",
        "r1",
    ]
    hits = encvec("search", "docs", "--id", "r0", "-k", 9, "--group-by", "lang", "--json").document["hits"]
    assert len({hit["metadata"]["lang"] for hit in hits}) == len(hits) == 3
    how = ["--threshold", f"{hits[1]['score']:.6f}", "--offset", 1, "--diversity", "0"]
    few = encvec("search", "docs", "--id", "r0", "-k", 60, *how, "--json").document["hits"]
    assert all(hit["score"] >= hits[1]["score"] - 1e-5 for hit in few)


def test_search_by_examples(encvec, docs):
    unit = docs / np.linalg.norm(docs, axis=1, keepdims=True)
    found = encvec("search", "docs", "--like", "r1", "--like", "r2", "--unlike", "r3", "-k", 5, "--json").document[
        "hits"
    ]
    ids, _ = nearest(docs, unit[1] + unit[2] - unit[3], 5, lambda n: n not in (1, 2, 3))
    assert [hit["id"] for hit in found] == ids
    where = ["--where", '{"lang": "de"}', "--offset", 1, "-k", 3, "--json"]
    found = encvec("search", "docs", "--like", "r1", *where).document["hits"]
    assert [hit["id"] for hit in found] == nearest(docs, docs[1], 4, lambda n: n % 3 == 0)[0][1:]


def test_update(home, encvec, docs, monkeypatch):
    (home / "text").write_text("ein Text", encoding="utf-8")
    answer = encvec("update", "docs", "r1", "nope", "--set", '{"seen": true}', "--document", "text", "--json")
    assert answer.document["updated"] == 1
    (record,) = encvec("get", "docs", "r1", "--json").lines
    assert record["document"] == "ein Text"
    assert record["metadata"]["seen"] is True
    assert record["metadata"]["n"] == 1
    monkeypatch.setattr("sys.stdin", io.StringIO('{"lang": "xx"}'))
    assert encvec("update", "docs", "--where", '{"n": {"lt": 3}}', "--set", "-", "--replace").code == 0
    assert [line["metadata"] for line in encvec("get", "docs", "r0", "r1", "--json").lines] == [{"lang": "xx"}] * 2
    set_ = ["--set", '{"a": 1}']
    for wrong in (["r1"], set_, ["r1", "--where", "{}", *set_], ["r1", "--set", "-", "--document", "-"]):
        assert encvec("update", "docs", *wrong).code == 2
    assert "--set must be a JSON object" in encvec("update", "docs", "r1", "--set", "[]").err


@pytest.mark.parametrize("command", ["search", "get", "count", "stats", "calibrate", "delete", "drop", "verify"])
def test_an_unknown_collection_is_named_with_those_there_are(encvec, command):
    more = {"search": ["--id", "r1"], "get": ["r1"], "delete": ["r1"], "drop": ["--yes"]}.get(command, [])
    for options in ([], ["--tenant", "acme"]):
        answer = encvec(command, "doc", *more, *options)
        assert answer.code == 2
        assert "no collection 'doc'" in answer.err
        if not options:
            assert "there are: 'docs'" in answer.err


def test_get_prints_records_in_the_order_asked(encvec, docs):
    answer = encvec("get", "docs", "r7", "r2", "--vectors", "--json")
    assert [line["id"] for line in answer.lines] == ["r7", "r2"]
    assert answer.lines[0] == {
        "id": "r7",
        "metadata": {"lang": "fr", "n": 7},
        "document": "text 7",
        "vector": answer.lines[0]["vector"],
    }
    assert np.array_equal(np.float32(answer.lines[0]["vector"]), docs[7])
    assert "vector" not in encvec("get", "docs", "r7", "--json").document


def test_get_of_unknown_ids_is_a_bad_answer(encvec):
    answer = encvec("get", "docs", "r7", "x", "y", "--json")
    assert (answer.code, len(answer.lines)) == (1, 1)
    assert json.loads(answer.err) == {"missing": ["x", "y"]}
    answer = encvec("get", "docs", "x")
    assert (answer.code, answer.err) == (1, "encvec: not found: 'x'\n")


def test_get_by_filter_limit_and_all(encvec):
    assert len(encvec("get", "docs", "--all", "--json").lines) == 60
    assert len(encvec("get", "docs", "--all", "--limit", 7, "--json").lines) == 7
    found = encvec("get", "docs", "--where", '{"lang": "fr"}', "--json").lines
    assert {line["id"] for line in found} == {f"r{n}" for n in range(1, 60, 3)}
    assert "r59" in encvec("get", "docs", "--all").out
    assert encvec("get", "docs").code == encvec("get", "docs", "r1", "--all").code == 2


def test_count(encvec):
    assert encvec("count", "docs").out == "60\n"
    answer = encvec("count", "docs", "--where", '{"lang": {"in": ["de", "fr"]}}', "--json")
    assert answer.document == {"collection": "docs", "tenant": "", "count": 40}


def test_delete_by_id(encvec):
    answer = encvec("delete", "docs", "r1", "r2", "nope", "--json")
    assert answer.code == 0
    assert answer.document == {"collection": "docs", "tenant": "", "deleted": 2, "count": 58}
    assert encvec("get", "docs", "r1").code == 1


def test_delete_by_filter_asks_first(encvec, monkeypatch):
    where = ["--where", '{"lang": "de"}']
    answer = encvec("delete", "docs", *where)
    assert answer.code == 2
    assert "add --yes if you mean it" in answer.err
    terminal = io.StringIO("n\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    answer = encvec("delete", "docs", *where)
    assert (answer.code, answer.out) == (1, "")
    assert "Delete 20 of the 60 records of 'docs'?" in answer.err
    assert encvec("delete", "docs", *where).code == 130  # the end of the input is no answer
    assert encvec("count", "docs").out == "60\n"
    terminal.seek(0)
    terminal.write("y\n")
    terminal.seek(0)
    assert encvec("delete", "docs", *where).code == 0
    assert encvec("count", "docs").out == "40\n"


def test_delete_by_filter_with_yes(encvec):
    where = ["--where", '{"lang": "de"}']
    assert encvec("delete", "docs", *where, "--yes", "--json").document["deleted"] == 20


def test_delete_never_takes_everything_by_accident(encvec):
    for options in ([], ["r1", "--where", '{"n": 1}'], ["--where", "{}", "--yes"]):
        assert encvec("delete", "docs", *options).code == 2
    assert encvec("count", "docs").out == "60\n"


def test_stored_text_cannot_steer_the_terminal(home, encvec):
    evil = "\x1b]0;owned\x07[red]x[/red]"
    line = {"id": evil, "vector": [1] * DIM, "metadata": {"n": 0, evil: evil}, "document": evil}
    (home / "evil.jsonl").write_text(json.dumps(line))
    assert encvec("ingest", "docs", "evil.jsonl").code == 0
    for args in (["get", "docs", evil], ["search", "docs", "--id", evil], ["get", "docs", "\x1b[2J"]):
        answer = encvec(*args)
        assert "\x1b" not in answer.out + answer.err
        assert "\x07" not in answer.out + answer.err
    assert "[red]x[/red]" in encvec("get", "docs", evil).out
    assert encvec("get", "docs", evil, "--json").document["document"] == evil


def test_the_store_url_says_how_a_search_reads(home, encvec):
    place = f"faiss:{home}/store?"
    found = encvec("search", "docs", "--id", "r3", "-k", 1, "--json", "--store", f"{place}reads=hits")
    assert [hit["id"] for hit in found.document["hits"]] == ["r3"]
    assert encvec("db", "current", "--store", f"{place}threat=watching-server&cache={home}/cache").code == 0
    refused = encvec("search", "docs", "--id", "r3", "--json", "--store", f"{place}reads=all")
    assert (refused.code, refused.error["type"]) == (2, "InputError")
    assert "reads must be one of candidates, hits" in refused.error["message"]


def contents(folder):
    """Return the files of a store, but for SQLite's log and its map, which readers make where they can."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "-" not in path.suffix}


def test_a_read_only_store_is_searched_verified_and_exported(home, encvec):
    place = ("--store", f"faiss:{home}/store?mode=ro")
    before = contents(home / "store")
    found = encvec("search", "docs", "--id", "r3", "-k", 1, "--json", *place)
    assert [hit["id"] for hit in found.document["hits"]] == ["r3"]
    assert encvec("verify", *place).code == 0
    assert encvec("export", "docs", "out.npy", "--plaintext", *place).code == 0
    assert np.load("out.npy").shape[1] == DIM
    refused = encvec("delete", "docs", "r3", "--yes", "--json", *place)
    assert (refused.code, refused.error["type"]) == (2, "StoreReadOnlyError")
    assert contents(home / "store") == before
