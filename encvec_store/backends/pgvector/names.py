"""Statements with the names of one store's schema put in, quoted; imports psycopg.sql."""

from __future__ import annotations

from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

__all__ = ["Names"]


class Names:
    """The schema of the store and that of the extension."""

    def __init__(self, schema: str, extension: str) -> None:
        self.schema = schema
        self._parts: dict[str, Composable] = {
            "schema": Identifier(schema),
            "meta": Identifier(schema, "meta"),
            "collections": Identifier(schema, "collections"),
            "artefacts": Identifier(schema, "artefacts"),
            "spaces": Identifier(schema, "spaces"),
            "contents": Literal(Identifier(schema, "contents").as_string()),
            "all_records": Identifier(schema, "records"),
            "all_terms": Identifier(schema, "terms"),
            # the extension may lie in a schema that is not on the search path
            "vector": Identifier(extension, "vector"),
            "halfvec": Identifier(extension, "halfvec"),
            "vector_dims": Identifier(extension, "vector_dims"),
            "vector_send": Identifier(extension, "vector_send"),
            "vector_ip_ops": Identifier(extension, "vector_ip_ops"),
            "halfvec_ip_ops": Identifier(extension, "halfvec_ip_ops"),
            "negative_inner_product": SQL("OPERATOR({}.<#>)").format(Identifier(extension)),
        }

    def sql(self, template: LiteralString, content: int | None = None, **parts: Composable | int) -> bytes:
        """Return a statement.

        Args:
            template: SQL with `{name}` for names, and `%(name)b` for parameters.
            content: number of a collection's tables, which become `{records}` and `{terms}`.
            parts: more to put in; whole numbers as literals.
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

    def sql_type(self, *, half: bool) -> Composable:
        """Return the type that an index keeps."""
        return self._parts["halfvec" if half else "vector"]

    def opclass(self, *, half: bool) -> Composable:
        """Return the operator class: inner product throughout, as the protocol has it."""
        return self._parts["halfvec_ip_ops" if half else "vector_ip_ops"]

    def records(self, content: int) -> Identifier:
        """Name of a collection's table of records."""
        return Identifier(self.schema, f"records_{content}")

    def terms(self, content: int) -> Identifier:
        """Name of a collection's table of terms."""
        return Identifier(self.schema, f"terms_{content}")
