"""How the emulated Fly behaves where that can be chosen: how long things take, and what it
does where Fly's documents, clients and users disagree (C{[conflict]} in facts/fly.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from matrix.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds that something takes: from one number to another."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Span:
        """
        C{0.3}, or C{0.2-0.5}.

        @raise ValueError: it is neither.
        """
        low, _, high = text.partition("-")
        span = cls(float(low), float(high or low))
        if not 0 <= span.low <= span.high < float("inf"):
            raise ValueError(text)
        return span

    def at(self, fraction: float) -> float:
        """
        @param fraction: 0 for the shortest time, 1 for the longest.
        """
        return self.low + (self.high - self.low) * fraction

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}-{self.high:g}"


@dataclass
class Timings:
    """Seconds. The defaults are of Fly's order where that does no harm, and shorter elsewhere."""

    unseen: Span = Span(0.2, 0.2)
    """After its creation, in which reading a machine, or waiting for it, gets 404."""
    pull: Span = Span(2.0, 2.0)
    """C{created}: its image is being prepared."""
    start: Span = Span(0.5, 0.5)
    """C{starting}: a cold boot, its process's own start not counted."""
    resume: Span = Span(0.3, 0.3)
    """C{starting}: from suspended."""
    suspend: Span = Span(0.6, 0.6)
    """C{suspending}; the processes stand still from its begin."""
    stop: Span = Span(0.1, 0.1)
    """C{stopping}, before the signal; then as long as the processes take."""
    still_active: Span = Span(0.3, 0.3)
    """After C{stopped} is shown, in which a start is refused."""
    replace: Span = Span(0.5, 0.5)
    """C{updating} or C{replacing}."""
    destroy: Span = Span(0.5, 0.5)
    """C{destroying}: its volume is bound as long."""
    destroyed: Span = Span(2.0, 2.0)
    """For which a destroyed machine is shown as such, before the 404s."""
    volume: Span = Span(0.2, 0.2)
    """C{creating} or C{extending} a volume."""
    restore: Span = Span(1.0, 1.0)
    """C{restoring} a volume from a snapshot."""
    hydrate: Span = Span(2.0, 2.0)
    """C{hydrating} a fork, which can be used already."""
    snapshot: Span = Span(1.0, 1.0)
    """In which a snapshot is C{pending}, and again C{running}."""
    volume_shown: Span = Span(86400.0, 86400.0)
    """For which a deleted volume is shown as C{pending_destroy}."""


@dataclass
class Switches:
    """What sources disagree on, or say that it depends."""

    start_when_started: str = "ok"
    """Start of a started machine: C{ok} with its C{previous_state}, or C{conflict} (409)."""
    start_while_suspending: str = "accepted"
    """Start interrupts a suspension: C{accepted}, or C{refused} (412) as it once was."""
    stopped_wait_needs_version: str = "yes"
    """Waiting for C{stopped} with no version gets 400: C{yes} or C{no}."""
    lease_envelope: str = "wrapped"
    """Leases answer C{{status, data}} (C{wrapped}) or the lease itself (C{flat})."""
    lease_guards_start: str = "yes"
    """Start, stop and the like of a machine that another holds a lease on get 409."""
    default_signal: str = "SIGINT"
    """Sent to stop a machine that names none: C{SIGINT} or C{SIGTERM}."""
    suspend_memory_max: str = "2048"
    """MB, beyond which no machine can be suspended: C{2048} or C{4096}."""
    regions_capitalised: str = "yes"
    """C{Regions} and C{Nearest}: C{yes}, or C{no} as the description has it."""
    timeout_wording: str = "new"
    """Of 408: C{new} begins with C{deadline_exceeded: }, C{old} does not."""
    late_in_lists: str = "no"
    """A machine that cannot be read yet is not listed either: C{yes} or C{no}."""
    app_name_field: str = "both"
    """An app's name is taken from C{name}, from C{app_name} as the docs have it, or C{both}."""
    retry_after: str = "no"
    """429 says C{Retry-After}: C{yes} or C{no}."""
    rate_limits: str = "on"
    """Fly's own, kept by 429: C{on} or C{off}."""


@dataclass
class Chances:
    """How likely it is, from 0 to 1, that something happens which no call asks for."""

    snapshot_loss: float = 0.0
    """A suspended machine that is started has lost its memory, and boots."""
    failed_start: float = 0.0
    """A machine that is to boot ends up C{failed}."""
    migration: float = 0.0
    """A machine that rests is moved to another host as it is started."""


CHOICES: Mapping[str, tuple[str, ...]] = {
    "start_when_started": ("ok", "conflict"),
    "start_while_suspending": ("accepted", "refused"),
    "stopped_wait_needs_version": ("yes", "no"),
    "lease_envelope": ("wrapped", "flat"),
    "lease_guards_start": ("yes", "no"),
    "default_signal": ("SIGINT", "SIGTERM"),
    "suspend_memory_max": ("2048", "4096"),
    "regions_capitalised": ("yes", "no"),
    "timeout_wording": ("new", "old"),
    "late_in_lists": ("no", "yes"),
    "app_name_field": ("both", "name", "app_name"),
    "retry_after": ("no", "yes"),
    "rate_limits": ("on", "off"),
}


@dataclass
class Tuning:
    """All of it; may be changed while the emulator runs."""

    timings: Timings = field(default_factory=Timings)
    switches: Switches = field(default_factory=Switches)
    chances: Chances = field(default_factory=Chances)

    def set(self, name: str, value: str) -> None:
        """
        Change one, by its name.

        @raise ConfigurationError: there is no such name, or no such value.
        """
        if name in CHOICES:
            if value not in CHOICES[name]:
                known = ", ".join(CHOICES[name])
                raise ConfigurationError(f"{name} is one of {known}, not {value!r}")
            setattr(self.switches, name, value)
            return
        kind = next((one for one in (self.timings, self.chances) if hasattr(one, name)), None)
        if kind is None:
            raise ConfigurationError(
                f"there is no {name!r} to be set, only {', '.join(self.shown())}"
            )
        try:
            read = Span.parse if kind is self.timings else _odds
            setattr(kind, name, read(value))
        except ValueError:
            wanted = "seconds, as in 0.3 or 0.2-0.5" if kind is self.timings else "0 to 1"
            raise ConfigurationError(f"{name} takes {wanted}, not {value!r}") from None

    def shown(self) -> dict[str, str]:
        """Every name with its value."""
        timings = {each.name: getattr(self.timings, each.name) for each in fields(self.timings)}
        chances = asdict(self.chances)
        return {name: str(value) for name, value in (timings | chances).items()} | asdict(
            self.switches
        )


def _odds(text: str) -> float:
    odds = float(text)
    if not 0 <= odds <= 1:
        raise ValueError(text)
    return odds
