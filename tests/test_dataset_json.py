"""Streaming JSON: the same values as the json module, with lines, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetam_label.errors import ExportError
from edgetam_label.exporters import dataset_json
from edgetam_label.exporters.dataset_json import load_json, read_items

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


def rebuilt(path: Path) -> Any:
    """The whole value from its items."""
    members: dict[str, Any] = {}
    for item in read_items(path):
        if item.index is None:
            members[item.key] = item.value
        else:
            entries = members.setdefault(item.key, [])
            if item.index >= 0:
                assert item.index == len(entries)
                entries.append(item.value)
    return members


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5), st.sampled_from([None, 0, 2]))
def test_items_are_those_of_the_json_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: dict[str, Any], indent: int | None
) -> None:
    path = tmp_path / "value.json"
    path.write_text(json.dumps(value, indent=indent), encoding="utf-8")
    # Tiny chunks, so that numbers, escapes and words are cut everywhere.
    monkeypatch.setattr(dataset_json, "_CHUNK", 3)
    assert rebuilt(path) == value


def test_a_list_has_items_without_a_key(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('[1,\n {"a": 2},\n\n "x"]\n', encoding="utf-8")
    items = list(read_items(path))
    assert [(i.index, i.value, i.line) for i in items] == [(0, 1, 1), (1, {"a": 2}, 2), (2, "x", 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n"b": [1,\n2,,3]}', "line 3: Expecting value"),
        ('{"a": 1\n"b": 2}', "line 2: expected ','"),
        ('{"a": 1,\n\n"b": {"c": \n nope}}', "line 4: Expecting value"),
        ('{"a": [1, 2', "line 1: expected ',', found 'the end of the file'"),
        ("{}\n{}", "line 2: text after the end"),
        ("17", "expected an object or a list"),
        ("", "expected an object or a list"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match=message):
        list(read_items(path))


def test_files_that_are_no_utf8_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes('{"a": "ä"}'.encode("latin-1"))
    for read in (load_json, lambda p: list(read_items(p))):
        with pytest.raises(ExportError, match="is not UTF-8"):
            read(path)
        with pytest.raises(ExportError, match="cannot be read"):
            read(tmp_path / "nowhere.json")


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    entry = json.dumps({"id": 1, "counts": "x" * 400})
    with path.open("w", encoding="ascii") as file:
        file.write('{"annotations":[' + entry)
        for _ in range(40_000):
            file.write(",\n" + entry)
        file.write("]}")
    tracemalloc.start()
    count = sum(1 for _ in read_items(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40_001
    assert peak < 8_000_000 < path.stat().st_size
