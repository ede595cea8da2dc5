"""Each page says what matters, leads nowhere else, and runs nothing but our own script."""

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import matrix.router
from matrix.errors import (
    BadGateway,
    BadRequest,
    InternalError,
    MatrixError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from matrix.router.pages import Page, Pages, local_target

SIZE_LIMIT = 15 * 1024
"""Bytes: a page arrives in the first flight of a fresh connection."""

PUBLIC, EMBEDDED = Pages(), Pages(embedded=True)
REQUEST_ID = "01JDC8Z2Q4"
HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}"


class Parsed(HTMLParser):
    """What a page holds, as a browser would see it."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.headers = dict(page[0])
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open = ""
        self.body = page[1]
        self.feed(page[1].decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self.inside.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open][-1] += data

    def by_id(self, name: str) -> dict[str, str | None]:
        return next(attrs for _, attrs in self.tags if attrs.get("id") == name)

    @property
    def text(self) -> str:
        shown = re.sub(r"(?s)<(style|script)>.*?</\1>|<[^>]*>", " ", self.body.decode("utf-8"))
        return " ".join(shown.split())

    @property
    def policy(self) -> dict[str, str]:
        text = self.headers[b"content-security-policy"].decode("ascii")
        parts = (part.strip().partition(" ") for part in text.split(";"))
        return {name: value for name, _, value in parts}


def every_page(text: str = "x") -> list[Parsed]:
    """One of each kind, with C{text} wherever somebody else's text can get in."""
    return [
        Parsed(page)
        for page in (
            PUBLIC.waking(REQUEST_ID, f"/{text}", 0.4),
            PUBLIC.waking(REQUEST_ID, f"/{text}", None),
            PUBLIC.error(Unavailable(text, reason=text, retry_after=2.1), REQUEST_ID, f"/{text}"),
            PUBLIC.error(BadRequest(text), text, text),
            PUBLIC.error(Unauthorized(text, reason=text), REQUEST_ID, f"/{text}"),
            EMBEDDED.error(Unauthorized(text), REQUEST_ID, f"/{text}"),
        )
    ]


def hash_of(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


class EveryPageTests(SynchronousTestCase):
    def test_small_and_self_contained(self) -> None:
        for page in every_page():
            self.assertLess(len(page.body), SIZE_LIMIT)
            for tag, attrs in page.tags:
                for name in ("src", "href", "data-wanted", "data-events"):
                    value = attrs.get(name)
                    if value is not None:
                        self.assertRegex(value, r"^(/(?!/)|data:,$)", f"{tag} {name}")

    def test_the_policy_lets_only_our_own_style_and_script_run(self) -> None:
        for page in every_page():
            self.assertEqual(page.policy["default-src"], "'none'")
            self.assertEqual(page.policy["style-src"], hash_of(page.inside["style"][0]))
            scripts = page.inside.get("script", [])
            expected = [hash_of(one) for one in scripts]
            self.assertEqual(page.policy.get("script-src", "").split(), expected)
            for _, attrs in page.tags:
                self.assertFalse([name for name in attrs if name.startswith("on")])
                self.assertNotIn("style", attrs)

    def test_is_html_and_nothing_else(self) -> None:
        for page in every_page():
            self.assertEqual(page.headers[b"content-type"], b"text/html; charset=utf-8")
            self.assertEqual(page.headers[b"x-content-type-options"], b"nosniff")

    def test_has_language_viewport_title_and_one_heading(self) -> None:
        for page in every_page():
            self.assertIn(("html", {"lang": "en"}), page.tags)
            self.assertIn("width=device-width", str(page.tags))
            self.assertTrue(page.inside["title"][0].endswith("· Matrix"))
            self.assertTrue(page.inside["h1"][0])

    def test_hostile_text_stays_text(self) -> None:
        ordinary = every_page()
        for page, plain in zip(every_page(HOSTILE), ordinary, strict=True):
            self.assertEqual([tag for tag, _ in page.tags], [tag for tag, _ in plain.tags])
            self.assertNotIn(b"<script>alert", page.body)
            self.assertNotIn(b"49", page.body.replace(page.inside["style"][0].encode(), b""))

    @given(st.text(min_size=1))
    def test_any_text_leaves_the_structure_alone(self, text: str) -> None:
        for page, plain in zip(every_page(text), every_page(), strict=True):
            self.assertEqual([tag for tag, _ in page.tags], [tag for tag, _ in plain.tags])

    def test_a_lone_surrogate_is_rendered_as_something(self) -> None:
        _, body = Pages().error(BadRequest("\udcff"), REQUEST_ID, "/")
        self.assertIn(b"?", body)


class WakingTests(SynchronousTestCase):
    def test_carries_where_to_go_on_and_how_long_it_takes(self) -> None:
        page = Parsed(Pages().waking(REQUEST_ID, '/files?a="1"&b=2', 0.45))
        wake = page.by_id("wake")
        self.assertEqual(wake["data-wanted"], '/files?a="1"&b=2')
        self.assertEqual(wake["data-events"], "/-/wake/events")
        self.assertEqual(wake["data-estimate"], "450")
        self.assertIn("Usually ready in under a second", page.text)
        self.assertIn(f"Request {REQUEST_ID}", page.text)

    def test_estimates_in_words(self) -> None:
        for seconds, words in ((1.2, "about a second"), (7.4, "about 7 seconds")):
            self.assertIn(words, Parsed(Pages().waking(REQUEST_ID, "/", seconds)).text)

    def test_without_an_estimate_promises_nothing(self) -> None:
        page = Parsed(Pages().waking(REQUEST_ID, "/", None))
        self.assertEqual(page.by_id("wake")["data-estimate"], "0")
        self.assertNotIn("Usually ready", page.text)

    def test_another_origin_is_never_wanted(self) -> None:
        for wanted in ("//evil.example", "/\\evil.example", "https://evil.example", ""):
            page = Parsed(Pages().waking(REQUEST_ID, wanted, None))
            self.assertEqual(page.by_id("wake")["data-wanted"], "/")

    def test_speaks_to_screen_readers(self) -> None:
        page = Parsed(Pages().waking(REQUEST_ID, "/", None))
        bar = page.by_id("bar")
        self.assertEqual((bar["role"], bar["aria-valuenow"]), ("progressbar", "0"))
        status = page.by_id("status")
        self.assertEqual((status["role"], status["aria-live"]), ("status", "polite"))
        self.assertEqual(page.by_id("failure")["role"], "alert")

    def test_goes_on_without_scripts_too(self) -> None:
        page = Parsed(Pages().waking(REQUEST_ID, "/", None))
        self.assertIn(("meta", {"http-equiv": "refresh", "content": "2"}), page.tags)
        self.assertLess(page.tags.index(("noscript", {})), page.tags.index(("body", {})))

    def test_is_never_kept(self) -> None:
        page = Parsed(PUBLIC.waking(REQUEST_ID, "/", None))
        self.assertEqual(page.headers[b"cache-control"], b"no-store")

    def test_may_connect_only_to_its_own_origin(self) -> None:
        page = Parsed(Pages().waking(REQUEST_ID, "/", None))
        self.assertEqual(page.policy["connect-src"], "'self'")


class ErrorTests(SynchronousTestCase):
    def page(self, error: MatrixError, instance: str = "/files") -> Parsed:
        return Parsed(Pages().error(error, REQUEST_ID, instance))

    def test_says_what_happened_and_what_to_do(self) -> None:
        page = self.page(Unavailable("The provider has no room.", retry_after=2.2))
        for text in (
            "503",
            "Your machine is not ready yet",
            "The provider has no room.",
            "Another try makes sense in 3",
            f"Request {REQUEST_ID}",
        ):
            self.assertIn(text, page.text)
        self.assertIn(("a", {"class": "button", "href": "/files"}), page.tags)

    def test_offers_another_try_only_where_it_may_help(self) -> None:
        for error in (BadGateway(), TooManyRequests(), InternalError()):
            self.assertIn("Try again", self.page(error).inside["a"])
        self.assertNotIn("a", self.page(BadRequest("bare LF")).inside)

    def test_another_try_stays_on_this_origin(self) -> None:
        page = self.page(Unavailable(), "//evil.example/")
        self.assertIn(("a", {"class": "button", "href": "/"}), page.tags)

    def test_every_error_has_a_page_with_advice(self) -> None:
        for kind in {MatrixError, *MatrixError.__subclasses__()} - {Unauthorized}:
            page = self.page(kind())
            self.assertEqual(page.inside["h1"], [kind.title])
            self.assertTrue(page.inside["p"][-1].strip(), kind.slug)


class SignedOutTests(SynchronousTestCase):
    def test_leads_to_the_sign_in_where_there_is_one(self) -> None:
        error = Unauthorized("No token.")
        page = Parsed(Pages(sign_in="/-/signin").error(error, REQUEST_ID, "/"))
        self.assertIn(("a", {"class": "button", "href": "/-/signin"}), page.tags)
        self.assertIn("No token.", page.text)

    def test_leads_nowhere_if_there_is_none(self) -> None:
        for pages in (PUBLIC, EMBEDDED):
            page = Parsed(pages.error(Unauthorized("No token."), REQUEST_ID, "/"))
            self.assertNotIn("a", page.inside)
            self.assertIn("No token.", page.text)

    def test_embedded_says_where_the_link_is(self) -> None:
        error = Unauthorized("No token.")
        embedded = Parsed(Pages(embedded=True).error(error, REQUEST_ID, "/"))
        self.assertIn("matrix token alice", embedded.text)
        self.assertIn("sign-in link", embedded.text)
        self.assertNotIn("alice", Parsed(Pages().error(error, REQUEST_ID, "/")).text)

    def test_an_ended_session_is_called_so(self) -> None:
        error = Unauthorized("exp is 40 s ago", reason="expired")
        page = Parsed(Pages().error(error, REQUEST_ID, "/"))
        self.assertIn("Your session has ended.", page.text)


class LocalTargetTests(SynchronousTestCase):
    def test_ordinary_targets_pass(self) -> None:
        for target in ("/", "/a//b", "/a?next=//x&y=%2F", "/%5Cx", "/ä", "/a?b=https://c.example"):
            self.assertEqual(local_target(target), target)

    def test_what_could_lead_elsewhere_becomes_the_start(self) -> None:
        for target in (
            "", "*", "a", "//x", "/\\x", "\\/x", "/\t/x", "/\n/x", "/a\\b", "/a b", "/\x7f",
            "http://x/", "javascript:alert(1)", "/\x85", "/a\r\nset-cookie: x=y", "/\ud800",
        ):  # fmt: skip
            self.assertEqual(local_target(target), "/", repr(target))

    @given(st.text() | st.text("/\\\t\n:@.a", max_size=8))
    def test_never_leaves_the_origin(self, text: str) -> None:
        target = local_target(text)
        # What a browser does before it looks for a host.
        seen = re.sub("[\t\n\r]", "", target).replace("\\", "/").strip()
        where = urlsplit(urljoin("https://door.example/x", seen))
        self.assertEqual((where.scheme, where.netloc), ("https", "door.example"))
        self.assertRegex(target, r"^/")
        self.assertFalse([c for c in target if ord(c) < 0x21 or 0x7F <= ord(c) < 0xA0])


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class StyleTests(SynchronousTestCase):
    TEXT_ON = (
        ("ink", "card"), ("soft", "card"), ("soft", "paper"), ("ink", "paper"),
        ("alarm", "card"), ("leaf", "card"), ("leaf-ink", "leaf"), ("ink", "code"),
    )  # fmt: skip

    def setUp(self) -> None:
        path = Path(matrix.router.__file__).parent / "templates" / "pages.css"
        self.style = path.read_text("utf-8")

    def test_text_can_be_read_in_light_and_dark(self) -> None:
        schemes = re.findall(r":root \{(.*?)\}", self.style, re.S)
        self.assertEqual(len(schemes), 2)
        for scheme in schemes:
            colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", scheme))
            for text, ground in self.TEXT_ON:
                ratio = contrast(colours[text], colours[ground])
                self.assertGreaterEqual(ratio, 4.5, f"{text} on {ground}: {ratio:.2f}")

    def test_motion_stops_for_those_who_ask(self) -> None:
        self.assertIn("prefers-reduced-motion: reduce", self.style)
