"""What the tests of moving share: a table of many types, statements, and vectors that both sides can make up."""

import json

import numpy as np
import psycopg

DIM, N = 8, 300


def vectors(n=N, seed=7):
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def ask(dsn, statement, *values):
    """Run one statement on a connection of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def text(vector):
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def make_items(dsn, n=N, kind="vector"):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('fine', 'so so')")
        connection.execute(
            f"CREATE TABLE items (id bigint PRIMARY KEY, embedding {kind}({DIM}), document text, n int, flag bool,"
            " word varchar, at timestamptz, day date, clock timestamp, who uuid, price numeric, real8 float8,"
            ' raw bytea, tags text[], numbers int[], mood mood, moods mood[], more jsonb, "We ird" text)'
        )
        rows = [
            (
                i * 3,
                text(row),
                None if i % 5 == 0 else f"text {i} größe",
                *(i, i % 2 == 0, ["de", "fr"][i % 2], f"2024-05-0{1 + i % 9} 12:00:00.25+02", f"2024-05-0{1 + i % 9}"),
                *(
                    "2024-05-01 10:00:00",
                    f"00000000-0000-0000-0000-{i:012}",
                    f"{i}.10",
                    i / 7,
                    bytes([i % 256, 0, 255]),
                ),
                *(["a", None, "ü"], [i, -i], "so so", ["fine"]),
                json.dumps({"x": [1, 2.5, None, {"$date": "2024-05-01"}], "y": True}),
                "quoted" if i % 3 else None,
            )
            for i, row in enumerate(vectors(n))
        ]
        with connection.cursor() as cursor:
            marks = ["%s"] * len(rows[0])
            marks[1], marks[15], marks[16] = f"%s::{kind}", "%s::mood", "%s::mood[]"
            cursor.executemany(f"INSERT INTO items VALUES ({', '.join(marks)})", rows)
