"""Requests and answers of the emulator against Fly's own description."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.testing.fly.addresses import Addresses
from matrix.testing.fly.answers import WrongAnswer, check_answer
from matrix.testing.fly.call import seconds
from matrix.testing.fly.case import CONFIG, FlyCase
from matrix.testing.fly.chance import Chance, ulid
from matrix.testing.fly.command import Command
from matrix.testing.fly.refusals import Refusal
from matrix.testing.fly.schema import document
from matrix.testing.fly.tuning import CHOICES, Switches, Tuning
from matrix.testing.scratch import scratch

ONE = "/apps/users/machines"


class RequestTests(FlyCase):
    def test_each_breach_is_named(self) -> None:
        for body, what in (
            ({"config": {**CONFIG, "imagine": "x"}}, "$.config: 'imagine' is unknown"),
            ({"config": {**CONFIG, "env": {"A": 1}}}, "$.config.env.A: 1 is not of type 'string'"),
            ({"config": dict(CONFIG), "skip_launch": "no"}, "$.skip_launch: 'no' is not"),
            ([], "no JSON object"),
        ):
            self.refused(400, what, "POST", ONE, body)
        self.refused(400, "config.image is missing", "POST", ONE, {"config": {}})
        self.assertEqual(self.ok("GET", ONE), [])

    def test_what_no_machine_can_be(self) -> None:
        for guest, what in (
            ({"cpu_kind": "huge"}, "'huge' is unknown"), ({"memory_mb": 300}, "memory_mb is 300"),
            ({"cpu_kind": "performance", "memory_mb": 256}, "2048 to 8192"),
        ):  # fmt: skip
            self.refused(400, what, "POST", ONE, {"config": {**CONFIG, "guest": guest}})
        for mounts, what in (
            ([{"path": "/data"}], "needs a volume"), ([{}, {}], "has one mount"),
        ):  # fmt: skip
            self.refused(400, what, "POST", ONE, {"config": {**CONFIG, "mounts": mounts}})
        self.refused(400, "'moon' is unknown", "POST", ONE,
                     {"config": dict(CONFIG), "region": "moon"})  # fmt: skip

    def test_apps(self) -> None:
        self.refused(422, "already been taken", "POST", "/apps", {"name": "users"})
        self.assertEqual(
            self.call("POST", "/apps", {"name": "users"}).value["status"], "name_taken"
        )
        self.refused(422, "Name may only", "POST", "/apps", {"name": "A"})
        self.refused(400, "needs a name", "POST", "/apps", {})
        self.refused(403, "another", "POST", "/apps", {"name": "x", "org_slug": "others"})
        self.ok("POST", "/apps", {"app_name": "docs"}, status=201)
        self.tuning.set("app_name_field", "name")
        self.refused(400, "needs a name", "POST", "/apps", {"app_name": "more"})
        listed = self.ok("GET", "/apps", query={"org_slug": "personal"})
        self.assertEqual({app["name"] for app in listed["apps"]}, {"users", "docs"})
        self.assertEqual(listed["total_apps"], 2)

    def test_paths_and_methods_that_are_not_there(self) -> None:
        self.refused(404, "not found", "GET", "/nowhere")
        self.refused(405, "PUT is not allowed", "PUT", "/apps")
        self.emulator("GET", "/nowhere", status=404)
        self.emulator("POST", "/machines/0/migrate", status=404)
        machine = self.created()
        said = self.emulator("POST", f"/machines/{machine}/explode", status=400)
        self.assertIn("only migrate, unreachable", said["error"])
        self.emulator("POST", f"/machines/{machine}/lose-snapshot", status=412)

    def test_settings_over_the_control_api(self) -> None:
        settings = self.emulator("POST", "/settings", {"resume": "0.1-0.2", "migration": 0.5})
        self.assertEqual((settings["resume"], settings["migration"]), ("0.1-0.2", "0.5"))
        self.assertEqual(self.emulator("GET", "/settings"), settings)
        self.emulator("POST", "/settings", {"x": 1}, status=400)
        self.emulator("POST", "/settings", [], status=400)


class TableTests(FlyCase):
    """The emulator's actions are some of those that the description has."""

    def test_each_is_described(self) -> None:
        paths = {
            path.replace("_name}", "}").replace("_id}", "}").replace("_slug}", "}"): methods
            for path, methods in document()["paths"].items()
        }
        for action in self.parts.api.actions:
            path = action.path.replace("<", "{").replace(">", "}")
            described = paths[path][action.method.lower()]
            content = described.get("requestBody", {}).get("content", {})
            sent = content.get("application/json", {}).get("schema", {}).get("$ref", "")
            self.assertEqual(sent.rpartition("/")[2], action.body or "", action.name)
            self.assertIn(str(action.status), described["responses"], action.name)

    def test_answers_that_are_none_of_flys(self) -> None:
        check_answer("Machine", {"id": "x", "version": "1", "cordoned": True})
        for schema, answer in (
            ("Machine", {"id": 1}), ("Machine", {"idea": "x"}), ("[Machine]", [{"id": 1}]),
            ("Lease", {"data": {"nonce": 1}}), ("Volume", {"size_gb": "1"}),
            ("Machine", {"config": {"services": [{"autostop": "later"}]}}),
        ):  # fmt: skip
            self.assertRaises(WrongAnswer, check_answer, schema, answer)

    def test_they_are_noticed(self) -> None:
        machine = self.started()
        self.parts.world.machines[machine].region = 7  # type: ignore[assignment]
        self.failureResultOf(self.begin("GET", f"{ONE}/{machine}"), WrongAnswer)


class TuningTests(SynchronousTestCase):
    def test_every_switch_has_its_choices_and_begins_with_the_first(self) -> None:
        self.assertEqual({name: of[0] for name, of in CHOICES.items()}, vars(Switches()))

    def test_what_cannot_be_set(self) -> None:
        tuning = Tuning()
        for name, value, text in (
            ("nothing", "1", "there is no 'nothing'"), ("resume", "soon", "resume takes seconds"),
            ("resume", "2-1", "takes seconds"), ("migration", "2", "migration takes 0 to 1"),
            ("rate_limits", "maybe", "rate_limits is one of on, off"), ("pull", "inf", "takes"),
        ):  # fmt: skip
            error = self.assertRaises(ConfigurationError, tuning.set, name, value)
            self.assertIn(text, str(error))

    def test_everything_that_is_shown_can_be_set(self) -> None:
        tuning = Tuning()
        for name, value in tuning.shown().items():
            tuning.set(name, value)
        self.assertEqual(tuning.shown(), Tuning().shown())


class ChanceTests(SynchronousTestCase):
    def test_the_order_in_which_others_draw_changes_nothing(self) -> None:
        one, two = Chance(1), Chance(1)
        two.draw("b")
        self.assertEqual([one.draw("a"), one.draw("a")], [two.draw("a"), two.draw("a")])
        self.assertNotEqual(one.draw("a"), Chance(2).draw("a"))
        self.assertNotEqual(one.draw("c"), one.draw("c"))

    def test_identifiers_sort_by_time_and_number(self) -> None:
        made = [ulid(1, 5), ulid(1, 6), ulid(2, 0), ulid(1 << 40, 1)]
        self.assertEqual(made, sorted(made))
        self.assertEqual({len(one) for one in made}, {26})


class AddressTests(SynchronousTestCase):
    def test_what_is_taken_or_in_use_is_passed_over(self) -> None:
        addresses = Addresses("x", "127.5.0.0/16", lambda address, port: address != "127.5.0.2")
        self.assertEqual(addresses.give({"127.5.0.1"}, 80), "127.5.0.3")

    def test_all_are_taken(self) -> None:
        addresses = Addresses("x", "127.5.0.0/30", lambda address, port: False)
        self.assertRaises(ConfigurationError, addresses.give, set(), 80)

    def test_networks_that_will_not_do(self) -> None:
        for network in ("10.0.0.0/8", "127.0.0.1/32", "x", "::/0"):
            self.assertRaises(ConfigurationError, Addresses, "x", network)

    def test_emulators_begin_far_apart(self) -> None:
        one, two = (Addresses(key, free=lambda a, p: True) for key in ("/a", "/b"))
        self.assertNotEqual(one.give((), 80).split(".")[1:3], two.give((), 80).split(".")[1:3])


class CommandTests(SynchronousTestCase):
    def test_places(self) -> None:
        folder = scratch(self)
        command = Command.parse("serve {host}:{port} '{data}' {machine}")
        words = command.fill("m{port}", "127.0.0.9", 80, folder)
        self.assertEqual(words, ["serve", "127.0.0.9:80", str(folder), "m{port}"])
        self.assertIn("matrix-daemon", Command.parse("daemon").words)
        for text in ("", "x {user}", "'"):
            self.assertRaises(ConfigurationError, Command.parse, text)

    def test_durations(self) -> None:
        for value, meant in (("10s", 10.0), ("1m30s", 90.0), ("500ms", 0.5), (2_000_000_000, 2.0)):
            self.assertEqual(seconds(value, 1.0), meant)
        self.assertEqual(seconds(None, 1.0), 1.0)
        for value in ("soon", "10", "-1s"):
            self.assertRaises(Refusal, seconds, value, 1.0)
