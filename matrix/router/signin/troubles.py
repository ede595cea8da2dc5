"""Why a sign-in did not succeed: each reason's sentence, status, and the field to look at. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from matrix.auth import ApiRefusal, Reason
from matrix.errors import Unauthorized


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the page says."""

    status: int
    text: str
    field: str = ""
    """The field that is wrong, if one is."""
    retry_after: float | None = None
    """Seconds after which another try makes sense."""
    outcome: str = "refused"
    """The label in L{matrix.metrics.series.SIGN_INS}."""
    operator: bool = False
    """Whether whoever runs the service must do something."""


NO_EMAIL = Trouble(400, "Enter your e-mail address, such as name@example.org.", "email")
NO_PASSWORD = Trouble(400, "Enter your password, or have a code mailed to you.", "password")
NO_CODE = Trouble(400, "Enter the digits of the code.", "code")
WRONG_PASSWORD = Trouble(
    401, "The e-mail address or the password is wrong.", "password", outcome="wrong"
)
WRONG_CODE = Trouble(
    401,
    "This code is wrong, was used before, or is too old. Have another one sent.",
    "code",
    outcome="wrong",
)
UNREACHABLE = Trouble(
    503,
    "The sign-in service cannot be reached. Try again in a moment.",
    retry_after=5.0,
    outcome="unavailable",
)
NOT_KEPT = Trouble(
    503,
    "You cannot be signed in right now, because the database cannot be reached. Try again in "
    "a moment.",
    retry_after=5.0,
    outcome="unavailable",
)
SECOND_FACTOR = Trouble(
    403,
    "A second factor is needed here, and this page cannot ask for one. Sign in on a page that "
    "does; whoever runs this service can tell you where.",
)

_BY_CODE = {
    "invalid_credentials": WRONG_PASSWORD,
    "otp_expired": WRONG_CODE,
    "email_not_confirmed": Trouble(
        403,
        "This e-mail address is not confirmed yet: open the link in the message that you got "
        "when you registered, then sign in.",
        "email",
    ),
    "user_banned": Trouble(
        403, "This account is blocked. Whoever runs this service can tell you why."
    ),
    "validation_failed": NO_EMAIL,
    "email_address_invalid": NO_EMAIL,
    "mfa_verification_required": SECOND_FACTOR,
    "insufficient_aal": SECOND_FACTOR,
    "captcha_failed": Trouble(
        403,
        "The sign-in service wants a CAPTCHA, which this page does not have. Tell whoever runs "
        "this service.",
        operator=True,
    ),
    "email_provider_disabled": Trouble(
        403,
        "Sign-in by e-mail is switched off at the sign-in service. Tell whoever runs this service.",
        operator=True,
    ),
}
_WRONG_KEY = Trouble(
    503,
    "The sign-in service does not know this router. Tell whoever runs this service.",
    retry_after=60.0,
    outcome="unavailable",
    operator=True,
)
_BEFORE_SENDING = frozenset({"over_email_send_rate_limit", "otp_disabled", "user_not_found"})
"""Codes that only those requests for a mail get whose address has, or has not, an account."""


def of_refusal(error: ApiRefusal) -> Trouble:
    """What the sign-in service's refusal means."""
    if error.status == 429:
        return too_many(error.retry_after or 60.0)
    known = _BY_CODE.get(error.code)
    if known is not None:
        return known
    if error.status == 401:
        return _WRONG_KEY
    return Trouble(
        403,
        "The sign-in service refused. Tell whoever runs this service.",
        operator=True,
    )


def tells_of_account(error: ApiRefusal) -> bool:
    """Whether a refusal to mail a code tells whether there is such an account."""
    return error.code in _BEFORE_SENDING


def of_token(error: Unauthorized) -> Trouble:
    """Why the token of a sign-in that succeeded does not count here."""
    if error.reason == Reason.ASSURANCE:
        return SECOND_FACTOR
    return Trouble(
        502,
        "The sign-in service gave a token that is not accepted here "
        f"({error.reason}). Tell whoever runs this service.",
        operator=True,
    )


def too_many(seconds: float) -> Trouble:
    """There were too many attempts."""
    wait = max(1, ceil(seconds))
    return Trouble(
        429,
        f"Too many attempts. Try again in {wait} s.",
        retry_after=seconds,
        outcome="limited",
    )
