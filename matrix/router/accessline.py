"""One finished request as one line of JSON, without the tokens it may have carried. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

TARGET_LIMIT: Final = 2048
"""Bytes of a target that are logged: no ordinary URL is longer, and a client must not fill
the disk with 16 KiB for each request that is refused."""

SECRET_PARAMETERS: Final = frozenset(
    {
        b"access_token", b"api_key", b"apikey", b"code", b"id_token", b"jwt", b"matrix_ticket",
        b"password", b"provider_token", b"refresh_token", b"secret", b"ticket", b"token",
        b"token_hash",
    }
)  # fmt: skip
"""Query parameters whose values are credentials, with us, Supabase or OAuth (RFC 6749,
RFC 6750 section 2.3)."""

_SHORT = 256
"""Bytes of a target whose line is worth remembering; longer ones would fill the memory."""

REDACTED: Final = b"REDACTED"

_UNSAFE = re.compile(rb'[^\x20-\x7e]|["\\]')
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

# Whatever could be the name of one of them, encoded names included: most queries have
# nothing of the sort, and are not taken apart.
_SUSPECT = re.compile(rb"(?i)api|code|jwt|password|secret|ticket|token|%")

# A JWS in compact form starts with the base64 of '{"' (RFC 7515 section 3.1): it may be in
# a path, or inside an encoded URL that is itself a parameter.
_TOKEN = re.compile(rb"eyJ[\w-]{8,}(?:\.|%2[eE])[\w.%-]+")


class Record(NamedTuple):
    """
    What is known of a request once it is over. Durations are in seconds, C{None} for a
    phase that it did not go through.
    """

    time: float
    """When it came: unix seconds."""
    request_id: str
    user_id: str | None
    method: bytes
    target: bytes
    status: int
    bytes_in: int
    """Of the request's body, or of an upgraded connection, from the client."""
    bytes_out: int
    """Of the answer's body, or of an upgraded connection, to the client."""
    auth_s: float | None
    route_s: float | None
    wake_s: float | None
    ready_s: float | None
    upstream_s: float | None
    total_s: float
    wake_cause: str | None
    peer: str
    """The client's address."""
    tls: str | None
    """The TLS version of the client's connection."""
    close_reason: str | None
    """Why the connection ended with this request, if it did."""
    http11: bool = True
    referer: bytes | None = None
    user_agent: bytes | None = None


def format_combined(record: Record) -> str:
    """
    The line for a record in the combined format of Apache and nginx, with its line feed:
    for tools that read nothing else. It tells less than L{format_record}'s.
    """
    user = record.user_id or "-"
    line = b"%b %b HTTP/1.%d" % (record.method, _shown(record.target), record.http11)
    referer = None if record.referer is None else _shown(record.referer)
    return (
        f"{record.peer} - {user} [{_clf_time(int(record.time))}] {_clf(line)} {record.status} "
        f"{record.bytes_out} {_clf(referer)} {_clf(record.user_agent)}\n"
    )


def format_record(record: Record) -> str:
    """
    The line for a record, with its line feed. Fields that have no value are left out.
    """
    # Written out, and what repeats from request to request remembered, because it runs for each:
    # json.dumps of a dictionary takes five times as long.
    (time, request_id, user, method, target, status, bytes_in, bytes_out,
     auth, route, wake, ready, upstream, total, cause, peer, tls, close, *_) = record  # fmt: skip
    second = int(time)
    path = _quoted_path(target) if len(target) <= _SHORT else _quote(_text(_shown(target)))
    return (
        f'{{"time":"{_whole_second(second)}.{int((time - second) * 1000):03d}Z"'
        f',"id":{_quote(request_id)}{_member("user", user)}'
        f',"method":{_quoted_method(method)},"path":{path},"status":{status}'
        f',"bytes_in":{bytes_in},"bytes_out":{bytes_out}'
        f"{_phases(auth, route, wake, ready, upstream)}"
        f',"total_ms":{total * 1000:.3f}{_member("wake", cause)}'
        f"{_client(peer, tls)}{_member('close', close)}}}\n"
    )


def _phases(
    auth: float | None,
    route: float | None,
    wake: float | None,
    ready: float | None,
    upstream: float | None,
) -> str:
    if auth is not None and route is not None and wake is None and upstream is not None:
        return (
            f',"auth_ms":{auth * 1000:.3f},"route_ms":{route * 1000:.3f}'
            f',"upstream_ms":{upstream * 1000:.3f}'
        )
    phases = {"auth": auth, "route": route, "wake": wake, "ready": ready, "upstream": upstream}
    return "".join(
        f',"{name}_ms":{seconds * 1000:.3f}'
        for name, seconds in phases.items()
        if seconds is not None
    )


@lru_cache(maxsize=4096)
def _member(name: str, value: str | None) -> str:
    return "" if value is None else f',"{name}":{_quote(value)}'


@lru_cache(maxsize=4096)
def _client(peer: str, tls: str | None) -> str:
    return f"{_member('client', peer)}{_member('tls', tls)}"


@lru_cache(maxsize=64)
def _quoted_method(method: bytes) -> str:
    return _quote(_text(method))


@lru_cache(maxsize=4096)
def _quoted_path(target: bytes) -> str:
    return _quote(_text(_shown(target)))


def _shown(target: bytes) -> bytes:
    """A target, or the URL it was linked from, as a log may hold it."""
    return redact(target)[:TARGET_LIMIT]


def redact(target: bytes) -> bytes:
    """The target without the values of L{SECRET_PARAMETERS}, and without any JWT."""
    path, mark, query = target.partition(b"?")
    if query and _SUSPECT.search(query):
        target = path + mark + b"&".join(map(_redact_parameter, query.split(b"&")))
    return _TOKEN.sub(REDACTED, target) if b"eyJ" in target else target


def _redact_parameter(parameter: bytes) -> bytes:
    # Some servers still take ";" for a separator.
    if b";" in parameter:
        return b";".join(map(_redact_parameter, parameter.split(b";")))
    name, equals, _ = parameter.partition(b"=")
    plain = unquote_to_bytes(name) if b"%" in name else name
    if equals and plain.strip(b" +").lower().replace(b"-", b"_") in SECRET_PARAMETERS:
        return name + equals + REDACTED
    return parameter


def _clf(text: bytes | None) -> str:
    """A quoted field: C{-} for none; what could end it or the line as C{\\xHH}, as Apache does."""
    if text is None:
        return '"-"'
    plain = _UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], text[:TARGET_LIMIT])
    return f'"{plain.decode("ascii")}"'


@lru_cache(maxsize=16)  # see _whole_second
def _clf_time(seconds: int) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    # Not strftime's %b: the format's months are English whatever the locale.
    return f"{at.day:02d}/{_MONTHS[at.month - 1]}/{at.year}:{at:%H:%M:%S} +0000"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


@lru_cache(maxsize=16)  # the requests of one batch came within a few seconds
def _whole_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
