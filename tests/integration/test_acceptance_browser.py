"""A person with a browser: signs in, sees their machine wake, and works with their files."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from matrix.machines._command import DAEMON
from matrix.testing.browser_case import BrowserCase

SLOW_START = 3
"""Seconds before the machine even begins: time to see the waking page."""

SLOW_DAEMON = shlex.join(["sh", "-c", f'sleep {SLOW_START}; exec "$@"', "sh", *DAEMON])

UPLOAD = 3_000_000
"""Bytes; at the speed below, long enough to see the progress."""
UPSTREAM = 1_500_000
"""Bytes per second that the browser may send."""

DROP = """
const transfer = new DataTransfer();
transfer.items.add(new File([arguments[1]], arguments[0], {type: "text/plain"}));
for (const type of ["dragenter", "dragover", "drop"]) {
  document.getElementById("files").dispatchEvent(
    new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: transfer}));
}
"""

WATCH_PROGRESS = """
window.seen = [];
new MutationObserver(() => {
  for (const bar of document.querySelectorAll("#progress progress, #progress meter"))
    if (bar.max > 0) window.seen.push(bar.value / bar.max);
}).observe(document.getElementById("progress"), {subtree: true, childList: true, attributes: true});
"""


class BrowserTests(BrowserCase):
    WINDOW = (1000, 900)
    SETTINGS = {"local_command": SLOW_DAEMON}

    def setUp(self) -> None:
        self.browser.delete_all_cookies()
        self.browser.get_log("browser")  # which forgets what it has told

    # what the person sees

    def text(self, selector: str) -> str:
        return self.browser.find_element(By.CSS_SELECTOR, selector).text

    def names(self) -> list[str]:
        """The names in the list of files."""
        rows = "return [...document.querySelectorAll('#files tbody tr')].map(r => r.dataset.name)"
        return list(self.browser.execute_script(rows))

    def news(self) -> list[str]:
        """What the page says just happened."""
        items = "return [...document.querySelectorAll('#events li')].map(i => i.innerText)"
        return list(self.browser.execute_script(items))

    def picture(self, name: str) -> None:
        path = Path(os.environ.get("ACCEPTANCE_SCREENSHOTS", self.folder)) / f"{name}.png"
        self.assertTrue(self.browser.save_screenshot(str(path)))
        self.assertGreater(path.stat().st_size, 5_000)

    # what the person does

    def test_from_the_printed_link_to_a_file_and_its_event(self) -> None:
        self.prepare()
        self.browser.get(self.matrix.sign_in_link)
        self.sees_the_machine_wake()
        self.lands_on_the_start_page()
        self.uploads_with_the_button()
        self.uploads_by_dropping()
        self.sees_what_others_do()
        self.picture("start")
        self.lets_it_sleep_and_comes_back()
        severe = [e for e in self.browser.get_log("browser") if e["level"] == "SEVERE"]
        # The waking page itself is a 503, and Chromium reports each failed load as an error.
        self.assertEqual([e for e in severe if "503" not in e["message"]], [])

    def prepare(self) -> None:
        """A machine that was used before, and is not running."""
        for name in ("notes.md", "holiday%20plans.txt", "photos/beach.jpg"):
            if "/" in name:
                folder = f"/v1/files/{name.partition('/')[0]}"
                headers = [("Content-Type", "application/json")]
                self.ask("alice", "POST", folder, b'{"op":"mkdir"}', headers)
            self.assertEqual(self.ask("alice", "PUT", f"/v1/files/{name}", b"x" * 1234).status, 201)
        self.matrix.kill_machine("alice")
        self.matrix.until(lambda: self.row("alice")["state"] == "stopped", 10, "death is noticed")

    def sees_the_machine_wake(self) -> None:
        self.assertEqual(self.browser.title, "Waking your machine · Matrix")
        self.assertIn("Waking your machine", self.text("h1"))
        self.until(lambda: "Waiting for its answer" in self.text("#steps .now"), "the step")
        bar = self.browser.find_element(By.ID, "bar")
        self.until(lambda: int(bar.get_attribute("aria-valuenow") or 0) > 30, "progress")
        self.picture("waking")

    def lands_on_the_start_page(self) -> None:
        self.until(lambda: self.browser.title == "Your machine", "the page goes on by itself")
        self.assertEqual(self.browser.current_url, self.matrix.url + "/")
        self.until(lambda: self.text("#state") == "Live", "the page follows the events")
        self.until(lambda: len(self.names()) == 3, "the files are listed")
        self.assertEqual(set(self.names()), {"notes.md", "holiday plans.txt", "photos"})

    def uploads_with_the_button(self) -> None:
        file = self.folder / "report.pdf"
        file.write_bytes(os.urandom(UPLOAD))
        self.browser.execute_cdp_cmd("Network.enable", {})
        limits = {"offline": False, "latency": 0, "downloadThroughput": -1}
        slow = limits | {"uploadThroughput": UPSTREAM}
        self.browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
        self.browser.execute_script(WATCH_PROGRESS)
        self.browser.find_element(By.ID, "upload-input").send_keys(str(file))
        self.until(lambda: "report.pdf" in self.text("#progress"), "the upload is shown")
        self.until(lambda: "report.pdf" in self.names(), "the file is listed")
        self.until(lambda: any("report.pdf is new" in n for n in self.news()), "the event")
        self.until(lambda: not self.text("#progress"), "the upload is over")
        steps = self.browser.execute_script("return window.seen")
        self.assertTrue([step for step in steps if 0 < step < 1], steps)
        self.assertEqual(steps, sorted(steps))
        kept = self.matrix.workspace("alice") / "report.pdf"
        self.assertEqual(kept.read_bytes(), file.read_bytes())
        fast = limits | {"uploadThroughput": -1}
        self.browser.execute_cdp_cmd("Network.emulateNetworkConditions", fast)

    def uploads_by_dropping(self) -> None:
        self.browser.execute_script(DROP, "dropped.txt", "let go here")
        self.until(lambda: "dropped.txt" in self.names(), "the dropped file is listed")
        kept = self.matrix.workspace("alice") / "dropped.txt"
        self.assertEqual(kept.read_text(), "let go here")

    def sees_what_others_do(self) -> None:
        put = self.ask("alice", "PUT", "/v1/files/from-a-program.csv", b"a,b\n1,2\n")
        self.assertEqual(put.status, 201)
        self.until(lambda: any("from-a-program.csv is new" in n for n in self.news()), "the event")
        self.until(lambda: "from-a-program.csv" in self.names(), "the list is fresh")

    def lets_it_sleep_and_comes_back(self) -> None:
        """A page that nobody looks at keeps no machine awake; a move of the pointer is enough."""
        self.browser.execute_script("const now = Date.now; Date.now = () => now() + 61000")
        self.matrix.suspend("alice")
        self.until(lambda: "Asleep" in self.text("#state"), "the page lets go")
        time.sleep(4)  # longer than a page that is looked at waits before it tries again
        self.assertEqual(self.row("alice")["state"], "suspended")
        ActionChains(self.browser).move_by_offset(5, 5).perform()
        self.until(lambda: self.text("#state") == "Live", "the page is back")
        self.assertEqual(self.row("alice")["state"], "running")

    def test_who_is_not_signed_in_is_told_how(self) -> None:
        self.browser.get(self.matrix.url + "/")
        self.assertIn("Sign in", self.text("h1"))
        self.assertIn("matrix token alice", self.text("pre"))

    def test_a_wrong_link_signs_nobody_in(self) -> None:
        self.browser.get(f"{self.matrix.url}/-/signin?code=guessed")
        self.assertIn("Sign in", self.text("h1"))
        self.assertEqual(self.browser.get_cookies(), [])
