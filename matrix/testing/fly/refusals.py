"""What Fly says when it does not do what it was asked: facts/fly.md section 5, as data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOBODY = "\0" * 14
"""The id that Fly names while the machine that held a volume is being destroyed."""


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, text: str, code: str | None = None) -> None:
        """
        @param code: the answer's C{status} member.
        """
        super().__init__(text)
        self.status = status
        self.code = code

    def body(self) -> dict[str, Any]:
        """As Fly writes it."""
        found = {"error": str(self)}
        return found | {"status": self.code} if self.code else found


@dataclass(frozen=True, slots=True)
class Row:
    """One of Fly's refusals; its text may hold C{{machine}} and C{{volume}}."""

    status: int
    text: str
    code: str | None = None

    def refusal(self, values: Mapping[str, str]) -> Refusal:
        """
        @param values: what to fill in; empty for what is missing.
        """
        known = {"machine": "", "volume": "", **values}
        return Refusal(self.status, self.text.format(**known), self.code)


def _start_from(state: str) -> Row:
    return Row(412, f"failed_precondition: unable to start machine from current state: '{state}'")


ROWS: Mapping[str, Row] = {
    # transient
    "created": _start_from("created"),
    "replacing": _start_from("replacing"),
    "stopping": _start_from("stopping"),
    "still-active": Row(412, "failed_precondition: machine still active, refusing to start"),
    "getting-replaced": Row(412, "failed_precondition: machine getting replaced, refusing to "
                                 "start"),
    "starting": Row(409, "aborted: machine still attempting to start"),
    "concurrent-update": Row(409, "aborted: machine update failed due to concurrent update"),
    "leased": Row(409, "machine ID {machine} lease currently held by somebody@example.com, "
                       "expires at 2026-01-01T00:00:00Z"),
    "volume-of-nobody": Row(412, "failed_precondition: volume already claimed by machine "
                                 + NOBODY),
    "rate": Row(429, "rate limit exceeded"),
    "timeout": Row(408, "deadline_exceeded: machine failed to reach desired state, started, "
                        "currently starting"),
    "unavailable": Row(503, "unavailable: upstream is not reachable"),
    "internal": Row(500, "internal: something went wrong", "unknown"),
    # success in disguise
    "already-started": Row(409, "aborted: machine already started"),
    # capacity
    "host-memory": Row(409, "aborted: could not reserve resource for machine: insufficient memory "
                            "available to fulfill request on the current host"),
    "host-cpus": Row(409, "aborted: could not reserve resource for machine: insufficient CPUs "
                          "available to fulfill request on the current host"),
    "insufficient": Row(409, "aborted: insufficient resources available to fulfill request: "
                             "no host has room"),
    "no-capacity": Row(409, "aborted: no capacity"),
    "region-full": Row(422, "could not find a candidate host", "insufficient_capacity"),
    "volume-host-full": Row(412, "insufficient resources to create new machine with existing "
                                 "volume id '{volume}'", "volume_placement_capacity"),
    "no-room-for-volume": Row(400, "no capacity"),
    "governor": Row(409, "aborted: governor policy blocked start"),
    "deploys-disabled": Row(409, "aborted: deploys to this host are temporarily disabled"),
    # permanent
    "not-found": Row(404, "machine not found"),
    "volume-not-found": Row(400, "volume not found"),
    "volume-claimed": Row(412, "failed_precondition: volume already claimed by machine "
                               "0e0000000000ff"),
    "volume-bound": Row(412, "failed_precondition: volume is currently bound to machine: "
                             "0e0000000000ff"),
    "name-violation": Row(409, "already_exists: unique machine name violation"),
    "machine-limit": Row(422, "organization has reached its machine limit"),
    "quota": Row(403, "organization is using 4096 MB of memory in this region which is over the "
                      "allowed quota"),
    "snapshot-scheduled": Row(412, "snapshot is already scheduled at 2026-01-01T00:00:00Z"),
    "stale-version": Row(412, "failed_precondition: machine_version is stale"),
}  # fmt: skip
"""By the name that a fault is asked for with."""


def refuse(name: str, **values: str) -> Refusal:
    """
    @param name: one of L{ROWS}.
    """
    return ROWS[name].refusal(values)


def cannot(verb: str, state: str) -> Refusal:
    """Nothing is C{verb}ed from this state."""
    text = f"failed_precondition: unable to {verb} machine from current state: '{state}'"
    return Refusal(412, text)


def not_found(what: str) -> Refusal:
    """There is no such thing, or not any more."""
    return Refusal(404, f"{what} not found")


def invalid(text: str) -> Refusal:
    """The request means nothing."""
    return Refusal(400, f"invalid_argument: {text}")
