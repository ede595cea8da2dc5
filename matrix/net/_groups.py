"""Sets the key exchange groups of a TLS context, which C{ssl} cannot do before Python 3.15."""

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

_SET_GROUPS_LIST = 92
"""C{SSL_CTRL_SET_GROUPS_LIST} of OpenSSL's C{ssl.h}."""


def set_groups(context: Any) -> None:
    """
    Let C{context} offer L{GROUPS} only.

    OpenSSL's own list cannot be left in place: with P-521, X448 and the finite-field groups a
    client can make one handshake cost us many times what it costs with X25519. Nor can P-256
    alone be wished for: a client that guesses another group needs one more round trip, and
    both sides a third more work, for each new connection.

    C{SSLContext.set_groups} came with Python 3.15. Before that there is only
    C{set_ecdh_curve}, which sets exactly one group, so on CPython OpenSSL is asked itself,
    at the pointer that is the first thing in a context object.
    """
    new = getattr(context, "set_groups", None)
    if new is not None:
        new(GROUPS)
    elif sys.implementation.name != "cpython" or not _ask_openssl(context):
        context.set_ecdh_curve(FALLBACK_GROUP)


def _ask_openssl(context: ssl.SSLContext) -> bool:
    """Whether OpenSSL could be reached and agreed."""
    try:
        import _ssl

        # Looked up where the interpreter's own module finds it: the same OpenSSL.
        control = ctypes.CDLL(_ssl.__file__).SSL_CTX_ctrl
    except (ImportError, AttributeError, OSError):
        return False
    control.restype = ctypes.c_long
    control.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    return bool(control(pointer, _SET_GROUPS_LIST, 0, GROUPS.encode()) == 1)
