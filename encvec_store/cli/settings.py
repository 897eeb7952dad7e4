"""Options of a collection that a command makes on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from ..data.metrics import METRICS
from ..errors import MetricError
from ..transfer import metric_names

__all__ = ["METRIC", "new_collection_options", "new_settings"]


class _Metric(click.ParamType):  # type: ignore[type-arg]
    name = "metric"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return cosine, l2 or ip for a name in any case, of ours or of other tools."""
        found = metric_names.of_name(value, "")
        if isinstance(found, MetricError):
            self.fail(f"{value!r} is not one of {', '.join(METRICS)}", param, ctx)
        return str(found)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Show the names."""
        return f"[{'|'.join(METRICS)}]"


METRIC = _Metric()


def new_collection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the settings of a new collection; the command takes them as `options`."""

    @click.option("--dim", type=click.IntRange(1), help="New collection: dimension, to have it checked.")
    @click.option("--metric", type=METRIC, help="New collection: metric [default: the file's own, else cosine].")
    @click.option("--scheme", metavar="NAME", help="New collection: sealed [default]; or sketch, sap: the store ranks.")
    @click.option("--beta", type=float, help="With --scheme sketch or sap: noise. `encvec calibrate` finds it, too.")
    @click.option("--threat", metavar="NAME", help="With --scheme sketch: stolen-data [default] or watching-server.")
    @click.option("--max-norm", type=float, help="New collection, l2 or ip: longest length of a vector.")
    @click.option(
        "--oversample",
        type=click.IntRange(1, 10_000),
        help="With --scheme sketch or sap: candidates re-ranked per hit.",
    )
    @click.option("--precision", metavar="NAME", help="New collection: single [default] or half, in half the space.")
    @click.option(
        "--field", "fields", multiple=True, metavar="NAME=POLICY", help="New collection: sealed, blind or plain."
    )
    @functools.wraps(command)
    def with_options(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return with_options


def new_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the options of a new collection into arguments of `Store.collection`."""
    scheme, fields = options.pop("scheme"), options.pop("fields")
    given = {name: value for name in ("beta", "threat") if (value := options.pop(name)) is not None}
    if given and scheme in (None, "sealed"):
        named = " and ".join(f"--{name}" for name in given)
        raise click.UsageError(f"{named} must go with --scheme sketch or --scheme sap: sealed has no noise")
    if given:
        scheme = {"name": scheme, **given}
    policies: dict[str, str] | None = None
    if fields:
        policies = {}
        for text in fields:
            name, equals, policy = text.rpartition("=")
            if not equals or name in policies:
                raise click.UsageError(f"--field must be NAME=POLICY, once a name, got {text!r}")
            policies[name] = policy
    return {**options, "scheme": scheme, "fields": policies}
