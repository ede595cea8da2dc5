"""What the guide to authentication lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Reason

GUIDE = Path(__file__).parent.parent.parent / "docs" / "auth.md"
_ROW = re.compile(r"^\| `([a-z-]+)` \| (\S.*?) \| (.*?) ?\|$", re.MULTILINE)


def section(title: str) -> str:
    """The text below a heading of the guide."""
    text = GUIDE.read_text()
    _, _, rest = text.partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


class ReasonTests(SynchronousTestCase):
    def test_each_reason_has_a_row_in_the_order_of_the_code(self) -> None:
        table = section("When a request is refused").partition("matrix.auth.Reason. -->")[2]
        documented = [row[1] for row in _ROW.finditer(table.lstrip().partition("\n\n")[0])]
        self.assertEqual(
            documented,
            [reason.value for reason in Reason],
            "give each matrix.auth.Reason a row in docs/auth.md, When a request is refused",
        )


class ContentsTests(SynchronousTestCase):
    def test_every_section_is_in_the_list_at_the_top(self) -> None:
        text = GUIDE.read_text()
        listed = re.findall(r"^\d+\. \[(.+?)\]\(#(.+?)\)$", text, re.MULTILINE)
        titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
        self.assertEqual([title for title, _ in listed], titles)
        for title, anchor in listed:
            self.assertEqual(anchor, re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-"))
