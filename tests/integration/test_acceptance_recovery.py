"""A user's machine is lost with its volume, and the user comes back to all they had."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from matrix.testing.fly.running import RunningEmulator
from matrix.testing.running_case import MatrixCase
from matrix.testing.seaweed import fresh_bucket
from matrix.testing.supplied import SuppliedMatrix

IDLE = 2.0
"""Seconds without use before a machine sleeps."""

SLEEP_SECONDS = 40.0
"""For that, and for the snapshot before, on a busy host."""

TIMINGS = {"unseen": 0.1, "pull": 0.3, "start": 0.1, "resume": 0.2, "suspend": 0.2, "volume": 0.1}

FILES = "/v1/files/"


class RecoveryTests(MatrixCase):
    """Our daemon at the emulator, and a real S3 server."""

    fly: ClassVar[RunningEmulator]

    @classmethod
    def setUpClass(cls) -> None:
        cls.fly = RunningEmulator("daemon", **TIMINGS)
        cls.addClassCleanup(cls.fly.close)
        cls.fly.start()
        cls.fly.ask("POST", "/v1/apps", {"name": "users", "org_slug": "personal"})
        place = fresh_bucket()
        cls.matrix = SuppliedMatrix(
            idle=IDLE,
            provider="fly",
            fly_api=cls.fly.url,
            fly_token=cls.fly.token,
            fly_app="users",
            fly_regions="fra,ams",
            fly_image="registry.example/daemon:1",
            wake_timeout=60,
            snapshots="true",
            s3_endpoint=place.endpoint,
            s3_bucket=place.bucket,
            s3_access_key=place.access_key,
            s3_secret_key=place.secret_key,
        )
        cls.addClassCleanup(cls.forget)
        cls.matrix.start()
        cls.matrix.until(
            lambda: "snapshots are kept in" in cls.matrix.output(), 60, "there is a store"
        )

    def write(self, user: str, seed: int) -> Mapping[str, bytes]:
        """Files of many kinds, and what is in them."""
        chance = random.Random(seed)
        files = {
            "notes.txt": b"remember the milk %d" % seed,
            "empty": b"",
            "deep/er/x": chance.randbytes(10_000),
            "media.bin": chance.randbytes(3 << 20),
            "wörds & más.txt": "déjà vu".encode(),
        }
        json = [("content-type", "application/json")]
        for folder in ("deep", "deep/er"):
            self.ask(user, "POST", FILES + folder, b'{"op": "mkdir"}', json)
        for name, content in files.items():
            answer = self.ask(user, "PUT", FILES + quote(name), content)
            self.assertIn(answer.status, (200, 201, 204), answer.body)
        return files

    def assert_there(self, user: str, files: Mapping[str, bytes]) -> None:
        """Every byte is."""
        for name, content in files.items():
            answer = self.ask(user, "GET", FILES + quote(name))
            self.assertEqual(answer.status, 200, (name, answer.body[:200]))
            self.assertEqual(answer.body, content, name)

    def until_saved_asleep(self, user: str) -> None:
        """Until the machine sleeps, and what it has is in a snapshot."""
        self.matrix.until(
            lambda: self.row(user)["state"] == "suspended", SLEEP_SECONDS, f"{user}'s sleeps"
        )
        newest = self.matrix.admin(f"users/{user}/snapshots")["snapshots"][0]
        self.assertEqual(newest["status"], "done", newest)

    def destroy(self, user: str) -> None:
        """The machine and its volume are gone, as if their host had burnt."""
        query = f"metadata.matrix_user={self.matrix.user_id(user)}"
        for machine in self.fly.ask("GET", f"/v1/apps/users/machines?{query}"):
            self.fly.ask("DELETE", f"/v1/apps/users/machines/{machine['id']}?force=true")
            for mount in machine["config"]["mounts"]:
                self.gone(mount["volume"])

    def gone(self, volume: str) -> None:
        def deleted() -> bool:
            try:
                self.fly.ask("DELETE", f"/v1/apps/users/volumes/{volume}")
            except Exception:  # noqa: BLE001 -- while its machine is not gone yet
                return False
            return True

        self.matrix.until(deleted, 20, f"{volume} is deleted")

    def back(self, user: str) -> tuple[Any, float]:
        """The first answer of the machine, and the seconds until then."""
        began = time.monotonic()
        while True:
            answer = self.ask(user, "GET", FILES + "notes.txt", seconds=90)
            if answer.status != 503 or time.monotonic() - began > 120:
                return answer, time.monotonic() - began
            time.sleep(float(answer.headers.get("retry-after", 1)))

    def test_she_comes_back(self) -> None:
        files = self.write("alice", 1)
        self.until_saved_asleep("alice")
        before = self.row("alice")["machine_id"]
        self.destroy("alice")
        answer, seconds = self.back("alice")
        self.assertEqual((answer.status, answer.body), (200, files["notes.txt"]))
        self.assertNotEqual(self.row("alice")["machine_id"], before)
        self.assert_there("alice", files)
        self.tell("lost machine, time to first byte", seconds=round(seconds, 2))

    def test_back_to_an_earlier_day(self) -> None:
        first = self.write("bob", 2)
        self.until_saved_asleep("bob")
        [early, *_] = self.matrix.admin("users/bob/snapshots")["snapshots"]
        self.write("bob", 3)
        began = time.monotonic()
        told = self.matrix.admin(f"users/bob/restore?snapshot={early['snapshot']}", "POST")
        self.tell("restored onto the machine", seconds=round(time.monotonic() - began, 2))
        self.assertEqual(told["snapshot"], early["snapshot"])
        self.assert_there("bob", first)
        taken = self.matrix.admin("users/bob/snapshots")["snapshots"]
        kept = [one["status"] for one in taken if one["cause"] == "operator"]
        self.assertEqual(kept, ["done"], "what was there until then is in a snapshot")
        self.matrix.until(lambda: self.count("bob") == 1, 60, "the former machine is gone")

    def count(self, user: str) -> int:
        """How many machines of the user there are; Fly answers this once in a second."""
        time.sleep(1)
        query = f"metadata.matrix_user={self.matrix.user_id(user)}"
        return len(self.fly.ask("GET", f"/v1/apps/users/machines?{query}"))
