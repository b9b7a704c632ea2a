"""PyTorch's large library, opened before `import torch` would open it.

Python keeps its global lock while an import opens a shared library, and this one takes a quarter of
a second of a processor, on a busy machine several times that: nothing else is answered meanwhile,
and Label Studio gives /health one second. A foreign function called by ctypes runs without the
lock; the import then finds the library there.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

logger = logging.getLogger(__name__)

NAMES = ("libtorch_cpu.so", "libtorch_cpu.dylib")


def open_ahead() -> bool:
    """True once the library is open. Where it cannot be opened, the import does it as always."""
    spec = find_spec("torch")
    if os.name != "posix" or "torch" in sys.modules or spec is None or spec.origin is None:
        return False
    folder = Path(spec.origin).parent / "lib"
    path = next((folder / name for name in NAMES if (folder / name).exists()), None)
    if path is None:
        return False
    try:
        # not ctypes.CDLL(path), which opens with the lock held
        dlopen = ctypes.CDLL(None).dlopen
    except (OSError, AttributeError):
        return False
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    # local, as the import itself opens it: its symbols must not reach other libraries
    opened = dlopen(os.fsencode(path), os.RTLD_LAZY | os.RTLD_LOCAL) is not None
    logger.debug("%s %s", path, "opened" if opened else "could not be opened")
    return opened
