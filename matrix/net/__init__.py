"""Sockets and TLS on the event loop's native transports, and the wheel of deadlines."""

from matrix.net._accept import NativeServerEndpoint
from matrix.net._admission import Admission
from matrix.net._arrivals import Arrivals
from matrix.net._endpoints import NativeClientEndpoint, bind, event_loop, parse_listen
from matrix.net._files import FileShares, allow_many_files, file_shares
from matrix.net._openssl import share_ticket_keys, ticket_keys
from matrix.net._service import Daemon
from matrix.net._tls import server_context
from matrix.net._transport import NativeTransport
from matrix.net._wheel import Wheel
from matrix.net.authority import LocalAuthority
from matrix.net.interfaces import IWheel, Presence, Timed

__all__ = [
    "Admission",
    "Arrivals",
    "Daemon",
    "FileShares",
    "IWheel",
    "LocalAuthority",
    "NativeClientEndpoint",
    "NativeServerEndpoint",
    "NativeTransport",
    "Presence",
    "Timed",
    "Wheel",
    "allow_many_files",
    "bind",
    "event_loop",
    "file_shares",
    "parse_listen",
    "server_context",
    "share_ticket_keys",
    "ticket_keys",
]
