"""Who sent a request: tokens, the keys that sign them, and the principals they speak for."""

from matrix.auth._cookies import SESSION_COOKIE
from matrix.auth._failures import Failures
from matrix.auth._gate import Issuer, TokenGate
from matrix.auth._jwk import Key, secret_key
from matrix.auth._keys import OUTCOMES, JwksKeys
from matrix.auth._machine_proof import MachineProof
from matrix.auth._memory import MemoryGate, StaticKeys
from matrix.auth._origins import Origins
from matrix.auth._query import UNDERSCORE
from matrix.auth._refusals import Reason, refusal
from matrix.auth._rules import Policy, issuer_of
from matrix.auth._seal import Handles, Latchkey
from matrix.auth._ssr import supabase_cookie_name
from matrix.auth._subprotocol import MARKER, harmless_protocol, has_marker
from matrix.auth._supabase import ApiRefusal, ApiUnreachable, AuthApi, Grant
from matrix.auth.credentials import Credential, Places, Source
from matrix.auth.derive import MachineSecrets
from matrix.auth.interfaces import IGate, IKeySource

__all__ = [
    "MARKER",
    "OUTCOMES",
    "SESSION_COOKIE",
    "UNDERSCORE",
    "ApiRefusal",
    "ApiUnreachable",
    "AuthApi",
    "Credential",
    "Failures",
    "Grant",
    "Handles",
    "IGate",
    "IKeySource",
    "Issuer",
    "JwksKeys",
    "Key",
    "Latchkey",
    "MachineProof",
    "MachineSecrets",
    "MemoryGate",
    "Origins",
    "Places",
    "Policy",
    "Reason",
    "Source",
    "StaticKeys",
    "TokenGate",
    "harmless_protocol",
    "has_marker",
    "issuer_of",
    "refusal",
    "secret_key",
    "supabase_cookie_name",
]
