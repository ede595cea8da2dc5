"""The REST protocol, request by request: statuses, headers, ranges, names, rights, trouble."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.model import UserId
from matrix.snapshots import MemoryStore, Repositories, Shape
from matrix.snapshots._heads import V1, V2
from matrix.testing.restic import ALICE, BOB, CREDENTIALS, OPERATOR, KnownCredentials
from matrix.testing.served import ReadAnswer, Served, read_answer

ROOT = f"/restic/{ALICE}/"
CONTENT = b"what restic stores is of no concern to us" * 20
NAME = hashlib.sha256(CONTENT).hexdigest()
KEY = f"users/{ALICE}/data/{NAME[:2]}/{NAME}"
DATA = f"{ROOT}data/{NAME}"


def basic(user: str, password: str) -> str:
    """An Authorization field."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


class RepositoryCase(SynchronousTestCase):
    """A service over a store in memory, asked without sockets."""

    SHAPE = Shape()

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.clock = Clock()
        handler = Repositories(self.store, KnownCredentials(), self.clock, self.SHAPE)
        self.served = Served(handler)

    def tearDown(self) -> None:
        # What is under way ends in order; left to the garbage collector it would in any.
        for connection in list(self.served.factory.connections):
            connection.transport.lose()
        self.assertEqual(self.store.begun, set())

    def head(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        user: UserId = ALICE,
        password: str | None = None,
    ) -> bytes:
        """A request's head."""
        fields = {"Host": "h", "Authorization": basic(user, password or CREDENTIALS[user])}
        fields |= headers or {}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **who: str,
    ) -> ReadAnswer:
        """What a request is answered."""
        length = {} if body is None else {"Content-Length": str(len(body))}
        head = self.head(method, path, {**length, **(headers or {})}, **who)  # type: ignore[arg-type]
        client = self.served.connect(head + (body or b""))
        answer, rest = read_answer(client.take(), method.encode(), client.disconnecting)
        self.assertTrue(answer.complete)
        self.assertEqual(rest, b"")
        return answer

    def put(self, path: str = DATA, body: bytes = CONTENT, **options: str) -> int:
        """The status with which an upload is answered."""
        return self.ask("POST", path, body, **options).status  # type: ignore[arg-type]


class FileTests(RepositoryCase):
    """Files come in whole and right, and go out in parts."""

    def test_an_upload_and_what_is_there_then(self) -> None:
        self.assertEqual(self.put(), 200)
        self.assertEqual(self.store.objects, {KEY: CONTENT})
        answer = self.ask("HEAD", DATA)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers[b"content-length"], b"%d" % len(CONTENT))
        answer = self.ask("GET", DATA)
        self.assertEqual((answer.status, answer.body), (200, CONTENT))
        self.assertEqual(answer.headers[b"content-type"], b"application/octet-stream")

    def test_nothing_there(self) -> None:
        for method in ("HEAD", "GET"):
            self.assertEqual(self.ask(method, DATA).status, 404)
            self.assertEqual(self.ask(method, f"{ROOT}config").status, 404)

    def test_each_kind_has_its_place(self) -> None:
        for kind in ("keys", "locks", "snapshots", "index"):
            self.assertEqual(self.put(f"{ROOT}{kind}/{NAME}"), 200)
            self.assertIn(f"users/{ALICE}/{kind}/{NAME}", self.store.objects)

    def test_ranges(self) -> None:
        self.put()
        size = len(CONTENT)
        for asked, wanted in (
            ("bytes=0-", range(size)),
            ("bytes=5-9", range(5, 10)),
            (f"bytes={size - 1}-", range(size - 1, size)),
            ("bytes=7-99999", range(7, size)),
            ("bytes=-4", range(size - 4, size)),
        ):
            answer = self.ask("GET", DATA, headers={"Range": asked})
            self.assertEqual(answer.status, 206, asked)
            self.assertEqual(answer.body, CONTENT[wanted.start : wanted.stop])
            said = b"bytes %d-%d/%d" % (wanted.start, wanted.stop - 1, size)
            self.assertEqual(answer.headers[b"content-range"], said)
            self.assertEqual(answer.headers[b"content-length"], b"%d" % len(wanted))

    def test_a_range_behind_the_end(self) -> None:
        self.put()
        answer = self.ask("GET", DATA, headers={"Range": f"bytes={len(CONTENT)}-"})
        self.assertEqual(answer.status, 416)
        self.assertEqual(answer.headers[b"content-range"], b"bytes */%d" % len(CONTENT))

    def test_what_is_no_single_range_gets_all(self) -> None:
        self.put()
        for asked in ("bytes=0-1,4-5", "bytes=9-5", "bytes=-", "bytes=-0", "lines=1-2", "nonsense"):
            answer = self.ask("GET", DATA, headers={"Range": asked})
            self.assertEqual((answer.status, answer.body), (200, CONTENT), asked)

    def test_a_file_of_no_bytes(self) -> None:
        name = hashlib.sha256(b"").hexdigest()
        path = f"{ROOT}data/{name}"
        self.assertEqual(self.put(path, b""), 200)
        self.assertEqual(self.ask("HEAD", path).headers[b"content-length"], b"0")
        answer = self.ask("GET", path, headers={"Range": "bytes=0-"})
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_another_hash(self) -> None:
        self.assertEqual(self.put(body=CONTENT + b"x"), 400)
        self.assertEqual(self.store.objects, {})
        self.assertEqual(self.store.begun, set())

    def test_a_body_cut_short(self) -> None:
        head = self.head("POST", DATA, {"Content-Length": str(len(CONTENT))})
        client = self.served.connect(head + CONTENT[:-1])
        self.assertEqual(len(self.store.begun), 1)
        client.lose()
        self.assertEqual(self.store.objects, {})
        self.assertEqual(self.store.begun, set())

    def test_no_length(self) -> None:
        head = self.head("POST", DATA, {"Transfer-Encoding": "chunked"})
        client = self.served.connect(head + b"1\r\nx\r\n0\r\n\r\n")
        self.assertEqual(read_answer(client.take(), b"POST")[0].status, 411)

    def test_too_long(self) -> None:
        for path, length in ((DATA, (256 << 20) + 1), (f"{ROOT}locks/{NAME}", 64 * 1024 + 1)):
            client = self.served.connect(self.head("POST", path, {"Content-Length": str(length)}))
            self.assertEqual(read_answer(client.take(), b"POST", True)[0].status, 413)

    def test_a_duplicate_is_answered_as_if_it_were_new(self) -> None:
        self.put()
        self.store.objects[KEY] = stored = bytes(self.store.objects[KEY])
        self.assertEqual(self.put(), 200)
        self.assertIs(self.store.objects[KEY], stored)

    def test_a_duplicate_name_with_other_bytes(self) -> None:
        self.put()
        self.assertEqual(self.put(body=CONTENT[::-1]), 400)
        self.assertEqual(self.put(body=b"short"), 400)
        self.assertEqual(self.store.objects, {KEY: CONTENT})

    def test_a_damaged_file_is_repaired_by_its_right_bytes(self) -> None:
        self.store.objects[KEY] = CONTENT[:10]
        self.assertEqual(self.put(), 200)
        self.assertEqual(self.store.objects, {KEY: CONTENT})
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_two_at_once(self) -> None:
        head = self.head("POST", DATA, {"Content-Length": str(len(CONTENT))})
        clients = [self.served.connect(head + CONTENT[:-1]) for _ in range(2)]
        for client in clients:
            client.receive(CONTENT[-1:])
            self.assertEqual(read_answer(client.take(), b"POST")[0].status, 200)
        self.assertEqual(self.store.objects, {KEY: CONTENT})


class ConfigTests(RepositoryCase):
    """There is one config, and it stays."""

    PATH = f"{ROOT}config"

    def test_a_config(self) -> None:
        self.assertEqual(self.put(self.PATH, b"the config"), 200)
        self.assertEqual(self.ask("HEAD", self.PATH).headers[b"content-length"], b"10")
        answer = self.ask("GET", self.PATH, headers={"Range": "bytes=3-5"})
        self.assertEqual((answer.status, answer.body), (200, b"the config"))

    def test_another_is_refused(self) -> None:
        self.put(self.PATH, b"the config")
        self.assertEqual(self.put(self.PATH, b"another"), 403)
        self.assertEqual(self.put(self.PATH, b"the confix"), 403)
        self.assertEqual(self.ask("GET", self.PATH).body, b"the config")

    def test_the_same_again_is_fine(self) -> None:
        self.put(self.PATH, b"the config")
        self.assertEqual(self.put(self.PATH, b"the config"), 200)

    def test_an_empty_or_a_huge_one(self) -> None:
        self.assertEqual(self.put(self.PATH, b""), 400)
        self.assertEqual(self.put(self.PATH, bytes(64 * 1024 + 1)), 413)
        self.assertEqual(self.store.objects, {})

    def test_a_lost_answer(self) -> None:
        self.store.lose_answers = 1
        self.assertEqual(self.put(self.PATH, b"the config"), 503)
        self.assertEqual(self.put(self.PATH, b"the config"), 200)


class ListTests(RepositoryCase):
    """Lists say exactly what they are."""

    def names(self, accept: bytes) -> tuple[bytes, object]:
        """The type and the content of a list."""
        answer = self.ask("GET", f"{ROOT}data/", headers={"Accept": accept.decode()})
        self.assertEqual(answer.status, 200)
        return answer.headers[b"content-type"], json.loads(answer.body)

    def test_empty(self) -> None:
        self.assertEqual(self.names(V2), (V2, []))
        self.assertEqual(self.names(V1), (V1, []))

    def test_version_2(self) -> None:
        self.put()
        self.assertEqual(self.names(V2), (V2, [{"name": NAME, "size": len(CONTENT)}]))

    def test_anything_else_is_version_1(self) -> None:
        self.put()
        for accept in (V1, b"", b"*/*", V2 + b"; q=1"):
            self.assertEqual(self.names(accept), (V1, [NAME]))

    def test_several_pages(self) -> None:
        for number in range(2500):
            self.store.objects[f"users/{ALICE}/data/00/{number:064x}"] = b"x"
        _, found = self.names(V2)
        self.assertEqual(found, [{"name": f"{n:064x}", "size": 1} for n in range(2500)])

    def test_only_what_is_restics_and_of_this_kind_and_user(self) -> None:
        self.put()
        self.put(f"{ROOT}keys/{NAME}")
        self.put(DATA.replace(ALICE, BOB), user=BOB)
        self.store.objects[f"users/{ALICE}/data/notes.txt"] = b"an operator's"
        self.assertEqual(self.names(V1), (V1, [NAME]))

    def test_an_upload_under_way_is_not_listed(self) -> None:
        head = self.head("POST", DATA, {"Content-Length": str(len(CONTENT))})
        self.served.connect(head + CONTENT[:-1])
        self.assertEqual(self.names(V2), (V2, []))


class RightsTests(RepositoryCase):
    """A machine adds to its own repository, and does nothing else."""

    def test_nothing_but_locks_can_be_deleted(self) -> None:
        self.put()
        self.put(f"{ROOT}config", b"the config")
        kept = [DATA, f"{ROOT}config"]
        for kind in ("keys", "snapshots", "index"):
            self.put(f"{ROOT}{kind}/{NAME}")
            kept.append(f"{ROOT}{kind}/{NAME}")
        before = dict(self.store.objects)
        for path in kept:
            answer = self.ask("DELETE", path)
            self.assertEqual((answer.status, b"append-only" in answer.body), (403, True), path)
        self.assertEqual(self.store.objects, before)

    def test_locks_can_be_deleted_once_and_again(self) -> None:
        lock = f"{ROOT}locks/{NAME}"
        self.put(lock)
        for _ in range(2):
            self.assertEqual(self.ask("DELETE", lock).status, 200)
        self.assertEqual(self.store.objects, {})

    def test_who_has_full_rights_can_delete(self) -> None:
        self.put()
        self.put(f"{ROOT}config", b"the config")
        for path in (DATA, f"{ROOT}config"):
            self.assertEqual(self.ask("DELETE", path, password=OPERATOR).status, 200)
        self.assertEqual(self.store.objects, {})

    def test_other_methods(self) -> None:
        for path, allowed in (
            (ROOT, b"POST"),
            (f"{ROOT}data/", b"GET"),
            (f"{ROOT}config", b"DELETE, GET, HEAD, POST"),
            (DATA, b"DELETE, GET, HEAD, POST"),
        ):
            for method in ("PUT", "PATCH", "OPTIONS"):
                answer = self.ask(method, path)
                self.assertEqual((answer.status, answer.headers[b"allow"]), (405, allowed))
        for method in ("GET", "DELETE"):
            self.assertEqual(self.ask(method, ROOT).status, 405)
        self.assertEqual(self.ask("DELETE", f"{ROOT}data/").status, 405)

    def test_making_a_repository(self) -> None:
        for _ in range(2):
            self.assertEqual(self.ask("POST", f"{ROOT}?create=true", b"").status, 200)
        for query in ("", "?create=false", "?create=", "?create=true&x=1"):
            self.assertEqual(self.ask("POST", ROOT + query, b"").status, 400)

    def test_bad_credentials(self) -> None:
        for field in (
            "",
            "Basic",
            "Basic Og==",
            "Basic !!",
            "Bearer x",
            basic(ALICE, "wrong"),
            basic(BOB, CREDENTIALS[ALICE]),
            basic("", ""),
            basic(ALICE, ""),
        ):
            for method, path in (("GET", DATA), ("POST", f"{ROOT}?create=true"), ("GET", "/x")):
                answer = self.ask(method, path, headers={"Authorization": field})
                self.assertEqual(answer.status, 401, field)
                self.assertIn(b"Basic realm=", answer.headers[b"www-authenticate"])
                self.assertNotIn(CREDENTIALS[ALICE].encode(), answer.body)

    def test_anothers_repository(self) -> None:
        self.put()
        before = dict(self.store.objects)
        for method, path, body in (
            ("HEAD", DATA, None),
            ("GET", DATA, None),
            ("POST", DATA, CONTENT),
            ("DELETE", f"{ROOT}locks/{NAME}", None),
            ("GET", f"{ROOT}data/", None),
            ("POST", f"{ROOT}?create=true", b""),
            ("POST", f"{ROOT}config", b"mine"),
        ):
            self.assertEqual(self.ask(method, path, body, user=BOB).status, 403, (method, path))
        self.assertEqual(self.store.objects, before)

    def test_paths_that_name_nothing(self) -> None:
        self.put()
        hexes = NAME[:-1]
        for path in (
            "/",
            "/restic",
            "/restic/",
            f"/restic/{ALICE}",
            f"/Restic/{ALICE}/config",
            f"//restic/{ALICE}/config",
            f"/restic//{ALICE}/config",
            f"{ROOT}/config",
            f"/restic/{ALICE.upper()}/config",
            f"/restic/{ALICE}x/config",
            f"{ROOT}data",
            f"{ROOT}data/{NAME.upper()}",
            f"{ROOT}data/{hexes}",
            f"{ROOT}data/{NAME}0",
            f"{ROOT}data/{NAME}/",
            f"{ROOT}data//{NAME}",
            f"{ROOT}data/{NAME[:2]}/{NAME}",
            f"{ROOT}data%2f{NAME}",
            f"{ROOT}data/%{NAME[1:]}",
            f"{ROOT}%64ata/{NAME}",
            f"{ROOT}data/../config",
            f"{ROOT}data/%2e%2e/config",
            f"/restic/{BOB}/../{ALICE}/config",
            f"{ROOT}../{BOB}/config",
            f"{ROOT}config/",
            f"{ROOT}config%00",
            f"{ROOT}data/{NAME}%00",
            f"{ROOT}data/{NAME}%0a",
            f"{ROOT}files/{NAME}",
            f"{ROOT}data/data/{NAME}",
            f"/restic/{ALICE}/./config",
            f"/restic/{ALICE};a=b/config",
            f"{ROOT}config;a",
            f"/restic/data/{NAME}",
            f"{ROOT}DATA/{NAME}",
            f"{ROOT}tmp/{NAME}",
        ):
            for method in ("GET", "HEAD", "POST", "DELETE"):
                body = CONTENT if method == "POST" else None
                self.assertEqual(self.ask(method, path, body).status, 404, (method, path))
        self.assertEqual(self.store.objects, {KEY: CONTENT})


class TroubleTests(RepositoryCase):
    """Trouble is 503 and passes; nothing of it looks like an absence or a refusal."""

    def test_a_store_that_is_down(self) -> None:
        self.put()
        self.store.down = True
        for method, path, body in (
            ("HEAD", f"{ROOT}config", None),
            ("GET", f"{ROOT}config", None),
            ("POST", f"{ROOT}config", b"x"),
            ("POST", f"{ROOT}?create=true", b""),
            ("GET", f"{ROOT}data/", None),
            ("HEAD", DATA, None),
            ("GET", DATA, None),
            ("POST", DATA, CONTENT),
            ("DELETE", f"{ROOT}locks/{NAME}", None),
        ):
            answer = self.ask(method, path, body)
            self.assertEqual(answer.status, 503, (method, path))
            self.assertEqual(answer.headers[b"retry-after"], b"5")
        self.store.down = False
        self.assertEqual(self.ask("GET", DATA).status, 200)

    def test_wrong_credentials_are_wrong_even_then(self) -> None:
        self.store.down = True
        self.assertEqual(self.ask("GET", DATA, password="wrong").status, 401)

    def test_going_down_amid_an_upload(self) -> None:
        head = self.head("POST", DATA, {"Content-Length": str(len(CONTENT))})
        client = self.served.connect(head + CONTENT[:-1])
        self.store.down = True
        client.receive(CONTENT[-1:])
        self.assertEqual(read_answer(client.take(), b"POST")[0].status, 503)
        self.assertEqual((self.store.objects, self.store.begun), ({}, set()))

    def test_a_lost_answer(self) -> None:
        """restic deletes what it believes it has not stored, and sends it again."""
        self.store.lose_answers = 1
        self.assertEqual(self.put(), 503)
        self.assertEqual(self.ask("DELETE", DATA).status, 403)
        self.assertEqual(self.put(), 200)
        self.assertEqual(self.store.objects, {KEY: CONTENT})


class QuotaTests(RepositoryCase):
    """What is over the quota is refused before it comes, for good."""

    SHAPE = Shape(quota=2 * len(CONTENT))

    def other(self, number: int) -> tuple[str, bytes]:
        """A file of the same size."""
        body = bytes([number]) * len(CONTENT)
        return f"{ROOT}data/{hashlib.sha256(body).hexdigest()}", body

    def test_over_it(self) -> None:
        self.assertEqual([self.put(*self.other(n)) for n in range(3)], [200, 200, 507])
        self.assertEqual(len(self.store.objects), 2)
        self.assertEqual(self.put(*self.other(0)), 200)  # it is there already

    def test_locks_still_have_room(self) -> None:
        for number in range(2):
            self.put(*self.other(number))
        self.assertEqual(self.put(f"{ROOT}locks/{NAME}"), 200)

    def test_uploads_under_way_count(self) -> None:
        for number in range(2):
            path, body = self.other(number)
            head = self.head("POST", path, {"Content-Length": str(len(body))})
            self.served.connect(head + body[:-1])
        self.assertEqual(self.put(), 507)

    def test_what_was_broken_off_does_not_count(self) -> None:
        for _ in range(5):
            head = self.head("POST", DATA, {"Content-Length": str(len(CONTENT))})
            self.served.connect(head + CONTENT[:-1]).lose()
            self.assertEqual(self.put(body=CONTENT[::-1]), 400)
        self.assertEqual(self.put(), 200)

    def test_what_others_deleted_makes_room(self) -> None:
        for number in range(3):
            self.put(*self.other(number))
        self.store.objects.clear()
        self.clock.advance(11)
        self.assertEqual(self.put(*self.other(3)), 200)

    def test_each_has_their_own(self) -> None:
        for number in range(2):
            self.put(*self.other(number))
        self.assertEqual(self.put(DATA.replace(ALICE, BOB), user=BOB), 200)


class CrowdTests(RepositoryCase):
    """One machine does not crowd out the others."""

    def begin(self, number: int, user: UserId = ALICE) -> object:
        """An upload that does not go on."""
        name = f"{number:064x}"
        path = f"/restic/{user}/data/{name}"
        return self.served.connect(self.head("POST", path, {"Content-Length": "9"}, user) + b"x")

    def test_a_few_uploads_go_on_and_the_others_wait(self) -> None:
        for number in range(20):
            self.begin(number)
        self.assertEqual(len(self.store.begun), 8)
        self.assertEqual(self.put(DATA.replace(ALICE, BOB), user=BOB), 200)

    def test_who_waits_comes_on_when_another_leaves(self) -> None:
        clients = [self.begin(number) for number in range(9)]
        clients[0].lose()  # type: ignore[attr-defined]
        self.assertEqual(len(self.store.begun), 8)

    def test_too_many(self) -> None:
        for number in range(8 + 64):
            self.begin(number)
        self.assertEqual(self.put(), 429)
