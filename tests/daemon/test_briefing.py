"""What the router tells a machine: all of it or nothing, and no child inherits its secrets."""

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.briefing import Briefing
from matrix.errors import ConfigurationError

TOLD = {
    "MATRIX_USER": "0a1b2c3d-0000-4000-8000-00000000000a",
    "MATRIX_ROUTER_URL": "http://box:8001/",
    "MATRIX_ROUTER_TOKEN": "s3cret-token",
    "MATRIX_RESTIC_REPOSITORY": "rest:http://box:8001/restic/0a1b/",
    "MATRIX_RESTIC_ACCOUNT": "s3cret/acc@ount",
    "MATRIX_RESTIC_PASSWORD": "s3cret-password",
}


class BriefingTests(SynchronousTestCase):
    def made(self, **changes: str) -> Briefing:
        briefing = Briefing.taken_from({**TOLD, **changes})
        assert briefing is not None
        return briefing

    def test_secrets_leave_the_environment(self) -> None:
        environment = dict(TOLD)
        Briefing.taken_from(environment)
        self.assertEqual(set(environment), {"MATRIX_USER", "MATRIX_ROUTER_URL"})

    def test_without_a_repository_there_is_none_and_no_secret_stays(self) -> None:
        environment = {**TOLD, "MATRIX_RESTIC_REPOSITORY": ""}
        self.assertIsNone(Briefing.taken_from(environment))
        self.assertNotIn("MATRIX_ROUTER_TOKEN", environment)

    def test_each_part_is_needed(self) -> None:
        for name in TOLD:
            if name == "MATRIX_RESTIC_REPOSITORY":
                continue
            error = self.assertRaises(ConfigurationError, self.made, **{name: ""})
            self.assertIn(name, str(error))

    def test_repository_must_be_one_that_is_served(self) -> None:
        for url in ("/srv/repo", "rest:ftp://x/", "http://box/"):
            error = self.assertRaises(ConfigurationError, self.made, MATRIX_RESTIC_REPOSITORY=url)
            self.assertIn("rest:http://", str(error))

    def test_account_goes_into_the_url_encoded(self) -> None:
        told = self.made().restic_environment()
        login = f"{TOLD['MATRIX_USER']}:s3cret%2Facc%40ount"
        self.assertEqual(told["RESTIC_REPOSITORY"], f"rest:http://{login}@box:8001/restic/0a1b/")

    def test_secrets_are_hidden(self) -> None:
        briefing = self.made()
        said = " ".join([*briefing.restic_environment().values(), *TOLD.values()])
        for text in (repr(briefing), briefing.hide(said)):
            self.assertNotIn("s3cret", text)
