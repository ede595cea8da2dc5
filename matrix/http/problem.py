"""Errors as answers: RFC 9457 C{application/problem+json}. Pure."""

from __future__ import annotations

import json
import math

from matrix.errors import MatrixError

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers and body."""


def error_headers(error: MatrixError) -> list[tuple[bytes, bytes]]:
    """The header fields that belong to an error in whatever form it is shown."""
    headers = [(b"Cache-Control", b"no-store"), *error.headers]
    if error.retry_after is not None:
        # RFC 9110 section 10.2.3: whole seconds; at least one, or clients come back at once.
        headers.append((b"Retry-After", b"%d" % max(1, math.ceil(error.retry_after))))
    return headers


def problem(error: MatrixError, request_id: str) -> Answer:
    """An error as problem+json; C{reason} and C{request_id} are extension members."""
    content: dict[str, object] = {
        "type": f"urn:matrix:problem:{error.slug}",
        "title": error.title,
        "status": error.status,
    }
    if error.detail:
        content["detail"] = error.detail
    if error.reason:
        content["reason"] = error.reason
    if error.retry_after is not None:
        content["retry_after"] = round(error.retry_after, 3)
    content["request_id"] = request_id
    headers = [(b"Content-Type", b"application/problem+json"), *error_headers(error)]
    return error.status, headers, json.dumps(content).encode() + b"\n"
