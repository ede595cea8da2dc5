"""A page's streams in a real browser: by subprotocol, by ticket, by cookie."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome

from matrix.testing.browser import open_browser
from matrix.testing.running_case import MatrixCase

SOCKET = "/v1/events/ws"
STREAM = "/v1/events"
"""Both of the machine's own daemon."""

WAKE_SECONDS = 60
"""For a script that waits for a machine's first start, on a busy host."""

OPEN_SOCKET = """
const [path, offered, done] = arguments;
const url = `wss://${location.host}${path}`;
const socket = offered ? new WebSocket(url, offered) : new WebSocket(url);
socket.onopen = () => { done(["open", socket.protocol]); socket.close(); };
socket.onerror = () => done(["failed", ""]);
"""

OPEN_STREAM = """
const [path, done] = arguments;
const stream = new EventSource(path);
stream.onopen = () => { done("open"); stream.close(); };
stream.onerror = () => { done("failed"); stream.close(); };
"""

GET_TICKET = """
const [token, done] = arguments;
const headers = token ? { Authorization: `Bearer ${token}` } : {};
fetch("/-/ticket", { method: "POST", headers })
  .then((answer) => answer.json()).then((told) => done(told.ticket || told.reason));
"""


class StreamTests(MatrixCase):
    """Chromium decides for itself which handshakes it takes."""

    browser: Chrome

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        home = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="matrix-browser-")))
        certificate = cls.matrix.state / "tls" / "localhost.pem"
        cls.browser = open_browser(home, certificate, (600, 400))
        cls.addClassCleanup(cls.browser.quit)
        cls.browser.set_script_timeout(WAKE_SECONDS)
        cls.token = cls.matrix.token("alice")

    token: str

    def setUp(self) -> None:
        self.browser.get(f"{self.matrix.url}/-/healthz")
        self.browser.delete_all_cookies()

    def socket(self, offered: list[str] | None, path: str = SOCKET) -> Any:
        return self.browser.execute_async_script(OPEN_SOCKET, path, offered)

    def stream(self, path: str) -> Any:
        return self.browser.execute_async_script(OPEN_STREAM, path)

    def ticket(self, token: str = "") -> str:
        return str(self.browser.execute_async_script(GET_TICKET, token))

    def test_the_marker_is_what_the_browser_wants_chosen(self) -> None:
        for offered in (
            ["matrix", f"matrix.jwt.{self.token}"],
            [f"jwt-{self.token}", "matrix"],
            ["chat", "matrix", f"matrix.jwt.{self.token}"],
        ):
            self.assertEqual(self.socket(offered), ["open", "matrix"])

    def test_without_the_marker_the_browser_gives_up(self) -> None:
        """A handshake whose offer got no answer: what docs/auth.md warns of."""
        self.assertEqual(self.socket([f"matrix.jwt.{self.token}"]), ["failed", ""])

    def test_a_refused_token(self) -> None:
        self.assertEqual(self.socket(["matrix", "matrix.jwt.forged"]), ["failed", ""])

    def test_a_ticket_opens_one_stream(self) -> None:
        path = f"{STREAM}?matrix_ticket={self.ticket(self.token)}"
        self.assertEqual(self.stream(path), "open")
        self.assertEqual(self.stream(path), "failed")
        path = f"{SOCKET}?matrix_ticket={self.ticket(self.token)}"
        self.assertEqual(self.socket(None, path), ["open", ""])
        self.assertEqual(self.socket(None, path), ["failed", ""])

    def test_nobody_gets_a_ticket_for_nothing(self) -> None:
        self.assertEqual(self.ticket(), "missing")

    def test_a_cookie_is_enough_for_a_page_of_ours(self) -> None:
        self.browser.get(self.matrix.sign_in_link)
        self.browser.get(f"{self.matrix.url}/-/healthz")
        self.assertEqual(self.socket(None), ["open", ""])
        self.assertEqual(self.stream(STREAM), "open")
        self.assertEqual(self.stream(f"{STREAM}?matrix_ticket={self.ticket()}"), "open")
