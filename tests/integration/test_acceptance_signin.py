"""A person signs in at our own page, with a password or a code, and out again: in Chromium."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from matrix.testing.browser_case import BrowserCase

DEEP = "/?deep=link&of=alice"

CONTRAST = """
const lightness = text => {
  const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = node => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("h1, p, label, input:not([type=hidden]), button, a, pre")]
  .map(node => {
    const [a, b] = [getComputedStyle(node).color, paper(node)].map(lightness);
    return [node.tagName, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
"""
"""Each text's element and its contrast with what is behind it (WCAG 2.2, section 1.4.3)."""

ENOUGH_CONTRAST = 4.5


class SignInTests(BrowserCase):
    WINDOW = (1000, 900)

    def setUp(self) -> None:
        self.browser.delete_all_cookies()
        self.scripts(allowed=True)
        self.show_as()

    # what the person sees

    def text(self, selector: str) -> str:
        return self.browser.find_element(By.CSS_SELECTOR, selector).text

    def cookie(self) -> dict[str, Any] | None:
        found = self.browser.execute_cdp_cmd("Network.getAllCookies", {})["cookies"]
        return next((dict(each) for each in found if each["name"] == "__Host-matrix"), None)

    def focused(self) -> str:
        return str(self.browser.switch_to.active_element.get_attribute("id"))

    def picture(self, name: str, *, shown: bool = True) -> None:
        """@param shown: whether the documentation shows it."""
        kept = os.environ.get("ACCEPTANCE_SCREENSHOTS") if shown else None
        path = Path(kept or self.folder) / f"{name}.png"
        self.assertTrue(self.browser.save_screenshot(str(path)))
        self.assertGreater(path.stat().st_size, 5_000)

    def at_the_start_page(self) -> bool:
        return self.browser.title == "Your machine"

    # what the person does

    def scripts(self, *, allowed: bool) -> None:
        given = {"value": not allowed}
        self.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", given)

    def show_as(self, scheme: str = "light", width: int = 0) -> None:
        """On a screen that is so wide (CSS pixels), and light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        if width:
            screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def open(self, path: str = "/") -> None:
        self.browser.get(self.matrix.url + path)

    def type(self, name: str, text: str) -> None:
        field = self.browser.find_element(By.NAME, name)
        field.clear()
        field.send_keys(text)

    def press(self, how: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, f"button[value={how}]").click()

    @property
    def password(self) -> str:
        return str(self.matrix.issuer().password("alice"))

    def sign_in(self, path: str = "/") -> None:
        self.open(path)
        self.type("email", "alice@localhost")
        self.type("password", self.password)
        self.press("password")
        self.until(self.at_the_start_page, "the machine's own page")

    def test_with_a_password_to_where_one_wanted_to_go(self) -> None:
        self.open(DEEP)
        self.assertEqual(self.text("h1"), "Sign in")
        self.assertEqual(self.focused(), "email")
        self.picture("sign-in")
        self.type("email", "alice@localhost")
        self.type("password", self.password + Keys.ENTER)
        self.until(self.at_the_start_page, "the machine's own page")
        self.assertEqual(self.browser.current_url, self.matrix.url + DEEP)
        cookie = self.cookie()
        assert cookie is not None
        self.assertTrue(cookie["httpOnly"] and cookie["secure"])
        self.assertEqual((cookie["sameSite"], cookie["path"]), ("Lax", "/"))
        self.assertEqual(cookie["domain"], "localhost")
        self.assertEqual(self.browser.execute_script("return document.cookie"), "")

    def test_a_wrong_password_is_told_and_can_be_mended(self) -> None:
        self.open(DEEP)
        self.type("email", "alice@localhost")
        self.type("password", "guess" + Keys.ENTER)
        self.until(lambda: self.browser.title.startswith("Error: "), "the page says so")
        self.assertIn("is wrong", self.text("[role=alert]"))
        self.assertEqual(self.focused(), "password")
        self.picture("sign-in-wrong", shown=False)
        self.assertIsNone(self.cookie())
        self.type("password", self.password + Keys.ENTER)
        self.until(self.at_the_start_page, "the machine's own page")
        self.assertEqual(self.browser.current_url, self.matrix.url + DEEP)

    def test_with_a_code_and_without_javascript(self) -> None:
        self.scripts(allowed=False)
        self.open(DEEP)
        self.type("email", "bob@localhost")
        self.press("send")
        self.until(lambda: self.browser.title.startswith("Enter your code"), "it asks for the code")
        self.assertIn("bob@localhost", self.text("#sent"))
        self.picture("sign-in-code")
        code = self.matrix.issuer().code("bob")
        wrong = "000000" if code != "000000" else "111111"
        self.type("code", wrong + Keys.ENTER)
        self.until(lambda: self.browser.title.startswith("Error: "), "it was another")
        self.type("code", f"{code[:3]} {code[3:]}{Keys.ENTER}")
        self.until(self.at_the_start_page, "the machine's own page")
        self.assertEqual(self.browser.current_url, self.matrix.url + DEEP)

    def test_out_again(self) -> None:
        self.sign_in()
        handle = self.cookie()
        self.open("/-/logout")
        self.assertEqual(self.text("h1"), "Sign out?")
        self.picture("sign-out")
        self.browser.find_element(By.CSS_SELECTOR, "form button").click()
        self.until(lambda: self.text("h1") == "You are signed out", "it says so")
        self.assertIsNone(self.cookie())
        self.open()
        self.assertEqual(self.text("h1"), "Sign in")
        assert handle is not None
        stolen = [("Cookie", f"__Host-matrix={handle['value']}")]
        self.assertEqual(self.matrix.door.ask("GET", "/", stolen).status, 401)

    def test_on_a_small_screen_and_in_the_dark(self) -> None:
        for scheme in ("light", "dark"):
            self.show_as(scheme, width=320)
            self.open()
            wide = "return [document.documentElement.scrollWidth, innerWidth]"
            self.assertEqual(self.browser.execute_script(wide), [320, 320])
            self.type("email", "alice@localhost")
            self.type("password", "guess" + Keys.ENTER)
            self.until(lambda: self.browser.title.startswith("Error: "), "the page says so")
            self.assertEqual(self.browser.execute_script(wide), [320, 320])
            for tag, contrast in self.browser.execute_script(CONTRAST):
                self.assertGreaterEqual(contrast, ENOUGH_CONTRAST, (scheme, tag))
            self.picture(f"sign-in-small-{scheme}", shown=False)
