"""The standing texts of the leakage report."""

from __future__ import annotations

__all__ = ["LIMITS", "READING"]

READING = """<ul>
<li><b>Named</b>: the thief lays each ciphertext beside the candidates and picks the nearest; the share of right
picks is counted. Whoever names a record knows what it says, as far as an embedding says it.</li>
<li><b>Chance</b> is one in as many as there are records: what guessing gives. A scheme is said to be at chance where
its best attack is not told apart from guessing, at 5% over all its trials together.</li>
<li><b>Worst counts</b>: a scheme's figure is the most that any attack reached under any key.</li>
<li><b>The owner</b> holds the key, fetches the candidates and ranks their sealed originals: those of the
true ten that are not among the candidates are lost.</li>
<li><b>Cells</b> are parts of a collection, each under a rotation of its own. A thief sees which records share one; he
attacks each by itself, and all together, and the worst counts.</li>
<li><b>Intervals</b> are Wilson's, at 95%, over the records of one trial.</li></ul>"""

LIMITS = """<ul>
<li>Chance here means that <em>these</em> attacks failed on <em>these</em> data. A better attack, or more records under
one key, may succeed. It is a measurement, not a proof of security.</li>
<li>A thief may hold more than was tried: more data of the kind, known records, or a way to have own records
stored.</li>
<li>Naming is not all: who is near to whom, groups and counts can show where no record is named.</li>
<li>Whoever holds the key, or watches the owner's memory, reads everything; so does whoever alters
the program.</li></ul>"""
