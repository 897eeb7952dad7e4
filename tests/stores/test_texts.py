"""Texts in place of vectors: any function makes them, async or not; its model is kept, and no other gets among them."""

import asyncio
import re
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors

PAGE = Path(__file__).resolve().parents[2] / "docs/texts.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
DIM = 64
TEXTS = ["cats sleep all day", "rust has no garbage collector", "tea is made of leaves"]


def embed(texts, dim=DIM):
    """Return a bag of words: each word is a random direction."""
    assert type(texts) is list
    return np.array([sum(_direction(word, dim) for word in text.split()) for text in texts])


def _direction(word, dim):
    return np.random.default_rng(list(word.encode())).standard_normal(dim)


async def embed_later(texts):
    await asyncio.sleep(0)
    return embed(texts).tolist()


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


@pytest.fixture
def store(keyset):
    with ev.connect("memory:", keyset=keyset) as store:
        yield store


@pytest.mark.parametrize("function", [embed, embed_later])
def test_words_find_texts(store, function):
    docs = store.collection("docs", DIM, embed=function, model="bag")
    assert docs.upsert(list("abc"), texts=TEXTS, metadata=[{"n": n} for n in range(3)]) == 3
    assert docs.search("who has a garbage collector", k=1)[0].document == TEXTS[1]
    assert [hits[0].id for hits in docs.search(np.array(["tea leaves", "cats sleep"]), k=1)] == ["c", "a"]
    assert docs.search("tea", where={"n": {"lt": 2}})[0].id != "c"
    assert docs.search(embed(["tea leaves"])[0], k=1)[0].id == "c"
    assert "3 opened vectors" in docs.explain("tea")
    docs.upsert(["d"], texts=["secret words"], documents=[None])
    assert docs.search("secret words", k=1)[0].document is None
    assert docs.update(["a", "none"], texts=["dogs bark", "dogs"]) == 1
    (record,) = docs.get(["a"])
    assert (record.document, record.metadata) == ("dogs bark", {"n": 0})
    np.testing.assert_array_equal(record.vector, embed(["dogs bark"])[0].astype(np.float32))
    assert docs.upsert([], texts=[]) == 0
    assert docs.stats()["model"] == "bag"


def test_queries_may_have_a_function_of_their_own(store):
    docs = store.collection("docs", DIM, embed=embed, embed_query=lambda texts: -embed(texts), model="bag")
    docs.upsert(list("abc"), texts=TEXTS)
    assert [hit.id for hit in docs.search(TEXTS[2])][-1] == "c"


@pytest.mark.parametrize("kind", ["memory:", "postgresql:"])
@pytest.mark.parametrize("function", [embed, embed_later])
def test_in_an_event_loop(request, keyset, kind, function):
    """An async function runs in the caller's loop, a plain one beside it."""
    url, how = kind, {}
    if kind == "postgresql:":
        place = request.getfixturevalue("pg_place")
        url, how = place.dsn, {"schema": place.schema}
    seen = []

    def plain(texts):
        seen.append((None, threading.current_thread()))
        return function(texts)

    async def later(texts):
        seen.append((asyncio.get_running_loop(), threading.current_thread()))
        return await function(texts)

    async def main():
        async with ev.aio.connect(url, keyset=keyset, **how) as store:
            given = plain if function is embed else later
            docs = await store.collection("docs", DIM, embed=given, model="bag")
            await docs.upsert(list("abc"), texts=TEXTS)
            found = await asyncio.gather(docs.search("cats sleep", k=1), docs.search("tea leaves", k=1))
            assert [hits[0].id for hits in found] == ["a", "c"]
            with pytest.raises(errors.ConfigMismatchError, match="of model 'bag', not 'other'"):
                await store.collection("docs", embed=given, model="other")
        loops, threads = zip(*seen, strict=True)
        if given is later:
            assert set(loops) == {asyncio.get_running_loop()}
        else:
            assert threading.current_thread() not in threads

    asyncio.run(main())


def test_the_model_is_kept_sealed_and_no_other_gets_in(tmp_path, keyset):
    with ev.connect(tmp_path, keyset=keyset) as store:
        store.collection("docs", DIM, embed=embed, model="a-model-of-ours").upsert(list("abc"), texts=TEXTS)
    assert not any(b"a-model-of-ours" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with ev.connect(tmp_path, keyset=keyset) as store:
        with pytest.raises(errors.ConfigMismatchError, match="vectors are of model 'a-model-of-ours', not 'b'"):
            store.collection("docs", embed=embed, model="b")
        with pytest.raises(errors.ConfigMismatchError, match="not 'b'"):
            store.collection("docs", model="b")
        bare = store.collection("docs")
        assert bare.search(embed(["tea leaves"])[0], k=1)[0].id == "c"
        bare.upsert(["d"], embed(["more"]))
        for call in (lambda: bare.search("tea"), lambda: bare.upsert(["e"], texts=["tea"])):
            with pytest.raises(
                errors.InputError, match=r"opened without embed.*of model 'a-model-of-ours'.*embed=\.\.\."
            ):
                call()
        assert store.collection("docs", embed=embed, model="a-model-of-ours").search("more", k=1)[0].id == "d"


def test_the_first_write_that_names_a_model_settles_it(tmp_path, keyset):
    """Also in the eyes of a process that opened the collection before."""
    with ev.connect(tmp_path, keyset=keyset) as one, ev.connect(tmp_path, keyset=keyset) as two:
        one.collection("docs", DIM).upsert(["x"], embed(["x"]))
        first, second = (store.collection("docs", embed=embed, model=name) for store, name in ((one, "a"), (two, "b")))
        assert second.search("x", k=1)[0].id == "x"
        assert first.stats()["model"] is None
        first.update(["x"], metadata={"n": 1})
        assert first.stats()["model"] is None
        first.update(["x"], texts=["y"])
        assert first.stats()["model"] == "a"
        for call in (
            lambda: second.upsert(["z"], texts=["z"]),
            lambda: second.upsert(["z"], embed(["z"])),
            lambda: second.update(["x"], vectors=embed(["z"])),
            lambda: second.search("x"),
        ):
            with pytest.raises(errors.ConfigMismatchError, match="vectors of model 'a', not of 'b'"):
                call()
        assert second.count() == 1


def test_what_is_wrong_is_said(store):
    docs = store.collection("docs", DIM, embed=embed, model="bag")
    for said, call in {
        "embed needs model": lambda: store.collection("docs", embed=embed),
        "embed must be a function": lambda: store.collection("docs", embed="bag", model="bag"),
        "embed_query goes with embed": lambda: store.collection("docs", embed_query=embed, model="bag"),
        "got None: give them, or texts": lambda: docs.upsert(["a"]),
        "give one of the two": lambda: docs.upsert(["a"], embed(["a"]), texts=["a"]),
        "texts need ids": lambda: docs.update(where={}, texts=["a"]),
        "a list of strings of 2, one for each id, got 1": lambda: docs.upsert(["a", "b"], texts=["a"]),
        r"one for each id, got str": lambda: docs.upsert(["a"], texts="a"),
        r"texts\[1\] must be a string, got int": lambda: docs.upsert(["a", "b"], texts=["a", 1]),
        r"texts\[1\] must be a string, got NoneType": lambda: docs.search(["a", None]),
    }.items():
        with pytest.raises(errors.InputError, match=said):
            call()
    for answer in (lambda texts: embed(texts, 3), lambda texts: embed(texts)[0], lambda texts: embed([*texts, "x"])):
        other = store.collection("docs", embed=answer, model="bag")
        with pytest.raises(errors.ShapeError, match="a vector of 64 numbers for each of 1 texts, got shape"):
            other.upsert(["a"], texts=["a"])
    with pytest.raises(errors.NonFiniteError, match="embed's answer"):
        store.collection("docs", embed=lambda texts: np.full((1, DIM), np.nan), model="bag").search("a")
    assert docs.count() == 0


class Client:
    """Answers as the clients of the page do, with vectors of the dimension that the page says."""

    def __init__(self, dim, later=False):
        self.dim, self.later, self.embeddings = dim, later, self

    def create(self, model, input):
        assert len(input) <= 500
        data = [types.SimpleNamespace(embedding=vector.tolist()) for vector in embed(input, self.dim)]
        answer = types.SimpleNamespace(data=data)

        async def later():
            return answer

        return later() if self.later else answer

    def embed(self, texts, model, input_type, embedding_types):
        assert len(texts) <= 96
        assert input_type in ("search_document", "search_query")
        return types.SimpleNamespace(embeddings=types.SimpleNamespace(float_=embed(texts, self.dim).tolist()))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_page(monkeypatch, keyset, number):
    """Each example of the page, with clients that answer as the real ones do."""
    encoder = types.SimpleNamespace(encode=lambda texts: embed(texts, 384).astype(np.float32))
    fakes = {
        "sentence_transformers": {"SentenceTransformer": lambda name: encoder},
        "openai": {"OpenAI": lambda: Client(1536), "AsyncOpenAI": lambda: Client(1536, later=True)},
        "cohere": {"ClientV2": lambda: Client(1536)},
    }
    for name, content in fakes.items():
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**content))
    text = BLOCKS[number]
    if "await" in text:
        code = compile(
            f"async def main(store):\n{''.join(f'    {line}' for line in text.splitlines(True))}    return hits\n",
            str(PAGE),
            "exec",
        )

        async def run():
            async with ev.aio.connect("memory:", keyset=keyset) as store:
                names = {}
                exec(code, names)  # noqa: S102
                return await names["main"](store)

        assert asyncio.run(run())[0].document == "Cats sleep a lot."
        return
    with ev.connect("memory:", keyset=keyset) as store:
        names = {"store": store, "embed": encoder.encode}
        exec(compile(text, str(PAGE), "exec"), names)  # noqa: S102
        docs = names["docs"]
        docs.upsert(list(range(600)), texts=[f"text {n}" for n in range(600)])
        assert docs.search("text 7", k=1)[0].id == 7
