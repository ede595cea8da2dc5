"""HTTP/1.1: bytes, not users. Parsing, framing, header rules, relay, tunnel, connections."""

from matrix.http._exchange import Exchange
from matrix.http._factory import Render, ServerFactory, render_problem
from matrix.http._fields import Fields
from matrix.http._forwarded import TrustedProxies
from matrix.http._heads import RequestHead
from matrix.http._hold import Hold
from matrix.http._limits import Limits
from matrix.http._probe import Health, examine, probe
from matrix.http._relay import Relay
from matrix.http._rules import HeaderRules, Rules, has_trace
from matrix.http._server import ServerConnection
from matrix.http._upstream import Backend, Counters, Keeper, Stream
from matrix.http._websocket import (
    FORBIDDEN,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
    UNAUTHORIZED,
    accept_key,
    close_frame,
)
from matrix.http.interfaces import BodySink, Handler, HeaderList, Request
from matrix.http.problem import Answer, error_headers, problem

__all__ = [
    "FORBIDDEN",
    "SERVICE_RESTART",
    "TRY_AGAIN_LATER",
    "UNAUTHORIZED",
    "Answer",
    "Backend",
    "BodySink",
    "Counters",
    "Exchange",
    "Fields",
    "Handler",
    "HeaderList",
    "HeaderRules",
    "Health",
    "Hold",
    "Keeper",
    "Limits",
    "Relay",
    "Render",
    "Request",
    "RequestHead",
    "Rules",
    "ServerConnection",
    "ServerFactory",
    "Stream",
    "TrustedProxies",
    "accept_key",
    "close_frame",
    "error_headers",
    "examine",
    "has_trace",
    "probe",
    "problem",
    "render_problem",
]
