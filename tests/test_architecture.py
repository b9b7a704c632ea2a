"""The lines between the parts: who may import whom, who may read the environment."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "edgetam_label"
# Composition roots: the only core files that may name the outer packages.
ROOTS = {CORE / "cli.py", CORE / "demo.py", *(CORE / "commands").glob("*.py")}
CORE_FILES = sorted(path for path in CORE.rglob("*.py") if path not in ROOTS)
HEAVY = ("torch", "cv2", "av", "numpy", "sqlalchemy", "pydantic", "flask")


def imported(path: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports anywhere, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CORE_FILES, ids=named)
def test_the_core_does_not_know_its_users(path: Path) -> None:
    banned = ("edgetam_label.backend", "edgetam_label.exporters", "edgetam_label.commands", "flask")
    wrong = [name for name in imported(path) if name.startswith(banned)]
    assert not wrong, f"{named(path)} imports {wrong}"


# Label Studio's run-length codec is pure and has one home; the formats that speak it read it there.
SHARED = "edgetam_label.backend.brush"


def test_backend_and_exporters_do_not_know_each_other() -> None:
    assert not any(
        n.startswith("edgetam_label.backend") for n in imported(ROOT / "backend/brush.py")
    )
    for folder, other in (("backend", "exporters"), ("exporters", "backend")):
        for path in (ROOT / folder).glob("*.py"):
            wrong = [n for n in imported(path) if n.startswith(f"edgetam_label.{other}")]
            wrong = [name for name in wrong if not name.startswith(SHARED)]
            assert not wrong, f"{named(path)} imports {wrong}"
            assert "flask" not in imported(path) or folder == "backend"


def test_importing_the_library_loads_no_server_and_no_exporter() -> None:
    code = (
        "import sys, edgetam_label\n"
        "for name in edgetam_label.__all__: getattr(edgetam_label, name)\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'flask'"
        " or m.startswith(('edgetam_label.backend', 'edgetam_label.exporters'))])"
    )
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_the_command_line_starts_without_anything_heavy() -> None:
    code = f"import sys, edgetam_label.cli; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


@pytest.mark.parametrize("path", CORE_FILES, ids=named)
def test_the_core_reads_no_environment(path: Path) -> None:
    if path.name in ("settings.py", "openmp.py"):
        return  # the one turns variables into arguments, the other tells OpenMP
    tree = ast.parse(path.read_text(encoding="utf-8"))
    reads = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert not reads & {"os.environ", "os.getenv"}, f"{named(path)} reads the environment"


def test_every_package_is_in_the_wheel() -> None:
    """setuptools takes an explicit list: a folder left out works when editable, then is missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    outside = {folder: name for name, folder in setuptools["package-dir"].items()}
    del outside["edgetam_label"]
    found = {
        ".".join(("edgetam_label", *folder.relative_to(CORE).parts))
        for folder in (CORE, *CORE.rglob("*"))
        if (folder / "__init__.py").is_file()
    }
    assert set(setuptools["packages"]) == found | set(outside.values())
    for folder in outside:
        assert (ROOT / folder / "__init__.py").is_file()


def test_every_data_file_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    folders = {name: ROOT / folder for name, folder in setuptools["package-dir"].items()}
    left_out = []
    for package, folder in folders.items():
        globs = setuptools["package-data"].get(package, [])
        included = {path for pattern in globs for path in folder.glob(pattern)}
        files = {path for path in folder.rglob("*") if path.is_file()}
        code = {p for p in files if p.suffix in (".py", ".pyc") or p.name.startswith(".")}
        left_out += sorted(map(named, files - code - included))
    assert not left_out


def test_no_module_without_a_noun() -> None:
    files = [*CORE_FILES, *(ROOT / "backend").glob("*.py"), *(ROOT / "exporters").glob("*.py")]
    assert not [named(p) for p in files if p.stem in ("utils", "util", "helpers", "common", "misc")]
