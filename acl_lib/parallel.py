"""Several processes that train one network: each sees its part of a batch, all compute one loss.

For instance, on two GPUs:

    torchrun --nproc_per_node=2 -m acl_lib run acl --corpus esc10 --profile gpu

A loss of contrasts needs every pair of the batch, so rows are gathered with their gradient, and
BatchNorm takes its statistics over all processes: what comes out is the training of one process
with the whole batch. Alone, every function here does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

PATIENCE = timedelta(
    days=7
)  # all others wait while the first probes; torchrun ends them if it dies
_alone = False


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the processes that torchrun has started, if it has; each keeps to a GPU of its own.

    Args:
        device: "cpu", "cuda" or "auto".

    Raises:
        ValueError: more processes than GPUs.
    """
    if dist.is_initialized() or not dist.is_torchelastic_launched():
        yield
        return
    mine, gpu = int(os.environ["LOCAL_RANK"]), device != "cpu" and torch.cuda.is_available()
    if gpu:
        if mine >= torch.cuda.device_count():
            raise ValueError(
                f"process {mine + 1} of this machine finds {torch.cuda.device_count()} GPUs: start "
                "as many with --nproc_per_node"
            )
        torch.cuda.set_device(mine)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def ranks() -> int:
    """The number of processes that work together now."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def is_first() -> bool:
    """Whether this process is the one that writes, prints and evaluates."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What the first process does by itself, as if there were no others."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


@contextlib.contextmanager
def first_ahead() -> Iterator[None]:
    """The first process does what follows before all others do: it makes what they find."""
    if ranks() > 1 and not is_first():
        dist.barrier()
    yield
    if ranks() > 1 and is_first():
        dist.barrier()


def from_first(make: Callable[[], object]) -> object:
    """What a function gives in the first process, in all; the others wait and do not call it."""
    if ranks() == 1:
        return make()
    told = [None]
    if is_first():
        with alone():
            told = [make()]
    dist.broadcast_object_list(told)
    return told[0]


def total(number: float) -> float:
    """The sum of a number over all processes."""
    if ranks() == 1:
        return number
    told = [None] * ranks()
    dist.all_gather_object(told, number)
    return sum(told)


def divisible(ids: int) -> int:
    """The largest number up to this one that all processes can share equally."""
    return ids - ids % ranks()


def my_part(ids: Int[Tensor, " B"]) -> Int[Tensor, " b"]:
    """The ids of a batch that this process sees, one of equal parts in the order of the ranks."""
    return ids if ranks() == 1 else ids.chunk(ranks())[dist.get_rank()]


def gather(x: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "B ..."]:
    """The rows of all processes in the order of the ranks, with their gradient.

    Every process is to compute the same loss of them: then each can take the gradient of its own
    rows without asking the others. It is multiplied by their number, because
    `DistributedDataParallel` takes the mean of what is a sum.
    """
    return x if ranks() == 1 else _Gather.apply(x)


@contextlib.contextmanager
def own_draws(generator: torch.Generator) -> Iterator[None]:
    """Random draws that differ between processes; afterwards the generator is again in step.

    The seeds come from the generator, whose state alone is to be kept: it is the same in all
    processes, whatever their number.
    """
    if ranks() == 1:
        yield
        return
    device = generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device)) + dist.get_rank()
    in_step = generator.get_state()
    generator.manual_seed(seed)
    torch.manual_seed(seed)  # dropout draws from it
    yield
    generator.set_state(in_step)


@contextlib.contextmanager
def synchronised(*modules: nn.Module) -> Iterator[None]:
    """The BatchNorm inside modules sees the batches of all processes, while they are trained."""
    inside = [part for module in modules for part in module.modules()]
    plain = {part: type(part) for part in inside if isinstance(part, _BatchNorm)}
    if ranks() > 1:
        for part in plain:  # which has the same parameters and buffers
            part.process_group = None  # all processes
            part.__class__ = nn.SyncBatchNorm if part.weight.is_cuda else _SyncBatchNorm
    yield
    for part, kind in plain.items():
        part.__class__ = kind


def replica(module: nn.Module) -> nn.Module:
    """The module as a step is to call it: its gradients become the mean over all processes."""
    if ranks() == 1:
        return module
    gpu = [torch.cuda.current_device()] if next(module.parameters()).is_cuda else None
    return nn.parallel.DistributedDataParallel(module, device_ids=gpu, broadcast_buffers=False)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        parts = [torch.empty_like(x) for _ in range(ranks())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, slope):
        return my_part(slope) * ranks()


class _SyncBatchNorm(_BatchNorm):
    """BatchNorm over equal parts of a batch; torch's own refuses to work on a processor."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps)
        count = ranks() * x.numel() // x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        # of this part; its output is not used, but no other function is as quick on channels_last
        _, mean, steep = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        mine = torch.stack([mean, steep**-2 - eps])
        every = [torch.empty_like(mine) for _ in range(ranks())]
        dist.all_gather(every, mine)
        means, variances = torch.stack(every).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx, slope, *_):
        x, weight, mean, variance = ctx.saved_tensors
        # as if mean and variance were given; what they owe to x comes off below
        grad, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            slope, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        both = torch.stack([of_bias, of_weight])  # sums of the slope, alone and times x normalised
        dist.all_reduce(both)
        shift, tilt = both * x.shape[1] / (ranks() * x.numel())
        steep = (variance + ctx.eps).rsqrt()
        by = tilt * steep
        shape = -1, *[1] * (x.ndim - 2)
        off = x * (weight * steep * by).view(shape)
        grad -= off.add_((weight * steep * (shift - mean * by)).view(shape))
        return grad, of_weight, of_bias, None
