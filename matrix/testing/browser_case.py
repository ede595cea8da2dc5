"""What acceptance tests in a browser share: a running Matrix, and Chromium before it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from matrix.testing.browser import open_browser
from matrix.testing.running_case import MatrixCase


class BrowserCase(MatrixCase):
    """With one browser for all tests of the class."""

    WINDOW: ClassVar[tuple[int, int]] = (1000, 800)
    """Its size, in pixels."""

    browser: Chrome
    folder: Path
    """Where a test may put things; gone after the last."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory(prefix="matrix-browser-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        certificate = cls.matrix.state / "tls" / "localhost.pem"
        cls.browser = open_browser(cls.folder, certificate, cls.WINDOW)
        cls.addClassCleanup(cls.browser.quit)

    def until(self, seen: Callable[[], Any], what: str, seconds: float = 20) -> Any:
        """Wait until something is so; what was looked at may be of the page before."""
        ignored = (NoSuchElementException, StaleElementReferenceException)
        wait = WebDriverWait(self.browser, seconds, 0.05, ignored)
        return wait.until(lambda _: seen(), what)
