"""Connection strings: checked without repeating their secrets, names resolved off the loop."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping

import psycopg2
from psycopg2.extensions import parse_dsn

from matrix.errors import ConfigurationError

Parameters = Mapping[str, str]
"""libpq's connection parameters: C{host}, C{port}, C{dbname}, …"""

DEFAULT_PORT = "5432"

DEFAULTS: Parameters = {
    "application_name": "matrix",
    # A peer that vanished without a word is noticed within 10 s, also while we only send.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


def parse(dsn: str) -> Parameters:
    """
    The parameters in a connection string, either of libpq's forms, over our defaults.

    @raise ConfigurationError: it is none. libpq's own words are kept back: it quotes the
        parts it stumbles over, and a badly encoded password ends up in any part.
    """
    try:
        parameters = parse_dsn(dsn)
    except psycopg2.Error:
        parameters = {}
    ports = parameters.get("port", "").split(",")
    numbers = all(port == "" or (port.isascii() and port.isdigit()) for port in ports)
    if not parameters or "@" in parameters.get("host", "") or not numbers:
        raise ConfigurationError(
            "DATABASE_URL is not understood: write postgresql://USER:PASSWORD@HOST/NAME, "
            "with special characters of the password percent-encoded"
        )
    return {**DEFAULTS, **parameters}


def look_up(host: str) -> list[str]:
    """
    The addresses of a host, in the system's order of preference. Blocks.

    @raise OSError: it has none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def candidates(
    parameters: Parameters, lookup: Callable[[str], list[str]] = look_up
) -> list[Parameters]:
    """
    One set of parameters per address to try, in order. Blocks as C{lookup} does.

    libpq resolves names on the calling thread even for asynchronous connections, and has
    no time limit per address there; with one literal address each, both are ours.

    @raise OSError: a host has no address.
    """
    hosts = parameters.get("host", "").split(",")
    if "hostaddr" in parameters or hosts == [""]:
        return [parameters]  # nothing to look up
    ports = parameters.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    found: list[Parameters] = []
    for host, port in zip(hosts, ports, strict=True):
        # An empty port is libpq's way to say the default one.
        here = {**parameters, "host": host}
        if "port" in parameters:
            here["port"] = port or DEFAULT_PORT
        if host.startswith(("/", "@")) or is_address(host):
            found.append(here)
        else:
            found += [{**here, "hostaddr": address} for address in lookup(host)]
    return found


def is_address(host: str) -> bool:
    """Whether this is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def first_line(error: BaseException) -> str:
    """What a driver's error says, in one line. libpq names host, port and user, no secret."""
    return " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())
