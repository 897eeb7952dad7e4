"""The leakage lab: what ciphertexts give away, measured by attack. Needs the extra `leakage`.

Rows of `run` say, for each subject, attack and adversary, how many records were identified, with chance and the
owner's recall beside it; those of `probe` what else leaks. Attacks work on arrays alone: bring
`collection.index_vectors(ids)` of any store.
"""

from __future__ import annotations

from .attacks import ATTACKS, Attack
from .bench import Known
from .experiment import ADVERSARIES, Experiment, attack_arrays, worst
from .hauls import Haul, Holdings, attack_hauls, beginnings, guessed, hauls
from .own import SampleAttack
from .probing import PROBES, probe, worst_probes
from .protocol import Subject
from .running import run
from .subjects import CONTROLS, SUBJECTS, Pipeline, subject
from .theft import StoreCopy, Telling, compared, stolen, told
from .views import VIEWS, Case, View

__all__ = [
    "ADVERSARIES",
    "ATTACKS",
    "CONTROLS",
    "PROBES",
    "SUBJECTS",
    "VIEWS",
    "Attack",
    "Case",
    "Experiment",
    "Haul",
    "Holdings",
    "Known",
    "Pipeline",
    "SampleAttack",
    "StoreCopy",
    "Subject",
    "Telling",
    "View",
    "attack_arrays",
    "attack_hauls",
    "beginnings",
    "compared",
    "guessed",
    "hauls",
    "probe",
    "run",
    "stolen",
    "subject",
    "told",
    "worst",
    "worst_probes",
]
