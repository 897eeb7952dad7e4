"""The README's charts are those of the results in the repository."""

import re
from pathlib import Path

import pytest

from benchmarks.charts import draw, latency, thief

IMAGES = Path(__file__).resolve().parents[2] / "docs/images"


@pytest.mark.parametrize(("name", "picture"), draw().items(), ids=str)
def test_pictures_are_up_to_date(name, picture):
    assert (IMAGES / name).read_text(encoding="utf-8") == picture, "run `python -m benchmarks.charts`"


def test_they_show_every_store_and_every_thief():
    shown = {point["name"] for point in latency()}
    assert {"FAISS + SQLite", "Chroma", "LanceDB", "pgvector", "encvec, folder", "encvec, PostgreSQL"} == shown
    picture = (IMAGES / "latency.svg").read_text(encoding="utf-8")
    assert all(f">{name} " in picture for name in shown)
    shares = thief()
    assert set(shares) == {"plaintext", "sketch", "sealed"}
    picture = (IMAGES / "thief.svg").read_text(encoding="utf-8")
    bars = re.findall(r'height="([\d.]+)" fill="#(?:b0413e|2c7a4b)"', picture)
    told = [share for row in shares.values() for share in row.values()]
    assert len(told) == 9
    assert [float(bar) / 40 for bar in bars] == pytest.approx(told, abs=0.002)
