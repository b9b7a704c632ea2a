"""Data-parallel training on one machine: one single-threaded process per core.

On a CPU that others use as well, two processes that meet once per step are much faster than one
process with two threads that meet in every operation.
"""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessException, spawn

from edgetam_label.errors import EdgeTAMLabelError

TOLD = "error-"  # files in which a process leaves the error that ended it


class Ranks:
    """This process among `size` equal ones; a lone process needs no communication."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def average_gradients(self, model: nn.Module, extra: Tensor) -> Tensor:
        """Average all gradients, in place, and `extra` (N,), which is returned."""
        if self.size == 1:
            return extra
        parameters = list(model.parameters())
        used = torch.tensor([float(p.grad is not None) for p in parameters])
        dist.all_reduce(used)  # a step without a mask prompt here may have one elsewhere
        for parameter, count in zip(parameters, used.tolist(), strict=True):
            if parameter.grad is None and count > 0:
                parameter.grad = torch.zeros_like(parameter)
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in grads), extra.to(grads[0].device, grads[0].dtype)])
        dist.all_reduce(flat)
        flat /= self.size
        at = 0
        for grad in grads:
            grad.copy_(flat[at : at + grad.numel()].view_as(grad))
            at += grad.numel()
        return flat[at:].to(extra)

    def average_buffers(self, model: nn.Module) -> None:
        """Average the floating-point buffers, such as batch statistics."""
        if self.size == 1:
            return
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(flat)
        flat /= self.size
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    def total(self, numbers: Tensor) -> Tensor:
        """The sum of all processes' `numbers`, which it overwrites."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


def run_ranks(size: int, work: Callable[[Ranks], None]) -> None:
    """Run `work` in `size` processes (picklable, if there are several); errors are raised here.

    SIGTERM and Ctrl-C are passed on to them, so that they save and end. An EdgeTAMLabelError of
    theirs is raised here as it was there.
    """
    if size == 1:
        work(Ranks())
        return
    with tempfile.TemporaryDirectory() as folder:
        context = spawn(_work, (size, folder, work), size, join=False)
        assert context is not None

        def forward(signum: int, frame: FrameType | None) -> None:
            for pid in context.pids():
                os.kill(pid, signal.SIGTERM)

        before = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not context.join():
                pass
        except ProcessException as error:
            told = sorted(Path(folder).glob(f"{TOLD}*"))
            if told:
                raise pickle.loads(told[0].read_bytes()) from error
            raise
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def _work(rank: int, size: int, folder: str, work: Callable[[Ranks], None]) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{Path(folder) / 'meet'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    try:
        work(Ranks(rank, size))
    except EdgeTAMLabelError as error:
        (Path(folder) / f"{TOLD}{rank}").write_bytes(pickle.dumps(error))
        raise
    finally:
        dist.destroy_process_group()
