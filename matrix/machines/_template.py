"""Fills values into a TOML template, so that each means in TOML what it meant before. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from matrix.errors import ConfigurationError

Value = str | int | float | bool

_PIECE = re.compile(
    r"""
      (?P<comment> \#[^\n]* )
    | (?P<plain> \"{3} .*? \"{3} | '{3} .*? '{3} | '[^'\n]*' )
    | (?P<text> "(?: [^"\\\n] | \\. )*" )
    | (?P<name> \{\{ [A-Z][A-Z0-9_]* \}\} )
    | (?P<opened> \{\{ )
    """,
    re.VERBOSE | re.DOTALL,
)
"""Of TOML no more than is needed to know where a placeholder stands (toml.io, v1.0.0)."""

_NAME = re.compile(r"\{\{([A-Z][A-Z0-9_]*)\}\}")


class _Filling:
    def __init__(self, template: str, values: Mapping[str, Value | None], source: str) -> None:
        self._template = template
        self._values = values
        self._source = source

    def run(self) -> str:
        return _PIECE.sub(self._piece, self._template)

    def _piece(self, found: re.Match[str]) -> str:
        kind, text, at = found.lastgroup, found[0], found.start()
        if kind == "comment":
            return text
        if kind == "name":
            return _literal(self._value(text[2:-2], at))
        if kind == "opened":
            raise self._error(at, "a placeholder is written {{NAME}}, in capitals")
        if kind == "plain":
            if "{{" in text:
                at += text.index("{{")
                raise self._error(at, "a placeholder in a text needs plain double quotes around it")
            return text
        filled = _NAME.sub(lambda name: self._inside(name, at), text)
        if "{{" in _NAME.sub("", text):
            raise self._error(at, "a placeholder is written {{NAME}}, in capitals")
        return filled

    def _inside(self, name: re.Match[str], at: int) -> str:
        value = self._value(name[1], at)
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        return _literal(shown)[1:-1]

    def _value(self, name: str, at: int) -> Value:
        if name not in self._values:
            known = ", ".join(sorted(self._values))
            raise self._error(at, f"there is no {{{{{name}}}}}, only {known}")
        value = self._values[name]
        if value is None:
            raise self._error(at, f"{{{{{name}}}}} has no value")
        return value

    def _error(self, at: int, text: str) -> ConfigurationError:
        line = self._template.count("\n", 0, at) + 1
        return ConfigurationError(f"{self._source}, line {line}: {text}")


def fill(template: str, values: Mapping[str, Value | None], source: str) -> str:
    """
    The template with each C{{{NAME}}} replaced: inside double quotes by the value's text,
    elsewhere by the value as TOML writes it. Whatever a value holds, it stays one value.

    @param values: every placeholder that there may be; C{None} for one without a value.
    @param source: the template's name, for errors.
    @raise ConfigurationError: a placeholder is unknown, has no value, or stands where none
        can; names the line.
    """
    return _Filling(template, values, source).run()


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    # JSON's escapes are TOML's, but that TOML escapes DEL and has no surrogate pairs.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
