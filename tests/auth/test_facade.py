"""The public names of the room, pinned."""

from twisted.trial.unittest import SynchronousTestCase

import matrix.auth


class FacadeTests(SynchronousTestCase):
    def test_names(self) -> None:
        self.assertEqual(
            sorted(matrix.auth.__all__),
            [
                "Credential",
                "IGate",
                "IKeySource",
                "JwksKeys",
                "Key",
                "MachineSecrets",
                "MemoryGate",
                "Policy",
                "Reason",
                "SESSION_COOKIE",
                "Source",
                "StaticKeys",
                "TokenGate",
                "check_origin",
                "find_token",
                "refusal",
                "without_session_cookies",
            ],
        )
        for name in matrix.auth.__all__:
            self.assertTrue(hasattr(matrix.auth, name), name)
