"""Tests for the command that is a user's machine."""

from __future__ import annotations

import shlex
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.machines._command import PLACES, Command

VALUES = {"socket": "/run/s", "port": "81", "data": "/d a/ta", "user": "{port}"}


class ParseTests(SynchronousTestCase):
    def test_words_are_split_as_a_shell_does(self) -> None:
        command = Command.parse("serve --title 'two words' {data}/x")
        self.assertEqual(command.fill(VALUES), ["serve", "--title", "two words", "/d a/ta/x"])

    def test_by_default_it_is_our_daemon_on_a_socket(self) -> None:
        command = Command.parse(None)
        words = command.fill(VALUES)
        self.assertEqual(words[0], sys.executable)
        self.assertTrue(command.mentions("socket"))
        self.assertFalse(command.mentions("port"))
        daemon = words.index("matrix-daemon")
        self.assertIn("--pidfile=", words[:daemon])
        self.assertEqual(words[daemon + 1 :], ["--listen", "unix:/run/s", "--data", "/d a/ta"])

    def test_refusals_name_what_is_wrong(self) -> None:
        for text, said in {
            "": "is empty",
            "  ": "is empty",
            "serve 'x": "cannot be split",
            "serve {prot}": r"\{prot\} is unknown; there are \{socket\}, \{port\}",
        }.items():
            with self.assertRaisesRegex(ConfigurationError, said):
                Command.parse(text)

    def test_braces_that_are_no_place_stay(self) -> None:
        words = ["serve", '{"json": {}}', "{}", "${HOME}x".replace("HOME", "")]
        self.assertEqual(Command.parse(shlex.join(words)).fill(VALUES), words)

    def test_files_that_it_names(self) -> None:
        command = Command.parse(f"/bin/sh {__file__} /no/where /tmp relative {{data}}")
        self.assertEqual([str(path) for path in command.files()], ["/bin/sh", __file__])


class FillTests(SynchronousTestCase):
    def test_a_value_is_never_read_as_a_place(self) -> None:
        self.assertEqual(Command(("{user}",)).fill(VALUES), ["{port}"])

    @given(st.lists(st.text(st.characters(exclude_characters="{}\0", codec="utf-8")), min_size=1))
    def test_words_without_places_pass_unchanged(self, words: list[str]) -> None:
        self.assertEqual(Command.parse(shlex.join(words)).fill(VALUES), words)

    @given(st.sampled_from(PLACES), st.text(), st.text())
    def test_a_place_is_filled_in_wherever_it_stands(
        self, place: str, before: str, after: str
    ) -> None:
        before, after = before.replace("{", ""), after.replace("}", "").replace("{", "")
        word = f"{before}{{{place}}}{after}"
        self.assertEqual(Command((word,)).fill(VALUES), [f"{before}{VALUES[place]}{after}"])
        self.assertTrue(Command((word,)).mentions(place))
