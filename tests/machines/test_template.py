"""Templates: a value stays one value whatever it holds, and each mistake is told with its line."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.machines._template import Value, fill

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
VALUES = st.one_of(TEXT, st.integers(-(2**63), 2**63 - 1), st.booleans())


class FillingTests(SynchronousTestCase):
    @given(VALUES, TEXT, TEXT)
    def test_a_value_is_that_value_again(self, bare: Value, inside: str, other: str) -> None:
        filled = fill(
            'a = {{BARE}} # {{NOT_THIS}} "\nb = "<{{INSIDE}}|{{OTHER}}>"\nc = \'#\'\n',
            {"BARE": bare, "INSIDE": inside, "OTHER": other},
            "t",
        )
        found = tomllib.loads(filled)
        self.assertEqual(found, {"a": bare, "b": f"<{inside}|{other}>", "c": "#"})
        self.assertIs(type(found["a"]), type(bare))

    def test_what_looks_like_a_placeholder_in_a_value_is_text(self) -> None:
        filled = fill('a = "{{A}}"', {"A": '"{{B}}"\nc = 1', "B": "x"}, "t")
        self.assertEqual(tomllib.loads(filled), {"a": '"{{B}}"\nc = 1'})

    def test_everything_else_stays(self) -> None:
        template = 'a = """\n# {1}}"""\nb = {c={d=1}} # "\ne = "\\"{" # {{F}}\n'
        self.assertEqual(fill(template, {}, "t"), template)

    def test_values_of_other_types_in_a_text(self) -> None:
        filled = fill('a = "{{N}} {{YES}}"', {"N": 5, "YES": True}, "t")
        self.assertEqual(filled, 'a = "5 true"')


class RefusalTests(SynchronousTestCase):
    def refused(self, template: str, wanted: str) -> None:
        values = {"APP": "app", "REGION": None}
        error = self.assertRaises(ConfigurationError, fill, template, values, "fly.toml.tmpl")
        self.assertEqual(str(error), f"fly.toml.tmpl, {wanted}")

    def test_unknown(self) -> None:
        self.refused("\n\na = {{NAME}}", "line 3: there is no {{NAME}}, only APP, REGION")
        self.refused('\na = "{{APP}}{{NAME}}"', "line 2: there is no {{NAME}}, only APP, REGION")

    def test_without_a_value(self) -> None:
        self.refused('a = 1\nb = "{{REGION}}"', "line 2: {{REGION}} has no value")

    def test_where_none_can_stand(self) -> None:
        said = "line 2: a placeholder in a text needs plain double quotes around it"
        self.refused("\na = '{{APP}}'", said)
        self.refused('a = """\n{{APP}}"""', said)

    def test_malformed(self) -> None:
        said = "line 1: a placeholder is written {{NAME}}, in capitals"
        for template in ("a = {{app}}", 'a = "{{ APP }}"', "a = {{APP}", 'a = "{{APP"'):
            self.refused(template, said)
