"""Schemes: how points become index vectors."""

from __future__ import annotations

from .base import KeyedScheme, Scheme
from .device import CPU, Device
from .device import device as find_device
from .growth import BUDGET
from .perturb import add_ball_noise
from .profile import LEAST_KEPT, LEAST_RECORDS, PER_DIMENSION, Profile, Spectrum
from .profile import fit as fit_profile
from .registry import SCHEMES, scheme
from .rotation import DENSE
from .sap import Sap
from .sealed import Sealed
from .simulation import Sample
from .sketch import FLOOR, NARROW_FLOOR, THREATS, Sketch

__all__ = [
    "BUDGET",
    "CPU",
    "DENSE",
    "FLOOR",
    "LEAST_KEPT",
    "LEAST_RECORDS",
    "NARROW_FLOOR",
    "PER_DIMENSION",
    "SCHEMES",
    "THREATS",
    "Device",
    "KeyedScheme",
    "Profile",
    "Sample",
    "Sap",
    "Scheme",
    "Sealed",
    "Sketch",
    "Spectrum",
    "add_ball_noise",
    "find_device",
    "fit_profile",
    "scheme",
]
