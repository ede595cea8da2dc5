"""The rules of the house that imports and sizes can show, checked over the whole source."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent

BASE = frozenset({"model", "errors", "files", "flights", "settings", "processes"})
LIBRARY = frozenset({"net", "http", "auth", "directory", "machines", "snapshots", "metrics"})
API = frozenset({"api"})
SERVICE = frozenset({"router", "daemon", "neo", "chronos", "browser", "deus"})
TOP = frozenset({"cli", "__main__"})
TESTING = frozenset({"testing"})

SEES: Mapping[frozenset[str], frozenset[str]] = {
    BASE: BASE,
    LIBRARY: BASE | LIBRARY,
    API: BASE | LIBRARY,
    SERVICE: BASE | LIBRARY | API,
    TESTING: BASE | LIBRARY | API,
    TOP: BASE | LIBRARY | API | SERVICE | TOP,
}
"""Which layers each layer may import from; the finer rules are in L{crossing}."""

EMBEDDED_ISSUER = "matrix.testing.issuer"
"""The one part of C{matrix.testing} that runs in earnest: embedded mode signs its own tokens."""

MODULE_LINES = 400
TAP_LINES = 100
FUNCTION_LINES = 60

Tree = Mapping[str, str]
"""Source by path, relative to the checkout."""


@dataclass(frozen=True)
class Module:
    """One file of source."""

    path: str
    source: str
    tree: ast.Module

    @property
    def package(self) -> tuple[str, ...]:
        return PurePosixPath(self.path).parent.parts

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem

    @property
    def name(self) -> str:
        parts = self.package if self.stem == "__init__" else (*self.package, self.stem)
        return ".".join(parts)

    @property
    def is_tap(self) -> bool:
        return self.stem == "tap"


def check(sources: Tree) -> list[str]:
    """Every breach of the rules, as C{path:line: what}, in the order of the paths."""
    modules = [Module(path, text, ast.parse(text)) for path, text in sorted(sources.items())]
    names = {module.name for module in modules}
    found = []
    for module in modules:
        if module.path.startswith("twisted/"):
            found += plugin_breaches(module)
            continue
        for line, target in dict.fromkeys(imports(module, names)):
            if breach := reactor_breach(module, target) or crossing(module, target):
                found.append(f"{module.path}:{line}: {breach}")
        found += facade_breaches(module)
        found += size_breaches(module)
    return found


def imports(module: Module, known: set[str]) -> Iterator[tuple[int, str]]:
    """Each module that C{module} imports anywhere in it, functions and type hints included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            parts = module.package[: len(module.package) - node.level + 1] if node.level else ()
            source = ".".join((*parts, *filter(None, [node.module])))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                is_module = (
                    inner in known
                    or inner == "twisted.internet.reactor"
                    or (source == "matrix" and alias.name != "__version__")
                )
                yield node.lineno, inner if is_module else source


def reactor_breach(module: Module, target: str) -> str | None:
    if target == "twisted.internet.reactor" and not module.is_tap:
        return "only tap.py imports the reactor"
    return None


def crossing(module: Module, target: str) -> str | None:
    """What is wrong with importing C{target}, or C{None}."""
    parts = target.split(".")
    if parts[0] != "matrix" or len(parts) == 1 or len(module.name.split(".")) == 1:
        return None
    room, other = module.name.split(".")[1], parts[1]
    if parts[-1] == "tap":
        return f"nobody imports {target}: the plugin names it"
    if room == other:
        return None
    if target == EMBEDDED_ISSUER and room in SERVICE | TOP:
        return None
    if room not in TESTING and any(part.startswith("_") for part in parts[2:]):
        return f"{target} is private to {other}"
    if other not in (SEES[TOP] if module.is_tap else SEES.get(layer(room), frozenset())):
        return f"{room} may not see {other}"
    if room in LIBRARY and other in LIBRARY and parts[2:] != ["interfaces"]:
        return f"{room} sees {other} only through matrix.{other}.interfaces"
    return None


def layer(room: str) -> frozenset[str]:
    """The layer that C{room} is in; empty for a room that nobody has given a place."""
    return next((one for one in SEES if room in one), frozenset())


def facade_breaches(module: Module) -> Iterator[str]:
    if module.stem != "__init__":
        return
    imports_something = any(
        isinstance(node, ast.Import | ast.ImportFrom)
        and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        for node in module.tree.body
    )
    assigned = {
        target.id
        for node in module.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if imports_something and "__all__" not in assigned:
        yield f"{module.path}:1: a facade says what it offers: __all__ is missing"
    if len(module.package) == 2 and layer(module.package[1]) == frozenset():
        yield f"{module.path}:1: {module.package[1]} has no place among the layers"


def size_breaches(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    limit = TAP_LINES if module.is_tap else MODULE_LINES
    if lines > limit:
        yield f"{module.path}:1: {lines} lines, over {limit}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield (
                    f"{module.path}:{node.lineno}: {node.name} has {length} lines, "
                    f"over {FUNCTION_LINES}"
                )


def plugin_breaches(module: Module) -> Iterator[str]:
    if module.stem == "__init__":
        yield f"{module.path}:1: with this file Twisted would not find the plugins beside it"
    for line, target in imports(module, set()):
        if target != "twisted.application.service":
            yield f"{module.path}:{line}: a plugin is data: it imports {target}"
    for node in module.tree.body:
        if not isinstance(node, ast.Assign | ast.Expr | ast.ImportFrom):
            yield f"{module.path}:{node.lineno}: a plugin is data: no logic"


def read_tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for top in ("matrix", "twisted")
        for path in (root / top).rglob("*.py")
    }


class SourceTests(SynchronousTestCase):
    """The source as it is."""

    def test_rules(self) -> None:
        self.assertEqual(check(read_tree(ROOT)), [])

    def test_all_of_it_was_read(self) -> None:
        tree = read_tree(ROOT)
        for path in ("matrix/model.py", "matrix/http/interfaces.py"):
            self.assertIn(path, tree)
        self.assertIn("twisted/plugins/matrix_plugins.py", tree)


class CheckerTests(SynchronousTestCase):
    """The checker on small trees, each with one planted breach or none."""

    def breaches(self, source: str, path: str = "matrix/net/x.py", **others: str) -> list[str]:
        extra = {name.replace("__", "/") + ".py": text for name, text in others.items()}
        return check({path: dedent(source), **extra})

    def assert_refused(self, source: str, reason: str, path: str = "matrix/net/x.py") -> None:
        self.assertEqual(self.breaches(source, path), [f"{path}:1: {reason}"])

    def test_downward_imports_are_fine(self) -> None:
        for path, source in (
            ("matrix/settings.py", "from matrix.errors import ConfigurationError\n"),
            ("matrix/net/x.py", "from matrix.processes import spawn\nimport matrix.model\n"),
            ("matrix/auth/x.py", "from matrix.directory.interfaces import IDirectory\n"),
            ("matrix/auth/x.py", "from matrix.auth._cache import Cache\n"),
            ("matrix/api/x.py", "from matrix.http import Server\n"),
            ("matrix/router/x.py", "from matrix.api import routes\n"),
            (
                "matrix/router/tap.py",
                "from twisted.internet import reactor\nimport matrix.router\n",
            ),
            ("matrix/cli.py", "from matrix.router import status\n"),
            ("matrix/testing/x.py", "from matrix.machines import local\n"),
            ("matrix/testing/x.py", "from matrix.directory._migrate import migrate\n"),
            ("matrix/router/x.py", "from matrix.testing.issuer import Issuer\n"),
            ("matrix/net/x.py", "from matrix import __version__\n"),
        ):
            with self.subTest(path=path):
                self.assertEqual(self.breaches(source, path), [])

    def test_upward_imports(self) -> None:
        for path, target in (
            ("matrix/model.py", "net"),
            ("matrix/processes/x.py", "machines"),
            ("matrix/http/x.py", "api"),
            ("matrix/net/x.py", "router"),
            ("matrix/api/x.py", "daemon"),
            ("matrix/router/x.py", "testing"),
            ("matrix/testing/x.py", "router"),
            ("matrix/router/tap.py", "testing"),
        ):
            room = path.split("/")[1].removesuffix(".py")
            for source in (
                f"from matrix.{target} import thing\n",
                f"import matrix.{target}\n",
                f"from matrix import {target}\n",
            ):
                self.assert_refused(source, f"{room} may not see {target}", path)

    def test_services_never_see_each_other(self) -> None:
        self.assert_refused(
            "from matrix.daemon import tree\n", "router may not see daemon", "matrix/router/x.py"
        )

    def test_library_rooms_see_interfaces_only(self) -> None:
        reason = "net sees http only through matrix.http.interfaces"
        for source in (
            "from matrix.http import Relay\n",
            "from matrix.http.relay import Relay\n",
            "import matrix.http\n",
            "def late():\n    from matrix.http import Relay\n",
        ):
            self.assertEqual([line.split(": ", 1)[1] for line in self.breaches(source)], [reason])

    def test_interfaces_by_name(self) -> None:
        found = self.breaches(
            "from matrix.http import interfaces\n", matrix__http__interfaces="X = 1\n"
        )
        self.assertEqual(found, [])

    def test_relative_imports_are_resolved(self) -> None:
        self.assert_refused(
            "from ..router import idle\n", "net may not see router", "matrix/net/x.py"
        )
        self.assertEqual(self.breaches("from . import _wheel\nfrom ._wheel import Wheel\n"), [])

    def test_imports_for_types_count(self) -> None:
        source = """\
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from matrix.router import idle
            """
        self.assertEqual(self.breaches(source), ["matrix/net/x.py:3: net may not see router"])

    def test_private_modules(self) -> None:
        self.assert_refused(
            "from matrix.net._tls import server_context\n",
            "matrix.net._tls is private to net",
            "matrix/router/x.py",
        )

    def test_nobody_imports_a_tap(self) -> None:
        for path in ("matrix/router/x.py", "matrix/cli.py", "matrix/daemon/tap.py"):
            self.assert_refused(
                "from matrix.router.tap import Options\n",
                "nobody imports matrix.router.tap: the plugin names it",
                path,
            )

    def test_reactor(self) -> None:
        for source in (
            "from twisted.internet import reactor\n",
            "from twisted.internet import defer, reactor\n",
            "import twisted.internet.reactor\n",
            "from twisted.internet.reactor import callLater\n",
        ):
            self.assert_refused(source, "only tap.py imports the reactor")
        hidden = "def now():\n    from twisted.internet import reactor\n"
        self.assertEqual(
            self.breaches(hidden), ["matrix/net/x.py:2: only tap.py imports the reactor"]
        )

    def test_facades(self) -> None:
        path = "matrix/net/__init__.py"
        self.assert_refused(
            "from matrix.net._tls import x\n",
            "a facade says what it offers: __all__ is missing",
            path,
        )
        good = "from matrix.net._tls import x\n__all__ = ['x']\n"
        self.assertEqual(self.breaches(good, path), [])
        self.assertEqual(self.breaches('"""Nothing yet."""\n', path), [])

    def test_room_without_a_place(self) -> None:
        self.assert_refused(
            '"""New."""\n', "attic has no place among the layers", "matrix/attic/__init__.py"
        )

    def test_module_size(self) -> None:
        self.assertEqual(self.breaches("x = 1\n" * 400), [])
        self.assert_refused("x = 1\n" * 401, "401 lines, over 400")

    def test_tap_size(self) -> None:
        path = "matrix/router/tap.py"
        self.assertEqual(self.breaches("x = 1\n" * 100, path), [])
        self.assert_refused("x = 1\n" * 101, "101 lines, over 100", path)

    def test_function_size(self) -> None:
        for define in ("def", "async def"):
            fits = f"{define} f():\n" + "    x = 1\n" * 59
            self.assertEqual(self.breaches(fits), [])
            self.assert_refused(fits + "    x = 1\n", "f has 61 lines, over 60")

    def test_plugin_is_data(self) -> None:
        path = "twisted/plugins/ours.py"
        good = "from twisted.application.service import ServiceMaker\nx = ServiceMaker('x')\n"
        self.assertEqual(self.breaches(good, path), [])
        self.assert_refused(
            "from matrix.router import x\n", "a plugin is data: it imports matrix.router", path
        )
        self.assert_refused("def f():\n    pass\n", "a plugin is data: no logic", path)

    def test_plugin_directory_is_no_package(self) -> None:
        self.assert_refused(
            "",
            "with this file Twisted would not find the plugins beside it",
            "twisted/plugins/__init__.py",
        )
