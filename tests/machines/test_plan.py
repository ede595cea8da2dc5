"""fly.toml: what a machine is to be like, in the words of Fly's API."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.machines._flytoml import read
from matrix.machines._plan import MachinePlan, plan
from matrix.machines._template import fill
from matrix.testing.fly.schema import breaches, document

TEMPLATE = Path(__file__).parents[2] / "deploy/daemon/fly.toml.tmpl"
VALUES = {
    "APP": "matrix-users",
    "REGION": "fra",
    "IMAGE": "registry.example/matrix-daemon:1",
    "USER": "0a1b2c3d-0000-4000-8000-00000000000a",
    "MACHINE_TOKEN": "secret",
}
SHORT = """
app = "a"
primary_region = "fra"
[build]
image = "i"
[mounts]
source = "data"
destination = "/data"
[http_service]
internal_port = 8080
[vm]
"""


def planned(more: str = "", **replaced: str) -> MachinePlan:
    text = SHORT + more
    for old, new in replaced.items():
        text = text.replace(f"[{old}]\n", f"{new}\n[{old}]\n")
    return plan(read(text, "fly.toml"))


class TemplateTests(SynchronousTestCase):
    """The template that comes with Matrix."""

    def setUp(self) -> None:
        filled = fill(TEMPLATE.read_text("utf-8"), dict(VALUES), TEMPLATE.name)
        self.toml = tomllib.loads(filled)
        self.plan = plan(read(filled, TEMPLATE.name))

    def test_says_that_idle_machines_are_suspended(self) -> None:
        self.assertEqual(self.toml["http_service"]["auto_stop_machines"], "suspend")
        self.assertEqual(self.plan.on_idle, "suspend")

    def test_fly_is_to_stop_and_start_nothing(self) -> None:
        (service,) = self.plan.config("vol_1")["services"]
        self.assertEqual((service["autostop"], service["autostart"]), ("off", False))

    def test_is_a_machine_in_the_words_of_the_api(self) -> None:
        request = {"name": "m", "region": self.plan.region, "config": self.plan.config("vol_1")}
        self.assertEqual(breaches("CreateMachineRequest", request), [])
        volume = self.plan.volume.request("fra", self.plan.guest)
        self.assertEqual(breaches("CreateVolumeRequest", volume), [])
        self.assertEqual(volume["compute"], request["config"]["guest"])

    def test_all_of_it(self) -> None:
        config = self.plan.config("vol_1")
        self.assertEqual(config["image"], VALUES["IMAGE"])
        self.assertEqual(config["env"]["MATRIX_USER"], VALUES["USER"])
        self.assertEqual(config["guest"], {"cpu_kind": "shared", "cpus": 1, "memory_mb": 512})
        self.assertEqual(config["stop_config"], {"signal": "SIGTERM", "timeout": "30s"})
        self.assertEqual(config["restart"], {"policy": "on-failure", "max_retries": 3})
        (mount,) = config["mounts"]
        self.assertEqual((mount["volume"], mount["path"]), ("vol_1", "/data"))
        self.assertEqual((mount["extend_threshold_percent"], mount["size_gb_limit"]), (80, 10))
        check = config["checks"]["daemon"]
        self.assertEqual((check["type"], check["port"], check["path"]), ("http", 8080, "/healthz"))
        self.assertEqual(self.plan.volume.size_gb, 1)


class MappingTests(SynchronousTestCase):
    """Each row of facts/fly.md section 8 that a machine of ours may have."""

    def config(self, more: str = "", **replaced: str) -> dict[str, Any]:
        config = planned(more, **replaced).config("vol_1")
        self.assertEqual(breaches("fly.MachineConfig", config), [])
        return config

    def test_region_and_environment(self) -> None:
        config = self.config("[env]\nA = 'b'\n")
        self.assertEqual(
            config["env"], {"PRIMARY_REGION": "fra", "FLY_PROCESS_GROUP": "app", "A": "b"}
        )

    def test_stopping(self) -> None:
        config = self.config(build='kill_signal = "SIGINT"\nkill_timeout = 120')
        self.assertEqual(config["stop_config"], {"signal": "SIGINT", "timeout": "120s"})

    def test_a_plain_number_in_a_check_is_milliseconds(self) -> None:
        check = self.config('[checks.c]\ninterval = 1500\ntimeout = "2s"\nport = 9\n')["checks"][
            "c"
        ]
        self.assertEqual(check, {"type": "tcp", "port": 9, "interval": "1500ms", "timeout": "2s"})

    def test_headers_of_a_check(self) -> None:
        check = self.config('[checks.c]\npath = "/"\nheaders = {A = "b"}\n')["checks"]["c"]
        self.assertEqual(check["headers"], [{"name": "A", "values": ["b"]}])
        self.assertEqual((check["type"], check["port"]), ("http", 8080))

    def test_checks_and_limits_of_the_service(self) -> None:
        (service,) = self.config(
            '[http_service.concurrency]\ntype = "requests"\nsoft_limit = 20\n'
            '[[http_service.checks]]\npath = "/"\n'
        )["services"]
        self.assertEqual(service["concurrency"], {"type": "requests", "soft_limit": 20})
        self.assertEqual(service["checks"], [{"type": "http", "port": 8080, "path": "/"}])

    def test_sizes(self) -> None:
        for text, kind, cpus, memory in (
            ("", "shared", 1, 256),
            ('size = "shared-cpu-2x"', "shared", 2, 512),
            ('size = "performance-1x"', "performance", 1, 2048),
            ('size = "shared-cpu-1x"\nmemory = "2gb"', "shared", 1, 2048),
            ("memory = 1024\ncpus = 2", "shared", 2, 1024),
            ('cpu_kind = "performance"\ncpus = 2\nmemory = "8192MB"', "performance", 2, 8192),
        ):
            guest = self.config(text)["guest"]
            self.assertEqual(guest, {"cpu_kind": kind, "cpus": cpus, "memory_mb": memory}, text)

    def test_one_size_written_as_many(self) -> None:
        text = SHORT.replace("[vm]", "[[vm]]").replace("[mounts]", "[[mounts]]")
        self.assertEqual(plan(read(text, "t")), planned())

    def test_never_is_no(self) -> None:
        self.assertEqual(self.config('[restart]\npolicy = "never"\n')["restart"], {"policy": "no"})

    def test_swap(self) -> None:
        self.assertEqual(self.config(build="swap_size_mb = 64")["init"], {"swap_size_mb": 64})


class IdleTests(SynchronousTestCase):
    def idle(self, said: str, more: str = "", **replaced: str) -> str:
        service = f"[http_service]\nauto_stop_machines = {said}\n"
        text = SHORT.replace("[http_service]\n", service) + more
        for old, new in replaced.items():
            text = text.replace(f"[{old}]\n", f"{new}\n[{old}]\n")
        return plan(read(text, "t")).on_idle

    def test_as_the_file_says(self) -> None:
        for said, meant in (
            ('"suspend"', "suspend"), ('"stop"', "stop"), ('"off"', "off"),
            ("true", "stop"), ("false", "off"),
        ):  # fmt: skip
            self.assertEqual(self.idle(said), meant)

    def test_stopped_where_fly_cannot_suspend(self) -> None:
        self.assertEqual(self.idle('"suspend"', 'size = "performance-1x"\nmemory = "4gb"'), "stop")
        self.assertEqual(self.idle('"suspend"', build="swap_size_mb = 64"), "stop")
        self.assertEqual(self.idle('"suspend"', 'memory = "2gb"'), "suspend")


class RefusalTests(SynchronousTestCase):
    def test_each_names_its_place(self) -> None:
        for more, wanted in (
            ("x = 1", "fly.toml: vm.x: Extra inputs are not permitted"),
            ('memory = "300mb"', "1 shared CPUs have 256 to 2048 MB of memory, in steps of 256"),
            ('size = "a100"', "there is no size 'a100': write shared-cpu-1x"),
            ('memory = "lots"', "vm.memory: 'lots' is no size"),
            ("[checks.c]\ninterval = 'soon'", "checks.c.interval: 'soon' is no duration"),
            ("[processes]\nweb = 'x'", "processes: Extra inputs"),
            ("[deploy]\nx = 1", "deploy: Extra inputs"),
            ("[[", "fly.toml: "),
        ):
            error = self.assertRaises(ConfigurationError, planned, more)
            self.assertIn(wanted, str(error))

    def test_two_volumes(self) -> None:
        text = SHORT.replace("[mounts]", '[[mounts]]\nsource = "x"\ndestination = "/x"\n[[mounts]]')
        error = self.assertRaises(ConfigurationError, read, text, "t")
        self.assertEqual(str(error), "t: mounts: a machine has one volume, not 2")

    def test_what_fly_would_do_by_itself(self) -> None:
        for line in ("auto_start_machines = true", "min_machines_running = 1"):
            text = SHORT.replace("[http_service]\n", f"[http_service]\n{line}\n")
            self.assertRaises(ConfigurationError, read, text, "t")


class SchemaTests(SynchronousTestCase):
    """That the checks above can fail."""

    def test_breaches_are_found(self) -> None:
        good = planned().config("vol_1")
        self.assertEqual(breaches("fly.MachineConfig", good), [])
        for change in (
            {"guest": {"cpus": "one"}}, {"guest": {"cpu": 1}}, {"imagine": "x"},
            {"mounts": [{"volumes": "v"}]}, {"checks": {"c": {"intervall": "1s"}}},
            {"services": [{"autostop": "later"}]},
        ):  # fmt: skip
            self.assertEqual(len(breaches("fly.MachineConfig", good | change)), 1, change)

    def test_the_description_is_whole(self) -> None:
        self.assertIn("/apps/{app_name}/machines/{machine_id}/suspend", document()["paths"])
