"""Puts the names of one store's schema into statements, quoted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

__all__ = ["HALF", "SINGLE", "Measure", "Names", "kept"]


@dataclass(frozen=True)
class Measure:
    """How an index compares vectors. The protocol asks for inner products in every case."""

    on: LiteralString
    """Expression of a column `{v}` of type vector or halfvec. An index is on it, and a search must order by it."""
    opclass: LiteralString
    operator: LiteralString
    query: LiteralString
    """Expression of a query `{v}` of that type."""


MEASURES = {
    "exact": Measure("{v}", "", "<#>", "{v}"),
    "float32": Measure("({v}::{vector}({dim}))", "{vector_ip_ops}", "<#>", "{v}"),
    "float16": Measure("({v}::{halfvec}({dim}))", "{halfvec_ip_ops}", "<#>", "{v}::{halfvec}"),
    "bit": Measure("({signs}({v})::bit({dim}))", "{bit_hamming_ops}", "<~>", "{signs}({v})"),
}
"""By storage. No index is on the expression of `exact`; `bit` keeps signs only."""


SINGLE: LiteralString = "index_vector"
"""Column of float32 index vectors."""
HALF: LiteralString = "index_half"
"""Column of float16 index vectors, in the tables of collections in half precision."""


def kept(half: bool) -> tuple[LiteralString, LiteralString, str]:
    """Return the column of index vectors, its SQL type for `Names.part`, and numpy's type of its numbers."""
    return (HALF, "{halfvec}", ">f2") if half else (SINGLE, "{vector}", ">f4")


class Names:
    """The names of tables in the store's schema, and of types and functions in that of the extension."""

    def __init__(self, schema: str, extension: str = "public") -> None:
        self.schema = schema
        self._tables: dict[str, Composable] = {
            "schema": Identifier(schema),
            "meta": Identifier(schema, "meta"),
            "collections": Identifier(schema, "collections"),
            "collections_name": Literal(Identifier(schema, "collections").as_string()),
            "blobs": Identifier(schema, "blobs"),
            "name_key": Identifier(schema, "name_key"),
            "changes": Identifier(schema, "changes"),
            "partitions": Identifier(schema, "partitions"),
            "all_records_name": Literal(Identifier(schema, "records").as_string()),
            "name_key_name": Literal(Identifier(schema, "name_key").as_string()),
            "contents": Literal(Identifier(schema, "contents").as_string()),
            "all_records": Identifier(schema, "records"),
            "all_terms": Identifier(schema, "terms"),
        }
        self.find_extension(extension)

    def find_extension(self, schema: str) -> None:
        """Take the extension's names from this schema, which need not be on the search path, from now on."""
        self.extension = schema
        self._parts = self._tables | {
            "vector": Identifier(schema, "vector"),
            "halfvec": Identifier(schema, "halfvec"),
            "vector_dims": Identifier(schema, "vector_dims"),
            "vector_send": Identifier(schema, "vector_send"),
            "halfvec_send": Identifier(schema, "halfvec_send"),
            "vector_ip_ops": Identifier(schema, "vector_ip_ops"),
            "halfvec_ip_ops": Identifier(schema, "halfvec_ip_ops"),
            "bit_hamming_ops": Identifier(schema, "bit_hamming_ops"),
            "signs": Identifier(schema, "binary_quantize"),
        }

    def sql(self, template: LiteralString, content: int | None = None, **parts: Composable | int) -> bytes:
        """Return a statement.

        Args:
            template: SQL with `{name}` for names, and `%(name)b` for parameters.
            content: number of a collection's tables, which become `{records}` and `{terms}`.
            parts: more to put in; integers become literals.
        """
        return self.part(template, content, **parts).as_bytes()

    def part(self, template: LiteralString, content: int | None = None, **parts: Composable | int) -> Composed:
        """Return part of a statement; arguments as for `sql`."""
        known = dict(self._parts)
        if content is not None:
            records, terms = self.records(content), self.terms(content)
            known |= {"records": records, "terms": terms}
            known |= {"records_name": Literal(records.as_string()), "terms_name": Literal(terms.as_string())}
        known |= {name: Literal(part) if isinstance(part, int) else part for name, part in parts.items()}
        return SQL(template).format(**known)

    def measure(self, storage: str, dim: int, column: LiteralString, query: LiteralString = "") -> dict[str, Composed]:
        """Return the parts `on`, `opclass`, `operator` and `query` of statements about index vectors.

        Args:
            storage: how the index keeps vectors: float32, float16 or bit; exact if no index shall be used.
            dim: coordinates.
            column: SQL that gives the stored vector.
            query: SQL that gives the other one.
        """
        measure = MEASURES[storage]
        return {
            "on": self.part(measure.on, v=SQL(column), dim=SQL(str(dim))),
            "opclass": self.part(measure.opclass),
            "operator": SQL("OPERATOR({}.{})").format(Identifier(self.extension), SQL(measure.operator)),
            "query": self.part(measure.query, v=SQL(query)),
        }

    def records(self, content: int) -> Identifier:
        """Return the name of a collection's table of records."""
        return Identifier(self.schema, f"records_{content}")

    def terms(self, content: int) -> Identifier:
        """Return the name of a collection's table of terms."""
        return Identifier(self.schema, f"terms_{content}")
