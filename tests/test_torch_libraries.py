"""The large library of PyTorch is opened beside other threads, not in their way."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: this one has imported torch long ago. Processor time, not time on the
# clock, is what a thread is kept from answering for: other programs may be busy, too.
PROBE = """
import sys, threading, time
from edgetam_label.backend.torch_libraries import open_ahead

longest, ended = 0.0, False

def tick():
    global longest
    last = time.process_time()
    while not ended:
        time.sleep(0.001)
        now = time.process_time()
        longest, last = max(longest, now - last), now

thread = threading.Thread(target=tick)
thread.start()
began = time.process_time()
opened = open_ahead()
took = time.process_time() - began
ended = True
thread.join()
mapped = "libtorch_cpu" in open("/proc/self/maps").read()
import torch
torch.ones(2) @ torch.ones(2)
print(opened, mapped, open_ahead(), took, longest)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_other_threads_go_on_while_it_opens() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    opened, mapped, again, took, longest = done.stdout.split()
    assert (opened, mapped, again) == ("True", "True", "False")
    assert float(longest) < 0.5 * float(took)
