"""The wheel: it holds what Matrix needs, nothing else, and twistd finds our services in it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from configparser import ConfigParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PLUGIN = "twisted/plugins/matrix_plugins.py"


def run(*command: str, cwd: Path, **environment: str) -> str:
    """What C{command} prints; its errors fail the test with their text."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def sources() -> set[str]:
    """Every file under C{matrix/} that is no by-product."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / "matrix").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


class WheelTests(SynchronousTestCase):
    """One wheel, built from a copy of the checkout, without the network."""

    installed: ClassVar[Path]
    names: ClassVar[set[str]]
    metadata: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        directory = Path(cls.enterClassContext(TemporaryDirectory(prefix="matrix-wheel-")))
        copy = directory / "copy"
        for name in ("matrix", "twisted"):
            shutil.copytree(
                ROOT / name,
                copy / name,
                ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"),
            )
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        run(
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps",
            "--no-build-isolation", "--disable-pip-version-check",
            "--wheel-dir", str(directory), str(copy),
            cwd=directory,
        )  # fmt: skip
        (wheel,) = directory.glob("matrix_door-*.whl")
        cls.installed = directory / "installed"
        with zipfile.ZipFile(wheel) as archive:
            cls.names = set(archive.namelist())
            archive.extractall(cls.installed)
        cls.metadata = next(cls.installed.glob("*.dist-info"))

    def twistd(self, *arguments: str) -> str:
        """Run twistd on the wheel alone: -S leaves the editable installation out."""
        places = [str(self.installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        return run(
            sys.executable, "-S", "-c", "from twisted.scripts.twistd import run; run()",
            *arguments,
            cwd=self.installed.parent,
            PYTHONPATH=os.pathsep.join(places),
        )  # fmt: skip

    def test_holds_the_source_and_nothing_else(self) -> None:
        found = {name for name in self.names if ".dist-info/" not in name}
        self.assertEqual(found, sources() | {PLUGIN})

    def test_holds_what_is_no_python(self) -> None:
        self.assertIn("matrix/py.typed", self.names)
        for suffix in (".sql", ".html"):
            self.assertTrue([name for name in self.names if name.endswith(suffix)], suffix)

    def test_license(self) -> None:
        (license_file,) = self.metadata.rglob("LICENSE")
        self.assertIn("The Matrix authors", license_file.read_text())

    def test_commands_exist(self) -> None:
        parser = ConfigParser()
        parser.read(self.metadata / "entry_points.txt")
        for target in parser["console_scripts"].values():
            path = target.partition(":")[0].replace(".", "/")
            self.assertTrue(self.names & {f"{path}.py", f"{path}/__init__.py"}, target)

    def test_twistd_lists_our_services(self) -> None:
        listed = [line.split()[0] for line in self.twistd("--help").splitlines() if line.split()]
        self.assertIn("matrix", listed)
        self.assertIn("matrix-daemon", listed)

    def test_services_load_from_the_wheel(self) -> None:
        for service in ("matrix", "matrix-daemon"):
            self.assertIn("Usage: ", self.twistd(service, "--help"))


class CheckoutTests(SynchronousTestCase):
    """The editable installation that script/server makes."""

    def test_twistd_lists_our_services_anywhere(self) -> None:
        elsewhere = Path(self.mktemp()).absolute()
        elsewhere.mkdir(parents=True)
        listed = run(
            sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--help",
            cwd=elsewhere,
        )  # fmt: skip
        self.assertIn("    matrix-daemon ", listed)

    def test_plugin_directories_are_no_packages(self) -> None:
        self.assertFalse((ROOT / "twisted" / "__init__.py").exists())
        self.assertFalse((ROOT / "twisted" / "plugins" / "__init__.py").exists())
