"""C{matrix machine render}: what a user's machine is made of, to be looked at before it is."""

from __future__ import annotations

import json
import tomllib

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from matrix.cli import main
from matrix.testing.fly.schema import breaches

ALICE = "0a1b2c3d-0000-4000-8000-00000000000a"
FLY = {
    "MATRIX_FLY_APP": "users",
    "MATRIX_FLY_IMAGE": "registry.example/daemon:1",
    "MATRIX_FLY_REGIONS": "fra, ams",
    "MATRIX_FLY_TOKEN": "FlyV1 fm2_a-secret",
    "MATRIX_DAEMON_TOKEN": "the-master-secret-of-this-test-0123456789",
}


def render(*arguments: str, **environment: str) -> Result:
    command = ["machine", "render", *arguments]
    return CliRunner().invoke(main, command, env={**FLY, **environment}, prog_name="matrix")


class RenderTests(SynchronousTestCase):
    """What is printed."""

    def test_the_template_filled_in(self) -> None:
        shown = render(ALICE)
        self.assertEqual(shown.exit_code, 0, shown.output)
        toml = tomllib.loads(shown.stdout)
        self.assertEqual((toml["app"], toml["primary_region"]), ("users", "fra"))
        self.assertEqual(toml["env"]["MATRIX_USER"], ALICE)

    def test_the_config_that_fly_is_given(self) -> None:
        config = json.loads(render("--json", ALICE).stdout)
        self.assertEqual(config["metadata"]["matrix_user"], ALICE)
        self.assertEqual(breaches("fly.MachineConfig", config), [])

    def test_no_secret_is_shown(self) -> None:
        for shown in (render(ALICE), render("--json", ALICE)):
            self.assertIn("redacted", shown.stdout)
            for name in ("MATRIX_FLY_TOKEN", "MATRIX_DAEMON_TOKEN"):
                self.assertNotIn(FLY[name], shown.output)

    def test_what_is_not_set_is_named(self) -> None:
        shown = render(ALICE, MATRIX_FLY_REGIONS="")
        self.assertEqual(shown.exit_code, 1)
        self.assertIn("MATRIX_FLY_REGIONS", shown.stderr)

    def test_a_template_that_is_not_there_is_named(self) -> None:
        shown = render(ALICE, MATRIX_FLY_TEMPLATE="/nowhere/fly.toml")
        self.assertEqual(shown.exit_code, 1)
        self.assertIn("MATRIX_FLY_TEMPLATE: /nowhere/fly.toml: No such file", shown.stderr)
