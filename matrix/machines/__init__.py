"""Machines: who makes, starts, suspends and destroys them, and what may follow what."""

from matrix.machines._fly_plans import REDACTED
from matrix.machines._fly_provider import FlyProvider
from matrix.machines._local import LocalProvider
from matrix.machines._memory import MemoryFleet, MemoryProvider
from matrix.machines._open import fly_plans, open_provider
from matrix.machines._recall import Recall
from matrix.machines.interfaces import (
    IProvider,
    IStocking,
    Keep,
    MachineGone,
    Observed,
    ProviderError,
    Recalled,
    Sighted,
    Started,
    Stranded,
    SurveyPage,
)
from matrix.machines.lifecycle import (
    LIFECYCLE,
    IllegalTransition,
    LifecycleEvent,
    next_state,
)

__all__ = [
    "LIFECYCLE",
    "REDACTED",
    "FlyProvider",
    "IProvider",
    "IStocking",
    "IllegalTransition",
    "Keep",
    "LifecycleEvent",
    "LocalProvider",
    "MachineGone",
    "MemoryFleet",
    "MemoryProvider",
    "Observed",
    "ProviderError",
    "Recall",
    "Recalled",
    "Sighted",
    "Started",
    "Stranded",
    "SurveyPage",
    "fly_plans",
    "next_state",
    "open_provider",
]
