"""The error family: every refusal a client can meet, each leaf knowing its wire code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ConfigurationError(Exception):
    """The operator must change something before Matrix can run; the text says what, in one line."""


class MatrixError(Exception):
    """
    A request ends here with an answer that says why.

    C{slug} is stable and names the problem type (RFC 9457 section 3.1.1:
    C{urn:matrix:problem:<slug>}); C{detail} is for people.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str = "",
        *,
        reason: str | None = None,
        retry_after: float | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """
        @param reason: a stable code for programs, finer than the slug.
        @param retry_after: seconds after which a new attempt makes sense.
        @param headers: further header fields for the answer.
        """
        super().__init__(detail or self.title)
        self.detail = detail
        self.reason = reason
        self.retry_after = retry_after
        self.headers = tuple(headers)


class InternalError(MatrixError):
    """We erred; the log has the failure, the client only the request id."""


class BadRequest(MatrixError):
    status = 400
    slug = "bad-request"
    title = "The request is malformed"


class Unauthorized(MatrixError):
    """No token, or one that is refused; C{reason} says which rule, never which key."""

    status = 401
    slug = "unauthorized"
    title = "Sign in first"


class Forbidden(MatrixError):
    status = 403
    slug = "forbidden"
    title = "Not allowed"


class Blocked(Forbidden):
    slug = "blocked"
    title = "This account is blocked"


class NotFound(MatrixError):
    status = 404
    slug = "not-found"
    title = "Not found"


class MethodNotAllowed(MatrixError):
    status = 405
    slug = "method-not-allowed"
    title = "Method not allowed"


class RequestTimeout(MatrixError):
    status = 408
    slug = "request-timeout"
    title = "The request took too long to arrive"


class Conflict(MatrixError):
    status = 409
    slug = "conflict"
    title = "In conflict with the present state"


class Gone(MatrixError):
    """The account was deleted."""

    status = 410
    slug = "gone"
    title = "This account was deleted"


class LengthRequired(MatrixError):
    status = 411
    slug = "length-required"
    title = "The length of the body is missing"


class PreconditionFailed(MatrixError):
    status = 412
    slug = "precondition-failed"
    title = "Precondition failed"


class PayloadTooLarge(MatrixError):
    status = 413
    slug = "payload-too-large"
    title = "The body is too large"


class UriTooLong(MatrixError):
    status = 414
    slug = "uri-too-long"
    title = "The request target is too long"


class RangeNotSatisfiable(MatrixError):
    status = 416
    slug = "range-not-satisfiable"
    title = "The requested range lies outside the file"


class UpgradeRequired(MatrixError):
    status = 426
    slug = "upgrade-required"
    title = "This address speaks WebSocket"


class TooManyRequests(MatrixError):
    status = 429
    slug = "too-many-requests"
    title = "Too many requests"


class HeadTooLarge(MatrixError):
    status = 431
    slug = "head-too-large"
    title = "The header fields are too large"


class ClientGone(MatrixError):
    """The client left before its answer; only the log sees this status (nginx's code)."""

    status = 499
    slug = "client-gone"
    title = "The client closed the connection"


class UnknownMethod(MatrixError):
    status = 501
    slug = "unknown-method"
    title = "There is no such request method"


class Unsupported(MatrixError):
    """This installation lacks what the call needs; the text says what to install or to set."""

    status = 501
    slug = "unsupported"
    title = "Not possible here"


class BadGateway(MatrixError):
    """The machine broke the protocol, or died while answering."""

    status = 502
    slug = "bad-gateway"
    title = "Your machine gave no proper answer"


class Unavailable(MatrixError):
    """The machine is asleep or starting, or something it needs is over capacity or down."""

    status = 503
    slug = "unavailable"
    title = "Your machine is not ready yet"


class GatewayTimeout(MatrixError):
    status = 504
    slug = "gateway-timeout"
    title = "Your machine did not answer in time"


class VersionNotSupported(MatrixError):
    status = 505
    slug = "version-not-supported"
    title = "This HTTP version is not supported"


class InsufficientStorage(MatrixError):
    status = 507
    slug = "insufficient-storage"
    title = "No space left"
