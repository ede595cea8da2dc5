"""Fly's OpenAPI description, to check requests and answers against.

C{openapi.json} is the description that Fly.io publishes, as kept by the alchemy-run project
(distilled-spec-fly-io, specs/openapi.json of 2026-05-07) under the Apache License 2.0; it is
unchanged. It leaves out the bodies of start, stop and suspend, and the answers 409, 412, 408
and 429.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_SOURCE = Path(__file__).parent / "openapi.json"
_ROOT = "urn:fly"


@cache
def document() -> Any:
    """The description."""
    return json.loads(_SOURCE.read_text("utf-8"))


@cache
def _validator(schema: str) -> Draft202012Validator:
    registry: Registry[Any] = Registry().with_resource(
        _ROOT, Resource.from_contents(document(), default_specification=DRAFT202012)
    )
    return Draft202012Validator(
        {"$ref": f"{_ROOT}#/components/schemas/{schema}"}, registry=registry
    )


def breaches(schema: str, value: object) -> list[str]:
    """
    What is wrong with a value, each with its place; members that the description does not
    name are wrong too, since Fly would ignore them in silence.

    @param schema: one of the description's C{components/schemas}.
    """
    found = [
        f"{error.json_path}: {error.message}" for error in _validator(schema).iter_errors(value)
    ]
    return found + list(_strangers({"$ref": f"#/components/schemas/{schema}"}, value, "$"))


def _strangers(schema: Any, value: object, place: str) -> list[str]:
    schema = _resolved(schema)
    if isinstance(value, list):
        return [
            found
            for number, member in enumerate(value)
            for found in _strangers(schema.get("items", {}), member, f"{place}[{number}]")
        ]
    if not isinstance(value, dict):
        return []
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    found = []
    for name, member in value.items():
        if name in known or others:
            found += _strangers(known.get(name, others), member, f"{place}.{name}")
        elif known:
            found.append(f"{place}: {name!r} is unknown")
    return found


def _resolved(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return {}
    if "$ref" in schema:
        return _resolved(document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "allOf" in schema:
        merged: dict[str, Any] = {}
        for part in (*schema["allOf"], {"properties": schema.get("properties", {})}):
            merged.update(_resolved(part).get("properties", {}))
        return {"properties": merged}
    return schema
