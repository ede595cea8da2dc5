"""Fly's refusals: every row of facts/fly.md section 5, with the texts seen there."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines._fly_errors import CATALOGUE, Action, Refusal, Verdict, judge, unheard

START, CREATE, VOLUME = Action.START, Action.CREATE, Action.VOLUME
DONE, SOON, LOOK = Verdict.DONE, Verdict.SOON, Verdict.AMBIGUOUS
FULL, NEVER = Verdict.NO_CAPACITY, Verdict.PERMANENT

STATE = "failed_precondition: unable to start machine from current state: "
HOST = "fulfill request on the current host"

ROWS = (
    # transient
    (START, 412, f"{STATE}'created'", SOON, "in-transition"),
    (START, 412, f"{STATE}'replacing'", SOON, "in-transition"),
    (START, 412, f"{STATE}'stopping'", SOON, "in-transition"),
    (START, 412, "failed_precondition: machine still active, refusing to start", SOON,
     "still-active"),
    (START, 412, "machine getting replaced, refusing to start", SOON, "replacing"),
    (START, 409, "aborted: machine still attempting to start", DONE, "starting"),
    (Action.UPDATE, 409, "aborted: machine update failed due to concurrent update", SOON,
     "concurrent-update"),
    (Action.UPDATE, 409, "machine ID 3d8 lease currently held by x@y, expires at 2026-01-01", SOON,
     "leased"),
    (START, 429, "rate limit exceeded", SOON, "rate"),
    (CREATE, 408, "request timeout", LOOK, "unavailable"),
    (CREATE, 500, "internal", LOOK, "unavailable"),
    (START, 503, "", LOOK, "unavailable"),
    (Action.READ, 502, "bad gateway", SOON, "unavailable"),
    (Action.WAIT, 408, "deadline_exceeded: machine failed to reach desired state, started, "
     "currently created", SOON, "not-reached"),
    # success in disguise
    (START, 409, "machine already started", DONE, "started"),
    (Action.DESTROY, 404, "machine not found", DONE, "gone"),
    (Action.SNAPSHOT, 412, "snapshot is already scheduled at 2026-01-01", DONE, "scheduled"),
    # capacity
    (START, 409, f"aborted: could not reserve resource for machine: insufficient memory available "
     f"to {HOST}", FULL, "host-full"),
    (START, 409, f"aborted: could not reserve resource for machine: insufficient CPUs available "
     f"to {HOST}", FULL, "host-full"),
    (START, 409, "aborted: insufficient resources available to fulfill request: x", FULL,
     "host-full"),
    (START, 409, "aborted: no capacity", FULL, "host-full"),
    (START, 409, "governor policy blocked start", FULL, "host-full"),
    (START, 409, "deploys to this host are temporarily disabled", FULL, "host-full"),
    (CREATE, 422, "could not find a candidate host", FULL, "region-full"),
    (CREATE, 412, "insufficient resources to create new machine with existing volume id 'vol_1'",
     FULL, "volume-host-full"),
    (VOLUME, 400, "no capacity", FULL, "no-room-for-volume"),
    # permanent
    (START, 404, "machine not found", NEVER, "not-found"),
    (CREATE, 400, "volume not found", NEVER, "volume-not-found"),
    (CREATE, 412, "volume already claimed by machine 3d8d9014b32d68", NEVER, "volume-claimed"),
    (CREATE, 412, "volume already claimed by machine \0\0\0\0", SOON, "volume-claimed-by-nobody"),
    (CREATE, 412, "volume already claimed by machine ", SOON, "volume-claimed-by-nobody"),
    (VOLUME, 412, "volume is currently bound to machine: 3d8d9014b32d68", NEVER, "volume-bound"),
    (CREATE, 409, "already_exists: unique machine name violation", LOOK, "name-taken"),
    (CREATE, 422, "organization has reached its machine limit", NEVER, "limit"),
    (CREATE, 403, "organization is using 4096 MB of memory in fra which is over the allowed quota",
     NEVER, "quota"),
    (Action.OTHER, 412, "machine_version is stale", LOOK, "stale-version"),
    (Action.READ, 401, "unauthorized", NEVER, "credentials"),
    (Action.WAIT, 400, "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside "
     "range [1s, 1m0s]", NEVER, "malformed"),
    # what nobody has seen yet
    (START, 412, "something new", SOON, "conflict"),
    (START, 418, "something new", NEVER, "unknown"),
)  # fmt: skip


class CatalogueTests(SynchronousTestCase):
    def test_each_row(self) -> None:
        for action, status, text, verdict, reason in ROWS:
            for body in ({"error": text}, {"status": "error", "message": text}):
                refusal = Refusal.read(status, json.dumps(body).encode())
                self.assertEqual(judge(action, refusal), (verdict, reason), text)

    def test_rows_that_are_known_by_their_code(self) -> None:
        for status, code, wanted in (
            (422, "insufficient_capacity", (FULL, "region-full")),
            (412, "volume_placement_capacity", (FULL, "volume-host-full")),
            (422, "name_taken", (NEVER, "app-name-taken")),
            (422, "a_new_code", (NEVER, "limit")),
        ):
            body = json.dumps({"error": "text that will change", "status": code}).encode()
            self.assertEqual(judge(CREATE, Refusal.read(status, body)), wanted)

    def test_no_row_is_without_its_test(self) -> None:
        seen = {judge(action, Refusal(status, text))[1] for action, status, text, *_ in ROWS}
        self.assertEqual({row.reason for row in CATALOGUE} - seen, {"app-name-taken"})


class ReadingTests(SynchronousTestCase):
    @given(st.integers(400, 599), st.binary(max_size=300))
    def test_anything_can_be_read(self, status: int, body: bytes) -> None:
        refusal = Refusal.read(status, body)
        self.assertTrue(refusal.text)
        self.assertIsInstance(judge(START, refusal)[0], Verdict)

    def test_what_is_no_error_document(self) -> None:
        for body in (b"", b"null", b"[]", b'"x"', b"<html>502</html>", b"[" * 100_000):
            refusal = Refusal.read(502, body)
            self.assertEqual((refusal.code, len(refusal.text) <= 200), ("", True))

    def test_members_of_other_types(self) -> None:
        refusal = Refusal.read(409, b'{"error": {"a": 1}, "status": 5}')
        self.assertEqual((refusal.text, refusal.code), ("{'a': 1}", ""))


class SilenceTests(SynchronousTestCase):
    def test_what_was_not_sent_can_be_sent_again(self) -> None:
        for action in Action:
            self.assertIs(unheard(action, sent=False), SOON)

    def test_what_may_have_been_done_is_looked_at(self) -> None:
        self.assertIs(unheard(CREATE, sent=True), LOOK)
        self.assertIs(unheard(START, sent=True), LOOK)
        self.assertIs(unheard(Action.READ, sent=True), SOON)
