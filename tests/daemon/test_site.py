"""Everything is behind the token but /healthz; the start page is self-contained and strict."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.events import Events
from matrix.daemon.feed import Feed
from matrix.daemon.files import Files
from matrix.daemon.paths import Parts
from matrix.daemon.site import site
from matrix.daemon.workspace import Workspace
from matrix.errors import MethodNotAllowed, NotFound, Unauthorized
from matrix.testing.exchange import FakeExchange
from matrix.testing.scratch import scratch

PAGES = (("/", "start"), ("/snapshots", "snapshots"))
"""Each page, and its script."""

TOKEN = {"Authorization": "Bearer token-of-the-machine"}


def in_this_thread(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    return maybeDeferred(function, *args)


class Untold:
    @contextmanager
    def placing(self, parts: Parts) -> Iterator[Callable[[bool], None]]:
        yield lambda new: None


class SiteCase(SynchronousTestCase):
    def setUp(self) -> None:
        workspace = Workspace(os.fsencode(scratch(self)), in_this_thread, Untold())
        self.addCleanup(workspace.close)
        self.watching = "ok"
        self.handler = site(
            "token-of-the-machine",
            Files(workspace),
            Events(Feed(), Clock().callLater),
            lambda: self.watching,
        )

    def call(self, method: str, path: str, headers: dict[str, str] | None = None) -> FakeExchange:
        fields = TOKEN if headers is None else headers
        return FakeExchange.of(method, path, fields).handle(self.handler)


class TokenTests(SiteCase):
    def test_health_is_open_to_all(self) -> None:
        exchange = self.call("GET", "/healthz", {})
        self.assertEqual(exchange.status, 200)
        self.assertEqual(exchange.json["status"], "ok")
        self.assertEqual(exchange.json["events"], "ok")

    def test_health_tells_when_events_are_not_whole(self) -> None:
        self.watching = "partial"
        self.assertEqual(self.call("GET", "/healthz").json["events"], "partial")

    def test_nothing_else_is(self) -> None:
        paths = (
            "/",
            "/assets/start.js",
            "/v1/files/",
            "/v1/files/a",
            "/v1/events",
            "/v1/events/ws",
            "/nothing",
            "/healthz/",
            "//healthz",
            "/healthz/../v1/files",
        )
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            for path in paths:
                for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"):
                    exchange = self.call(method, path, headers)
                    if (method, path) in (("GET", "/healthz/"), ("HEAD", "/healthz/")):
                        continue  # The same page, with a slash.
                    self.assertIsInstance(exchange.error, Unauthorized, (method, path))
                    self.assertEqual(exchange.state, "waiting")

    def test_who_has_it_learns_what_there_is(self) -> None:
        self.assertIsInstance(self.call("GET", "/nothing").error, NotFound)
        self.assertIsInstance(self.call("PATCH", "/v1/files/a").error, MethodNotAllowed)
        allow = self.call("OPTIONS", "/v1/files/a").header(b"allow")
        self.assertEqual(allow, b"DELETE, GET, HEAD, OPTIONS, POST, PUT")


class StartPageTests(SiteCase):
    def test_page_and_assets_are_there(self) -> None:
        for path, kind in (
            ("/", b"text/html; charset=utf-8"),
            ("/assets/start.css", b"text/css; charset=utf-8"),
            ("/assets/start.js", b"text/javascript; charset=utf-8"),
            ("/assets/page.js", b"text/javascript; charset=utf-8"),
            ("/snapshots", b"text/html; charset=utf-8"),
            ("/assets/snapshots.js", b"text/javascript; charset=utf-8"),
        ):
            exchange = self.call("GET", path)
            self.assertEqual((exchange.status, exchange.header(b"content-type")), (200, kind))
            self.assertGreater(len(exchange.answer), 1000)

    def test_nothing_from_elsewhere_and_nothing_inline(self) -> None:
        policy = (self.call("GET", "/").header(b"content-security-policy") or b"").decode()
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertNotIn("http", policy)

    def test_page_obeys_its_policy(self) -> None:
        for path, _ in PAGES:
            page = self.call("GET", path).answer.decode()
            self.assertNotRegex(page, r"<script(?![^>]*\bsrc=)")
            self.assertNotRegex(page, r"<style|\sstyle=|\son\w+=")
            for link in re.findall(r'(?:href|src)="([^"]+)"', page):
                self.assertRegex(link, r"^(/(?!/)|#|data:image/svg\+xml,)")

    def test_names_are_set_as_text(self) -> None:
        for name in ("page", "start", "snapshots"):
            script = self.call("GET", f"/assets/{name}.js").answer.decode()
            markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval"
            self.assertNotRegex(script, markup)

    def test_ids_that_the_scripts_use_are_in_the_page(self) -> None:
        shared = self.call("GET", "/assets/page.js").answer.decode()
        for path, name in PAGES:
            page = self.call("GET", path).answer.decode()
            script = shared + self.call("GET", f"/assets/{name}.js").answer.decode()
            ids = set(re.findall(r'\$\("([\w-]+)"\)', script))
            self.assertGreaterEqual(ids, {"files", "ask", "message", "crumbs"})
            for id in ids:
                self.assertIn(f'id="{id}"', page)

    def test_is_asked_for_again_but_not_sent_again(self) -> None:
        first = self.call("GET", "/")
        etag = (first.header(b"etag") or b"").decode()
        again = self.call("GET", "/", {**TOKEN, "If-None-Match": etag})
        self.assertEqual((again.status, again.answer), (304, b""))
        self.assertEqual(first.header(b"cache-control"), b"private, no-cache")

    def test_every_file_of_the_page_is_packaged(self) -> None:
        names = {each.name for each in (files("matrix.daemon") / "pages").iterdir()}
        self.assertEqual(
            names,
            {"index.html", "snapshots.html", "start.css", "page.js", "start.js", "snapshots.js"},
        )
