"""Large JSON files read item by item, each with the line it stands on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgetam_label.errors import ExportError

_CHUNK = 1 << 18
_AFTER_VALUE = frozenset(",:]} \t\r\n")


@dataclass(frozen=True)
class JsonItem:
    """One value of a JSON file.

    key: the member of the top-level object it belongs to; "" if the file is a list.
    index: position in that member's list or None for a member that is not a list.
    line: 1-based line where the value begins.
    """

    key: str
    index: int | None
    value: Any
    line: int


def read_items(path: Path) -> Iterator[JsonItem]:
    """Every member of the top-level object (or list); members that are lists, entry by entry.

    Memory holds one value at a time, so a file of any size can be checked. An empty list yields
    one item with index -1 and value None, so that it can be told from an absent one.
    Raises ExportError naming file and line where the file is not JSON in UTF-8.
    """
    with _Scanner(path) as scanner:
        opening = scanner.peek()
        if opening == "[":
            yield from _list_items(scanner, "")
        elif opening == "{":
            yield from _members(scanner)
        else:
            raise scanner.error("expected an object or a list")
        if scanner.peek():
            raise scanner.error("text after the end of the JSON value")


def load_json(path: Path) -> Any:
    """A whole (small) JSON file. Raises ExportError naming file and line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ExportError(f"{path} is not UTF-8 at byte {error.start}.") from error
    except json.JSONDecodeError as error:
        raise ExportError(f"{path}, line {error.lineno}: {error.msg}.") from error


def _members(scanner: _Scanner) -> Iterator[JsonItem]:
    scanner.take("{")
    first = True
    while scanner.peek() != "}":
        if not first:
            scanner.take(",")
        first = False
        key = scanner.value()
        if not isinstance(key, str):
            raise scanner.error("expected the name of a member")
        scanner.take(":")
        if scanner.peek() == "[":
            yield from _list_items(scanner, key)
        else:
            line = scanner.line
            yield JsonItem(key, None, scanner.value(), line)
    scanner.take("}")


def _list_items(scanner: _Scanner, key: str) -> Iterator[JsonItem]:
    scanner.take("[")
    index = 0
    while scanner.peek() != "]":
        if index:
            scanner.take(",")
            scanner.peek()
        line = scanner.line
        yield JsonItem(key, index, scanner.value(), line)
        index += 1
    if not index:
        yield JsonItem(key, -1, None, scanner.line)
    scanner.take("]")


class _Scanner:
    """A window over the text that moves forward; `line` is where it begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False
        self.line = 1
        self._file: IO[str] | None = None

    def __enter__(self) -> _Scanner:
        try:
            self._file = self._path.open(encoding="utf-8", newline="")
        except OSError as error:
            raise ExportError(f"{self._path} cannot be read: {error.strerror}.") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def peek(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character not in " \t\r\n":
                    return character
                self._move(self._at + 1)
            if not self._more(_CHUNK):
                return ""

    def take(self, expected: str) -> None:
        found = self.peek()
        if found != expected:
            raise self.error(f"expected {expected!r}, found {found or 'the end of the file'!r}")
        self._move(self._at + 1)

    def value(self) -> Any:
        """The next value, reading on until it is complete."""
        self.peek()
        wanted = _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                line = self.line + self._text.count("\n", self._at, error.pos)
                if self._more(wanted):
                    wanted *= 2
                    continue
                raise ExportError(f"{self._path}, line {line}: {error.msg}.") from error
            # A number may go on in the next chunk: "1" or "10." at the end of the window.
            if self._text[end : end + 1] not in _AFTER_VALUE and self._more(wanted):
                continue
            self._move(end)
            return value

    def error(self, message: str) -> ExportError:
        return ExportError(f"{self._path}, line {self.line}: {message}.")

    def _move(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self, size: int) -> bool:
        if self._ended or self._file is None:
            return False
        try:
            chunk = self._file.read(size)
        except UnicodeDecodeError as error:
            raise ExportError(
                f"{self._path} is not UTF-8 after line {self.line}: {error.reason}."
            ) from error
        self._ended = not chunk
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)
