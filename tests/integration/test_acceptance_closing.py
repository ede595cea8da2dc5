"""What a page in Chromium sees of the end of its right: the close codes of its WebSockets."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from selenium.webdriver.common.by import By

import matrix.testing
from matrix.testing.browser_case import BrowserCase

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


class ClosingTests(BrowserCase):
    SETTINGS: ClassVar[Mapping[str, Any]] = {"local_command": STREAMS, "stream_grace": GRACE}

    def sign_in(self, user: str) -> None:
        """To a page of the user's machine."""
        browser = self.browser
        browser.delete_all_cookies()
        browser.get(self.matrix.url + "/page")
        browser.find_element(By.NAME, "email").send_keys(f"{user}@localhost")
        browser.find_element(By.NAME, "password").send_keys(self.matrix.issuer().password(user))
        browser.find_element(By.CSS_SELECTOR, "button[value=password]").click()
        self.until(lambda: "received" in browser.page_source, "the machine's page")

    def open(self, *protocols: str) -> str:
        """A WebSocket from the page; the subprotocol that it got."""
        state, chosen = self.browser.execute_async_script(OPEN, list(protocols))
        self.assertEqual(state, "open")
        return str(chosen)

    def ended(self) -> list[Any]:
        """How it was closed."""
        look = "return window.ended"
        found = self.until(lambda: self.browser.execute_script(look), "it is closed")
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
        self.until(lambda: "signed out" in self.browser.page_source, "it says so")
        self.browser.close()
        self.browser.switch_to.window(first)
        self.assertEqual(self.ended(), [4401, "revoked"])

    def test_expired(self) -> None:
        """A token of its own among the subprotocols, which expires."""
        self.sign_in("bob")
        token = self.matrix.token("bob", exp=int(time.time()) + 3)
        self.assertEqual(self.open("matrix", f"matrix.jwt.{token}"), "matrix")
        self.assertEqual(self.ended(), [4401, "expired"])
