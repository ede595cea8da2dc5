"""Debian's headless Chromium for acceptance tests, with a profile of its own that goes away."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

CHROMIUM = "/usr/bin/chromium"
CHROMEDRIVER = "/usr/bin/chromedriver"

FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--lang=en-US",
)

PAGE_SECONDS = 30
"""For a page to load, on a busy host."""


def open_browser(home: Path, certificate: Path, size: tuple[int, int]) -> Chrome:
    """
    A browser with one window; its C{quit} ends all of its processes.

    @param home: an empty directory that it may fill.
    @param certificate: the server's, which it takes although it knows no authority for it.
    @param size: of the window, in pixels.
    @raise AssertionError: it is not installed.
    """
    for program in (CHROMIUM, CHROMEDRIVER):
        if not shutil.which(program):
            raise AssertionError(f"{program}: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={home / 'profile'}")
    options.add_argument(f"--window-size={size[0]},{size[1]}")
    options.add_argument(f"--ignore-certificate-errors-spki-list={_key_hash(certificate)}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's own refuses to run as root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    # With the driver named, Selenium looks for none and downloads none.
    browser = Chrome(options, ChromeService(CHROMEDRIVER, env=environment))
    browser.set_page_load_timeout(PAGE_SECONDS)
    return browser


def _key_hash(certificate: Path) -> str:
    """The hash of a certificate's public key, as Chromium's flag wants it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode()
