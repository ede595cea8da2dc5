"""Tokens among subprotocols: found, taken out, and what may be chosen in their stead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import harmless_protocol, has_marker
from matrix.auth._subprotocol import offered_token, without_tokens
from matrix.errors import BadRequest

members = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
others = members.filter(lambda one: one != b"matrix" and not one.startswith((b"jwt-", b"matrix.")))
secrets = st.builds(
    lambda prefix, rest: prefix + b"s3cret" + rest,
    st.sampled_from((b"matrix.jwt.", b"jwt-")),
    members,
)
separators = st.sampled_from((b",", b", ", b" ,\t", b",  "))


class TableTests(SynchronousTestCase):
    """Row by row."""

    def test_where_a_token_is(self) -> None:
        for offer, token in (
            (b"matrix.jwt.a.b.c", b"a.b.c"),
            (b"jwt-a.b.c", b"a.b.c"),
            (b"chat, matrix.jwt.a.b.c", b"a.b.c"),
            (b"matrix,jwt-a.b.c\t,chat", b"a.b.c"),
            (b"matrix.jwt.", b""),
            (b"chat", None),
            (b"", None),
            (b"jwt", None),
            (b"matrix", None),
            (b"matrix.jwt", None),
            (b"JWT-a.b.c", None),
            (b"xjwt-a.b.c", None),
        ):
            self.assertEqual(offered_token(offer), token, offer)

    def test_two_tokens(self) -> None:
        for offer in (b"jwt-a.b.c, jwt-a.b.c", b"matrix.jwt.a.b.c,chat,jwt-d.e.f"):
            with self.assertRaises(BadRequest) as caught:
                offered_token(offer)
            self.assertEqual(caught.exception.reason, "two-subprotocol-tokens")

    def test_what_a_machine_is_offered(self) -> None:
        for offer, rest in (
            (b"chat", b"chat"),
            (b"chat, superchat", b"chat, superchat"),
            (b"matrix.jwt.a.b.c", None),
            (b"matrix, matrix.jwt.a.b.c", None),
            (b" , matrix,", None),
            (b"chat, matrix.jwt.a.b.c", b"chat"),
            (b"matrix.jwt.a.b.c, chat", b"chat"),
            (b"jwt-a.b.c,chat ,  superchat", b"chat ,  superchat"),
            (b"matrix.org, matrixx, xjwt-a", b"matrix.org, matrixx, xjwt-a"),
        ):
            self.assertEqual(without_tokens(offer), rest, offer)

    def test_the_marker(self) -> None:
        for offer, has in (
            (b"matrix", True),
            (b"chat,matrix ,jwt-a", True),
            (b"matrix.jwt.a", False),
            (b"Matrix", False),
            (b"", False),
        ):
            self.assertEqual(has_marker(offer), has, offer)

    def test_what_may_be_chosen_to_say_goodbye(self) -> None:
        for offer, chosen in (
            (b"", None),
            (b"jwt-a.b.c", None),
            (b"jwt-a.b.c, chat", b"chat"),
            (b"matrix, matrix.jwt.a", b"matrix"),
            (b" , chat", b"chat"),
        ):
            self.assertEqual(harmless_protocol(offer), chosen, offer)


class PropertyTests(SynchronousTestCase):
    """What holds for any offer."""

    @given(st.lists(others | secrets | st.just(b"matrix"), min_size=1, max_size=8), separators)
    def test_every_other_member_is_kept_in_its_place(
        self, offered: list[bytes], between: bytes
    ) -> None:
        offer = between.join(offered)
        kept = [one for one in offered if not one.startswith((b"matrix.jwt.", b"jwt-"))]
        kept = [one for one in kept if one != b"matrix"]
        rest = without_tokens(offer)
        if len(kept) == len(offered):
            self.assertIs(rest, offer)
        elif not kept:
            self.assertIsNone(rest)
        else:
            assert rest is not None
            self.assertEqual([one.strip(b" \t") for one in rest.split(b",")], kept)
            self.assertNotIn(b"s3cret", rest)

    @given(st.lists(others, max_size=4), secrets, st.lists(others, max_size=4), separators)
    def test_the_token_is_found_wherever_it_stands(
        self, before: list[bytes], secret: bytes, after: list[bytes], between: bytes
    ) -> None:
        offer = between.join([*before, secret, *after])
        token = offered_token(offer)
        assert token is not None
        self.assertTrue(secret.endswith(token))
        self.assertTrue(token.startswith(b"s3cret"))
        self.assertEqual(harmless_protocol(offer), (before + after + [None])[0])  # type: ignore[list-item]

    @given(st.binary(max_size=100))
    def test_any_noise_is_borne(self, noise: bytes) -> None:
        rest = without_tokens(noise)
        if rest is not None:
            self.assertEqual(without_tokens(rest), rest)
            self.assertIsNone(offered_token(rest))
