"""Tests of the names of routers in leases."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from matrix.router.owners import has_ended, this_router


class OwnerTests(SynchronousTestCase):
    def test_this_router_runs(self) -> None:
        self.assertFalse(has_ended(this_router()))
        self.assertEqual(this_router(), this_router())

    def test_people_can_read_it(self) -> None:
        start = f"{socket.gethostname()}:{os.getpid()}:"
        self.assertTrue(this_router().startswith(start))

    def test_a_router_that_ended(self) -> None:
        program = "from matrix.router.owners import this_router; print(this_router(), end='')"
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        other = told.stdout.decode()
        self.assertNotEqual(other, this_router())
        self.assertTrue(has_ended(other))

    def test_a_process_id_that_another_has_now(self) -> None:
        host, pid, started, place = this_router().split(":")
        self.assertTrue(has_ended(f"{host}:{pid}:{int(started) - 1}:{place}"))

    def test_of_other_places_nothing_is_known(self) -> None:
        host, pid, started, place = this_router().split(":")
        boot, _, namespace = place.partition("/")
        for elsewhere in (f"0{boot[1:]}x/{namespace}", f"{boot}/1{namespace}", ""):
            self.assertFalse(has_ended(f"{host}:{pid}:{int(started) - 1}:{elsewhere}"))

    def test_names_in_another_form(self) -> None:
        place = this_router().rpartition(":")[2]
        for name in ("", "router:1", f"h:x:1:{place}", f"h:1::{place}", f"h:²:1:{place}"):
            self.assertFalse(has_ended(name), name)
