"""What a browser's form sends, read and bounded; and that it was our own page's form."""

from __future__ import annotations

from urllib.parse import parse_qsl

from matrix.auth import Origins
from matrix.errors import BadRequest, Forbidden
from matrix.http import Exchange, RequestHead

LIMIT = 64 * 1024
"""Bytes of a form: where to go on, encoded, is most of a long one."""

MOST_FIELDS = 20

_OURS = Origins()


async def read_form(exchange: Exchange) -> dict[str, str]:
    """
    The fields of a form; of several by one name the last.

    @raise BadRequest: it is no form. What was sent is not repeated.
    @raise PayloadTooLarge: it is longer than L{LIMIT}.
    """
    kind = (exchange.request.get(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/x-www-form-urlencoded":
        raise BadRequest(
            "Send the fields of the form as application/x-www-form-urlencoded.",
            reason="content-type",
        )
    body = await exchange.read_body(LIMIT)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError:
        raise BadRequest("The form cannot be read.", reason="form") from None
    return dict(pairs)


def check_own_form(request: RequestHead, origins: Origins = _OURS) -> None:
    """
    Make sure that a page of ours sent the request, or another page could sign its visitor in
    as somebody else, or out. A browser of today always says where a POST comes from.

    @param origins: whose pages may send it; by default our own host's alone.
    @raise Forbidden: with reason C{origin}: another page did, or it cannot be told.
    """
    origin = request.get(b"origin")
    if origin is not None:
        if origins.trusts(origin, request.fields.host):
            return
    elif request.get(b"sec-fetch-site") == b"same-origin":
        return
    raise Forbidden(
        "This form must be sent from our own page: open it, and try again there.",
        reason="origin",
    )
