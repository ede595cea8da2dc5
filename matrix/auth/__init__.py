"""Who sent a request: tokens, the keys that sign them, and the principals they speak for."""

from matrix.auth._failures import Failures
from matrix.auth._gate import Issuer, TokenGate
from matrix.auth._jwk import Key, secret_key
from matrix.auth._keys import OUTCOMES, JwksKeys
from matrix.auth._memory import MemoryGate, StaticKeys
from matrix.auth._refusals import Reason, refusal
from matrix.auth._rules import Policy
from matrix.auth._supabase import ApiRefusal, ApiUnreachable, AuthApi, Grant
from matrix.auth.credentials import (
    AMBIENT,
    SESSION_COOKIE,
    Credential,
    Source,
    allows_set_cookie,
    check_origin,
    find_token,
    without_session_cookies,
)
from matrix.auth.derive import MachineSecrets
from matrix.auth.interfaces import IGate, IKeySource

__all__ = [
    "AMBIENT",
    "OUTCOMES",
    "SESSION_COOKIE",
    "ApiRefusal",
    "ApiUnreachable",
    "AuthApi",
    "Credential",
    "Failures",
    "Grant",
    "IGate",
    "IKeySource",
    "Issuer",
    "JwksKeys",
    "Key",
    "MachineSecrets",
    "MemoryGate",
    "Policy",
    "Reason",
    "Source",
    "StaticKeys",
    "TokenGate",
    "allows_set_cookie",
    "check_origin",
    "find_token",
    "refusal",
    "secret_key",
    "without_session_cookies",
]
