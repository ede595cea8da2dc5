"""What the text of a setting must be like; a refusal says what to write instead."""

from __future__ import annotations

import json
import re
import shlex
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from matrix.model import host_port

# As browsers write them (RFC 6454 section 6): plain HTTP for development on one's own machine.
_ORIGIN = re.compile(
    r"https://(?!\[?[^/]*:443$)[a-z0-9._-]+(?::[0-9]{1,5})?|http://(?:localhost|127\.0\.0\.1)(?::[0-9]{1,5})?"
)


def checked_host_port(text: str) -> str:
    host_port(text)
    return text


def checked_url(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise ValueError(f"{text!r} is not a URL: write https://HOST/PATH")
    return text


def checked_database(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("write it as postgresql://user:password@host/name")
    return url


def checked_command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"the words cannot be split: {str(error).lower()}") from None
    if not words:
        raise ValueError("the command has no words")
    return text


def words(text: str) -> list[str]:
    """The members of a list that is written with commas or spaces."""
    return text.replace(",", " ").split()


def checked_origins(text: str) -> str:
    for word in words(text):
        if not _ORIGIN.fullmatch(word):
            raise ValueError(
                f"{word!r} is no origin: write https://HOST or https://HOST:PORT in lower case, "
                "without a path and without the scheme's usual port"
            )
    return text


def checked_app(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError(f"{text!r} is no app: write a-z, 0-9 and dashes, at most 63 of them")
    return text


def checked_regions(text: str) -> str:
    for word in words(text):
        if not re.fullmatch(r"[a-z]{3}", word):
            raise ValueError(f"{word!r} is no region of Fly: write its three letters, as in fra")
    return text


def checked_sizes(text: str) -> str:
    for word in words(text):
        if not re.fullmatch(r"(?:shared-cpu|performance)-[1-9][0-9]?x:[1-9][0-9]*(?:mb|gb)", word):
            raise ValueError(f"{word!r} is no size: write SIZE:MEMORY, as in shared-cpu-1x:512mb")
    return text


def checked_duration(text: str) -> str:
    if not re.fullmatch(r"(?:[1-9][0-9]*[hdmy])+", text):
        raise ValueError(f"{text!r} is no length of time: write 12h, 30d, 6m or 1y")
    return text


def checked_hours(text: str) -> str:
    hours(text)
    return text


def hours(text: str) -> tuple[int, int] | None:
    """Part of a day; it may go on past midnight."""
    if text == "off":
        return None
    found = re.fullmatch(r"([0-9]{1,2})-([0-9]{1,2})", text)
    if found is None or (first := int(found[1])) > 23 or (last := int(found[2])) > 24:
        raise ValueError(f"{text!r} are no hours: write 1-5, 22-4, 0-24 or off")
    if first == last:
        raise ValueError(f"{text!r} is no time at all: write 0-24 for all day, off for never")
    return first, last


def checked_api(text: str) -> str:
    """The token is sent there: in the clear only where nobody listens."""
    parts = urlsplit(text)
    host = parts.hostname or ""
    near = host == "localhost" or host.startswith("127.") or host.endswith(".internal")
    if parts.scheme == "http" and not near:
        raise ValueError(f"{text!r}: a token is sent there, so write https://")
    return text


def checked_networks(text: str) -> str:
    networks(text)
    return text


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    found = []
    for word in words(text):
        try:
            found.append(ip_network(word))
        except ValueError as error:
            raise ValueError(
                f"{word!r} is no network ({error}): write them as 192.0.2.0/24, 2001:db8::1"
            ) from None
    return tuple(found)


def checked_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 32:
        raise ValueError("a secret must have at least 32 characters")
    return secret


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
HostPort = Annotated[str, AfterValidator(checked_host_port)]
Url = Annotated[str, AfterValidator(checked_url)]


def json_list(value: object) -> object:
    """What a text holds, if it is a JSON list; anything but a text as it is."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise ValueError('not a JSON list: write [{"name": "value"}]')  # noqa: TRY004 -- for pydantic
    return found
