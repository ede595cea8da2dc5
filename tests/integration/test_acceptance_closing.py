"""What a page in Chromium sees of the end of its right: the close codes of its WebSockets."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

import matrix.testing
from matrix.testing.browser import open_browser
from matrix.testing.running_case import MatrixCase

PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
STREAMS = shlex.join([sys.executable, str(PROGRAM), "{socket}"])

GRACE = 1
"""Seconds that a stream outlives its token here."""

OPEN = """
const [protocols, done] = arguments;
window.ended = null;
window.socket = new WebSocket(`wss://${location.host}/ws`, protocols);
socket.onclose = event => { window.ended = [event.code, event.reason]; done(ended); };
socket.onopen = () => done(["open", socket.protocol]);
"""


class ClosingTests(MatrixCase):
    SETTINGS: ClassVar[Mapping[str, Any]] = {"local_command": STREAMS, "stream_grace": GRACE}
    browser: Chrome

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory(prefix="matrix-browser-")
        cls.addClassCleanup(folder.cleanup)
        certificate = cls.matrix.state / "tls" / "localhost.pem"
        cls.browser = open_browser(Path(folder.name), certificate, (1000, 800))
        cls.addClassCleanup(cls.browser.quit)

    def sign_in(self, user: str) -> None:
        """To a page of the user's machine."""
        browser = self.browser
        browser.delete_all_cookies()
        browser.get(self.matrix.url + "/page")
        browser.find_element(By.NAME, "email").send_keys(f"{user}@localhost")
        browser.find_element(By.NAME, "password").send_keys(self.matrix.issuer().password(user))
        browser.find_element(By.CSS_SELECTOR, "button[value=password]").click()
        WebDriverWait(browser, 20).until(lambda one: "received" in one.page_source)

    def open(self, *protocols: str) -> str:
        """A WebSocket from the page; the subprotocol that it got."""
        state, chosen = self.browser.execute_async_script(OPEN, list(protocols))
        self.assertEqual(state, "open")
        return str(chosen)

    def ended(self) -> list[Any]:
        """How it was closed."""
        look = "return window.ended"
        found = WebDriverWait(self.browser, 20, 0.02).until(lambda one: one.execute_script(look))
        assert isinstance(found, list)
        return found

    def test_revoked_blocked_and_back(self) -> None:
        self.sign_in("alice")
        self.open()
        self.matrix.admin(f"users/{self.matrix.user_id('alice')}/sessions/revoke", "POST")
        self.assertEqual(self.ended(), [4401, "revoked"])
        self.browser.refresh()
        self.assertIn("Your session has ended.", self.browser.page_source)
        self.sign_in("alice")
        self.open()
        self.matrix.admin(f"users/{self.matrix.user_id('alice')}/block", "POST")
        self.assertEqual(self.ended(), [4403, "blocked"])
        self.browser.refresh()
        self.assertIn("blocked", self.browser.find_element(By.TAG_NAME, "main").text)

    def test_signed_out_elsewhere(self) -> None:
        self.sign_in("bob")
        self.open()
        first = self.browser.current_window_handle
        self.browser.switch_to.new_window("tab")
        self.browser.get(self.matrix.url + "/-/logout")
        self.browser.find_element(By.CSS_SELECTOR, "form button").click()
        WebDriverWait(self.browser, 20).until(lambda one: "signed out" in one.page_source)
        self.browser.close()
        self.browser.switch_to.window(first)
        self.assertEqual(self.ended(), [4401, "revoked"])

    def test_expired(self) -> None:
        """A token of its own among the subprotocols, which expires."""
        self.sign_in("bob")
        token = self.matrix.token("bob", exp=int(time.time()) + 3)
        self.assertEqual(self.open("matrix", f"matrix.jwt.{token}"), "matrix")
        self.assertEqual(self.ended(), [4401, "expired"])
