"""What C{ssl} cannot ask of OpenSSL: several key exchange groups, and shared ticket keys."""

from __future__ import annotations

import ctypes
import ssl
import sys
from typing import Any

GROUPS = "X25519:P-256:P-384"
"""Mozilla's intermediate profile; a client that guesses X25519 first, as browsers do, or P-256,
is done in one round trip."""

FALLBACK_GROUP = "prime256v1"
"""The one group where only one can be set. P-256, because every TLS 1.3 peer must have it (RFC
8446 section 9.1), whereas X25519 would shut out clients in FIPS mode."""

# SSL_CTRL_... of OpenSSL's ssl.h.
_GET_TICKET_KEYS = 58
_SET_TICKET_KEYS = 59
_SET_GROUPS_LIST = 92


def set_groups(context: Any) -> None:
    """
    Let C{context} offer L{GROUPS} only.

    OpenSSL's own list cannot be left in place: with P-521, X448 and the finite-field groups a
    client can make one handshake cost us many times what it costs with X25519. Nor can P-256
    alone be wished for: a client that guesses another group needs one more round trip, and
    both sides a third more work, for each new connection.

    C{SSLContext.set_groups} came with Python 3.15. Before that there is only
    C{set_ecdh_curve}, which sets exactly one group, so OpenSSL itself is asked.
    """
    new = getattr(context, "set_groups", None)
    if new is not None:
        new(GROUPS)
    elif _ask_openssl(context, _SET_GROUPS_LIST, 0, GROUPS.encode()) != 1:
        context.set_ecdh_curve(FALLBACK_GROUP)


def ticket_keys(context: ssl.SSLContext) -> bytes:
    """What C{context} encrypts session tickets with (RFC 5077); empty if it cannot be had."""
    size = _ask_openssl(context, _GET_TICKET_KEYS, 0, None)
    keys = ctypes.create_string_buffer(max(size, 1))
    done = size > 0 and _ask_openssl(context, _GET_TICKET_KEYS, size, keys) == 1
    return keys.raw if done else b""


def share_ticket_keys(context: ssl.SSLContext, keys: bytes) -> None:
    """Let C{context} take the tickets of the one that L{ticket_keys} was asked of."""
    if keys:
        _ask_openssl(context, _SET_TICKET_KEYS, len(keys), keys)


def _ask_openssl(context: ssl.SSLContext, command: int, size: int, data: Any) -> int:
    """
    C{SSL_CTX_ctrl} on what is behind C{context}: its pointer is the first thing in a
    context object of CPython's. 0 if OpenSSL cannot be reached.
    """
    if sys.implementation.name != "cpython":
        return 0
    try:
        import _ssl

        # Looked up where the interpreter's own module finds it: the same OpenSSL.
        control = ctypes.CDLL(_ssl.__file__).SSL_CTX_ctrl
    except (ImportError, AttributeError, OSError):
        return 0
    control.restype = ctypes.c_long
    control.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    return int(control(pointer, command, size, data))
