"""A person whose file is gone: they find it in a snapshot, in a browser, and put it back."""

from __future__ import annotations

import os
from pathlib import Path

from selenium.webdriver.common.by import By

from matrix.testing.browser_case import BrowserCase

PLACE = "letters/to%20jane.txt"
TEXT = b"what I wrote last week"


class PastPageTests(BrowserCase):
    SETTINGS = {"snapshots": "true"}

    def test_a_deleted_file_is_put_back(self) -> None:
        self.prepare()
        self.browser.get(self.matrix.sign_in_link)
        self.until(lambda: self.browser.title == "Your machine", "the start page")
        self.browser.find_element(By.LINK_TEXT, "Snapshots").click()
        self.until(lambda: len(self.rows()) == 1, "the snapshot is listed")
        self.click("#files tbody a")
        self.until(lambda: self.rows() == ["letters/"], "the folder is shown")
        self.click("#files tbody a")
        self.until(lambda: self.rows() == ["to jane.txt"], "the file is shown")
        self.picture("snapshot")
        self.click(".restore")
        self.until(lambda: "is in your files again" in self.text("#done"), "it is put back")
        kept = self.matrix.workspace("alice") / "letters" / "to jane.txt"
        self.assertEqual(kept.read_bytes(), TEXT)
        self.replaces_only_when_asked(kept)
        severe = [e for e in self.browser.get_log("browser") if e["level"] == "SEVERE"]
        # Chromium reports each refused call as an error: the one that found the file there.
        self.assertEqual([e for e in severe if "409" not in e["message"]], [])

    def prepare(self) -> None:
        """A file, a snapshot, and the file is gone."""
        headers = [("Content-Type", "application/json")]
        self.ask("alice", "POST", "/v1/files/letters", b'{"op":"mkdir"}', headers)
        self.assertEqual(self.ask("alice", "PUT", f"/v1/files/{PLACE}", TEXT).status, 201)
        self.matrix.until(self.is_snapshot_taken, 60, "a snapshot is taken")
        self.ask("alice", "DELETE", "/v1/files/letters?recursive=true")

    def is_snapshot_taken(self) -> bool:
        place = f"users/{self.matrix.user_id('alice')}/snapshot"
        *_, last = self.matrix.admin_lines(place, "POST")
        return bool(last["kind"] == "done")

    def replaces_only_when_asked(self, kept: Path) -> None:
        kept.write_bytes(b"something else by now")
        self.click(".restore")
        self.until(lambda: self.browser.find_element(By.ID, "ask-yes").is_displayed(), "a question")
        self.click("#ask-no")
        self.assertEqual(kept.read_bytes(), b"something else by now")
        self.click(".restore")
        self.until(lambda: self.browser.find_element(By.ID, "ask-yes").is_displayed(), "a question")
        self.click("#ask-yes")
        self.until(lambda: kept.read_bytes() == TEXT, "it is as it was")

    def rows(self) -> list[str]:
        names = "return [...document.querySelectorAll('#files tbody tr')].map("
        return list(self.browser.execute_script(names + "r => r.cells[0].innerText)"))

    def click(self, selector: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def text(self, selector: str) -> str:
        return self.browser.find_element(By.CSS_SELECTOR, selector).text

    def picture(self, name: str) -> None:
        path = Path(os.environ.get("ACCEPTANCE_SCREENSHOTS", self.folder)) / f"{name}.png"
        self.assertTrue(self.browser.save_screenshot(str(path)))
