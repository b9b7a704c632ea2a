"""`dataset validate`: does a folder keep every rule that the readers of its format rely on?

Each format has a module `dataset_validate_<format>` with `check(folder)`, a generator of findings,
and `RULES`, the list of what it looks at. Every finding names the file, the line or id, the value
seen and what the rule wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from edgetam_label.errors import ExportError, UsageError

from .dataset_findings import ERROR, WARNING, Finding
from .formats import find_format

Check = Callable[[Path], Iterator[Finding]]
COMMON_RULES = {
    "readable": "every file can be opened and parsed",
    "manifest.json": "manifest.json is JSON",
    "manifest.files": "every file of the manifest is there, with its size and sha256",
}


@dataclass(frozen=True)
class ValidationReport:
    """findings: at most `limit` of them; errors and warnings count all."""

    format: str
    folder: Path
    findings: tuple[Finding, ...]
    errors: int
    warnings: int
    rules: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "folder": str(self.folder),
            "errors": self.errors,
            "warnings": self.warnings,
            "rules": dict(self.rules),
            "findings": [finding.to_json() for finding in self.findings],
        }


def validate(format_name: str, folder: Path, *, limit: int = 200) -> ValidationReport:
    """Check every rule of a format on a folder.

    limit: findings kept; the rest is only counted. Raises UsageError for an unknown format or a
    folder that does not exist; everything wrong inside the folder is a finding.
    """
    entry = find_format(format_name)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the folder of a {entry.name} dataset.")
    module, rules = _module(entry.name), rules_of(entry.name)
    kept: list[Finding] = []
    errors = warnings = 0
    for finding in chain(_guarded(module.check, folder), _check_manifest(folder)):
        assert finding.rule in rules, finding.rule
        errors += finding.severity == ERROR
        warnings += finding.severity == WARNING
        if len(kept) < limit:
            kept.append(finding)
    return ValidationReport(entry.name, folder, tuple(kept), errors, warnings, rules)


def rules_of(format_name: str) -> dict[str, str]:
    """What is checked, in words, by rule."""
    return {**_module(find_format(format_name).name).RULES, **COMMON_RULES}


def _module(name: str) -> Any:
    return import_module(f".dataset_validate_{name}", __package__)


def _guarded(check: Check, folder: Path) -> Iterator[Finding]:
    """A file that cannot be read at all is a finding as well, and the last one."""
    try:
        yield from check(folder)
    except ExportError as error:
        yield Finding("readable", str(folder), str(error))


def _check_manifest(folder: Path) -> Iterator[Finding]:
    """Files changed or lost since the export wrote them, if it was one of ours."""
    from .dataset_json import load_json

    path = folder / "manifest.json"
    if not path.is_file():
        return
    try:
        manifest = load_json(path)
    except ExportError as error:
        yield Finding("manifest.json", "manifest.json", str(error))
        return
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        yield Finding("manifest.json", "manifest.json", "has no object of files")
        return
    for name, expected in sorted(files.items()):
        file = folder / name
        if not file.is_file():
            yield Finding("manifest.files", name, "is listed in manifest.json but missing")
        elif file.stat().st_size != expected.get("bytes"):
            yield Finding(
                "manifest.files",
                name,
                f"has {file.stat().st_size} bytes, manifest.json says {expected.get('bytes')}",
            )
        elif sha256_of(file) != expected.get("sha256"):
            yield Finding("manifest.files", name, "differs from the sha256 in manifest.json")


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
