"""The schemes by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SchemeError
from .base import Scheme
from .sap import Sap
from .sealed import Sealed
from .sketch import Sketch

__all__ = ["SCHEMES", "scheme"]

SCHEMES: dict[str, type[Scheme]] = {Sap.name: Sap, Sealed.name: Sealed, Sketch.name: Sketch}


def scheme(spec: str | Mapping[str, Any] | Scheme) -> Scheme:
    """Build a scheme from its name, from {"name": ..., parameters}, or from itself. Raises SchemeError."""
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        if type(spec) in SCHEMES.values():
            return spec
        raise SchemeError(f"scheme must be a name or a mapping with a name, got {spec!r}")
    parameters = dict(spec)
    name = parameters.pop("name", None)
    if not isinstance(name, str) or name not in SCHEMES:
        raise SchemeError(f"scheme must be one of {', '.join(SCHEMES)}, got {name!r}")
    try:
        return SCHEMES[name](**parameters)
    except TypeError:
        raise SchemeError(f"scheme {name!r} does not take {', '.join(map(repr, parameters))}") from None
