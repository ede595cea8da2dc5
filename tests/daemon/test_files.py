"""The files API answers as HTTP says it should."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.api import Api
from matrix.daemon.files import Files
from matrix.daemon.paths import Parts
from matrix.daemon.workspace import Workspace
from matrix.errors import (
    BadRequest,
    ClientGone,
    Conflict,
    Forbidden,
    MatrixError,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
)
from matrix.testing.exchange import FakeExchange
from matrix.testing.scratch import scratch


def in_this_thread(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    return maybeDeferred(function, *args)


class Untold:
    @contextmanager
    def placing(self, parts: Parts) -> Iterator[Callable[[bool], None]]:
        yield lambda new: None


class FilesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = scratch(self)
        self.root: Path = self.data / "workspace"
        workspace = Workspace(os.fsencode(self.data), in_this_thread, Untold())
        self.addCleanup(workspace.close)
        self.api = Api()
        Files(workspace).register(self.api)

    def call(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> FakeExchange:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        exchange = FakeExchange.of(method, f"/v1/files/{path}", fields, body or b"")
        exchange.handle(self.api)
        if method == "PUT" and body is not None and exchange.error is None:
            exchange.feed(*([body] if body else []))
        return exchange

    def post(self, path: str, json: str, **headers: str) -> FakeExchange:
        return self.call("POST", path, json.encode(), content_type="application/json", **headers)

    def refused(self, kind: type[MatrixError], exchange: FakeExchange) -> MatrixError:
        self.assertIsInstance(exchange.error, kind)
        assert exchange.error is not None
        return exchange.error

    def incoming(self) -> list[str]:
        return os.listdir(self.data / ".incoming")


class GetTests(FilesCase):
    def setUp(self) -> None:
        super().setUp()
        self.root.joinpath("hello.txt").write_text("hello, world")

    def test_content_and_what_is_said_of_it(self) -> None:
        exchange = self.call("GET", "hello.txt")
        self.assertEqual((exchange.status, exchange.answer), (200, b"hello, world"))
        self.assertEqual(exchange.length, 12)
        self.assertEqual(exchange.header(b"content-type"), b"text/plain; charset=utf-8")
        self.assertEqual(exchange.header(b"accept-ranges"), b"bytes")
        self.assertTrue((exchange.header(b"last-modified") or b"").endswith(b" GMT"))

    def test_page_among_the_files_has_no_power_here(self) -> None:
        self.root.joinpath("evil.html").write_text("<script>")
        exchange = self.call("GET", "evil.html")
        self.assertIn(b"sandbox", exchange.header(b"content-security-policy") or b"")
        self.assertEqual(exchange.header(b"x-content-type-options"), b"nosniff")

    def test_unknown_and_packed_types_are_just_bytes(self) -> None:
        for name in ("noname", "a.unknown", "a.txt.gz"):
            self.root.joinpath(name).write_text("x")
            exchange = self.call("GET", name)
            self.assertEqual(exchange.header(b"content-type"), b"application/octet-stream", name)

    def test_head_has_all_but_the_content(self) -> None:
        get, head = self.call("GET", "hello.txt"), self.call("HEAD", "hello.txt")
        self.assertEqual(head.headers, get.headers)
        self.assertEqual((head.length, head.answer, head.state), (12, b"", "ended"))

    def test_range(self) -> None:
        exchange = self.call("GET", "hello.txt", range="bytes=7-8")
        self.assertEqual((exchange.status, exchange.answer), (206, b"wo"))
        self.assertEqual(exchange.header(b"content-range"), b"bytes 7-8/12")
        self.assertEqual(exchange.length, 2)

    def test_range_outside_the_file(self) -> None:
        error = self.refused(RangeNotSatisfiable, self.call("GET", "hello.txt", range="bytes=12-"))
        self.assertEqual(error.headers, ((b"content-range", b"bytes */12"),))

    def test_interrupted_download_goes_on_only_in_the_same_file(self) -> None:
        etag = (self.call("GET", "hello.txt").header(b"etag") or b"").decode()
        goes_on = self.call("GET", "hello.txt", range="bytes=7-", if_range=etag)
        self.assertEqual((goes_on.status, goes_on.answer), (206, b"world"))
        self.call("PUT", "hello.txt", b"other content")
        anew = self.call("GET", "hello.txt", range="bytes=7-", if_range=etag)
        self.assertEqual((anew.status, anew.answer), (200, b"other content"))

    def test_client_that_has_it_gets_304(self) -> None:
        etag = (self.call("GET", "hello.txt").header(b"etag") or b"").decode()
        exchange = self.call("GET", "hello.txt", if_none_match=etag)
        self.assertEqual((exchange.status, exchange.answer), (304, b""))
        self.assertEqual(exchange.header(b"etag"), etag.encode())

    def test_empty_file(self) -> None:
        self.root.joinpath("empty").touch()
        exchange = self.call("GET", "empty")
        self.assertEqual((exchange.status, exchange.length, exchange.state), (200, 0, "ended"))

    def test_nothing_there(self) -> None:
        self.assertIn("nope", str(self.refused(NotFound, self.call("GET", "nope"))))

    def test_bad_path_is_400(self) -> None:
        for path in ("../etc/passwd", "%2e%2e/x", "a//b", "a%2Fb", "a%00", "x" * 300):
            error = self.refused(BadRequest, self.call("GET", path))
            self.assertEqual(error.reason, "path")

    def test_link_is_refused(self) -> None:
        self.root.joinpath("link").symlink_to("/etc/hostname")
        self.assertEqual(self.refused(Forbidden, self.call("GET", "link")).reason, "link")

    def test_no_file_is_left_open(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        self.call("GET", "hello.txt")
        self.call("GET", "hello.txt", range="bytes=99-")
        self.call("HEAD", "hello.txt")
        self.call("GET", "hello.txt", if_none_match="*")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class ListTests(FilesCase):
    def test_entries(self) -> None:
        self.root.joinpath("b file").write_text("123")
        self.root.joinpath("a").mkdir()
        self.root.joinpath("link").symlink_to("a")
        os.utime(self.root / "b file", (0, 86400.25))
        for exchange in (
            self.call("GET", ""),
            FakeExchange.of("GET", "/v1/files").handle(self.api),
        ):
            listing = exchange.json
            self.assertEqual(exchange.status, 200)
            self.assertEqual((listing["path"], listing["next"]), ("", None))
            a, b, link = listing["entries"]
            self.assertEqual((a["name"], a["kind"], a["size"]), ("a", "directory", None))
            self.assertEqual((link["kind"], link["size"]), ("link", None))
            self.assertEqual((b["name"], b["kind"], b["size"]), ("b file", "file", 3))
            self.assertEqual(b["mtime"], "1970-01-02T00:00:00.250Z")
            self.assertEqual(b["href"], "/v1/files/b%20file")

    def test_etag_of_an_entry_is_the_files(self) -> None:
        self.root.joinpath("f").write_text("x")
        listed = self.call("GET", "").json["entries"][0]["etag"].encode()
        self.assertEqual(listed, self.call("GET", "f").header(b"etag"))

    def test_listing_has_an_etag_too(self) -> None:
        etag = (self.call("GET", "").header(b"etag") or b"").decode()
        self.assertEqual(self.call("GET", "", if_none_match=etag).status, 304)
        self.root.joinpath("new").touch()
        self.assertEqual(self.call("GET", "", if_none_match=etag).status, 200)

    def test_pages_follow_one_another(self) -> None:
        self.root.joinpath("d").mkdir()
        names = ["a b", "a&b", "c", "ü"]
        for name in names:
            self.root.joinpath("d", name).touch()
        self.root.joinpath("d", os.fsdecode(b"\xfe")).touch()
        found, path = [], "d?limit=1"
        while path:
            page = self.call("GET", path).json
            found += [entry["name"] for entry in page["entries"]]
            path = (page["next"] or "").removeprefix("/v1/files/")
        self.assertEqual(found, [*names, "\N{REPLACEMENT CHARACTER}"])

    def test_limit_is_checked(self) -> None:
        for limit in ("0", "-1", "x", "1001", "9" * 5000, ""):
            self.assertIn(
                "limit", str(self.refused(BadRequest, self.call("GET", f"?limit={limit}")))
            )

    def test_name_that_is_no_utf8_can_be_fetched_and_deleted(self) -> None:
        self.root.joinpath(os.fsdecode(b"\xff")).write_text("x")
        href = self.call("GET", "").json["entries"][0]["href"].removeprefix("/v1/files/")
        self.assertEqual(self.call("GET", href).answer, b"x")
        self.assertEqual(self.call("DELETE", href).status, 204)


class PutTests(FilesCase):
    def test_new_then_replaced(self) -> None:
        new = self.call("PUT", "a%20b.txt", b"one")
        self.assertEqual((new.status, new.header(b"location")), (201, b"/v1/files/a%20b.txt"))
        replaced = self.call("PUT", "a%20b.txt", b"two")
        self.assertEqual((replaced.status, replaced.header(b"location")), (204, None))
        self.assertEqual(self.root.joinpath("a b.txt").read_bytes(), b"two")
        self.assertNotEqual(new.header(b"etag"), replaced.header(b"etag"))
        self.assertEqual(self.call("GET", "a%20b.txt").header(b"etag"), replaced.header(b"etag"))

    def test_empty_file(self) -> None:
        self.assertEqual(self.call("PUT", "empty", b"").status, 201)
        self.assertEqual(self.root.joinpath("empty").read_bytes(), b"")

    def test_body_cut_short_leaves_the_old_file_and_no_trace(self) -> None:
        self.call("PUT", "file", b"old")
        exchange = self.call("PUT", "file")
        assert exchange.sink is not None
        exchange.sink.body_data(b"half of the n")
        self.assertEqual(len(self.incoming()), 1)
        exchange.sink.body_lost(ClientGone())
        self.refused(ClientGone, exchange)
        self.assertEqual(self.root.joinpath("file").read_bytes(), b"old")
        self.assertEqual(self.incoming(), [])

    def test_client_that_leaves_leaves_no_trace(self) -> None:
        exchange = self.call("PUT", "file")
        assert exchange.sink is not None
        exchange.sink.body_data(b"half")
        exchange.leave()
        self.assertEqual((self.incoming(), os.listdir(self.root)), ([], []))

    def test_upload_under_way_shows_nowhere(self) -> None:
        upload = self.call("PUT", "file")
        self.assertEqual(self.call("GET", "").json["entries"], [])
        upload.leave()

    def test_if_none_match_makes_only(self) -> None:
        self.assertEqual(self.call("PUT", "f", b"1", if_none_match="*").status, 201)
        again = self.call("PUT", "f", if_none_match="*")
        self.refused(PreconditionFailed, again)
        self.assertIsNone(again.sink, "refused before the body came")

    def test_if_match_replaces_only_that_version(self) -> None:
        etag = (self.call("PUT", "f", b"1").header(b"etag") or b"").decode()
        self.assertEqual(self.call("PUT", "f", b"2", if_match=etag).status, 204)
        self.refused(PreconditionFailed, self.call("PUT", "f", if_match=etag))
        self.refused(PreconditionFailed, self.call("PUT", "g", if_match="*"))

    def test_version_is_checked_again_when_the_body_is_in(self) -> None:
        slow = self.call("PUT", "f", if_none_match="*")
        self.call("PUT", "f", b"faster")
        slow.feed(b"slower")
        self.refused(PreconditionFailed, slow)
        self.assertEqual(self.root.joinpath("f").read_bytes(), b"faster")
        self.assertEqual(self.incoming(), [])

    def test_parts_and_packed_bodies_are_refused(self) -> None:
        for field, value in (("content_range", "bytes 0-1/2"), ("content_encoding", "gzip")):
            error = self.refused(BadRequest, self.call("PUT", "f", **{field: value}))
            self.assertEqual(error.reason, field.replace("_", "-"))

    def test_folder_cannot_be_put(self) -> None:
        self.root.joinpath("d").mkdir()
        self.refused(Conflict, self.call("PUT", "d"))
        self.refused(Conflict, self.call("PUT", ""))
        self.refused(Conflict, self.call("PUT", "no/folder"))


class PostTests(FilesCase):
    def test_mkdir(self) -> None:
        exchange = self.post("d%20e", '{"op":"mkdir"}')
        self.assertEqual((exchange.status, exchange.header(b"location")), (201, b"/v1/files/d%20e"))
        self.assertIsNotNone(exchange.header(b"etag"))
        self.assertTrue(self.root.joinpath("d e").is_dir())
        self.refused(Conflict, self.post("d%20e", '{"op":"mkdir"}'))

    def test_move(self) -> None:
        self.root.joinpath("a").write_text("A")
        moved = self.post("a", '{"op":"move","to":"b ü"}')
        self.assertEqual(moved.status, 201)
        self.assertEqual(moved.header(b"location"), b"/v1/files/b%20%C3%BC")
        self.assertEqual(self.root.joinpath("b ü").read_text(), "A")

    def test_move_onto_what_exists(self) -> None:
        for name in ("a", "b"):
            self.root.joinpath(name).write_text(name)
        self.refused(Conflict, self.post("a", '{"op":"move","to":"b"}'))
        moved = self.post("a", '{"op":"move","to":"b","overwrite":true}')
        self.assertEqual(moved.status, 204)
        self.assertEqual(self.root.joinpath("b").read_text(), "a")

    def test_move_of_another_version_is_refused(self) -> None:
        self.root.joinpath("a").write_text("A")
        self.refused(PreconditionFailed, self.post("a", '{"op":"move","to":"b"}', if_match='"x"'))

    def test_what_is_wrong_is_named(self) -> None:
        self.root.joinpath("a").write_text("A")
        for json, named in {
            "{}": "op:",
            "[]": "op:",
            '{"op":"eat"}': "op:",
            '{"op":"move"}': "to:",
            '{"op":"move","to":7}': "to:",
            '{"op":"move","to":"b","overwrite":"yes"}': "overwrite:",
            '{"op":"move","to":"../b"}': "'..'",
            '{"op":"move","to":"/b"}': "empty name",
        }.items():
            self.assertIn(named, str(self.refused(BadRequest, self.post("a", json))), json)

    def test_workspace_itself_stays(self) -> None:
        self.refused(Conflict, self.post("", '{"op":"move","to":"b"}'))
        self.refused(Conflict, self.post("", '{"op":"mkdir"}'))

    def test_form_of_another_site_is_refused(self) -> None:
        exchange = self.call("POST", "d", b'{"op":"mkdir"}', content_type="text/plain")
        self.assertEqual(self.refused(BadRequest, exchange).reason, "content-type")


class DeleteTests(FilesCase):
    def test_file(self) -> None:
        self.root.joinpath("a").touch()
        self.assertEqual(self.call("DELETE", "a").status, 204)
        self.refused(NotFound, self.call("DELETE", "a"))

    def test_folder_with_content_only_when_asked(self) -> None:
        self.root.joinpath("d").mkdir()
        self.root.joinpath("d/f").touch()
        self.refused(Conflict, self.call("DELETE", "d"))
        self.refused(Conflict, self.call("DELETE", "d?recursive=false"))
        self.assertEqual(self.call("DELETE", "d?recursive=true").status, 204)
        self.assertEqual((self.incoming(), os.listdir(self.root)), ([], []))

    def test_recursive_is_true_or_false(self) -> None:
        self.refused(BadRequest, self.call("DELETE", "d?recursive=1"))

    def test_other_version_is_kept(self) -> None:
        self.root.joinpath("a").touch()
        self.refused(PreconditionFailed, self.call("DELETE", "a", if_match='"other"'))
        self.assertTrue(self.root.joinpath("a").exists())

    def test_workspace_itself_stays(self) -> None:
        self.refused(Conflict, self.call("DELETE", "?recursive=true"))
