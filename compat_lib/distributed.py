"""Several processes that train one model: started by torchrun, joined by torch.distributed.

Each process sends its share of a batch through the network. The embeddings are gathered with their gradient,
so that every process computes a method's terms on the whole batch, with equal queues and equal draws, and no
method knows of processes. The classifier's rows can be dealt out (Partial FC, An et al., CVPR 2022, arXiv
2203.15565). Without torchrun everything here does nothing.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

WAIT = timedelta(days=1)  # the first process measures and writes while the others wait for it


def start(device: str) -> None:
    """Join the processes that torchrun started, once; `device` "cuda" then means each process's own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    cuda = torch.device(device).type == "cuda"
    if cuda and torch.device(device).index is not None:
        raise ValueError(f"device is {device!r}, but torchrun started several processes: set it to 'cuda'")
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=WAIT)


def end() -> None:
    """Leave the other processes, at the end of a program."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """How many processes train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def agreed(value: Any) -> Any:
    """The first process's value, in all; the others wait until it comes here."""
    if world() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def any_process(*flags: bool) -> list[bool]:
    """Each flag: whether it is set in any process."""
    if world() == 1:
        return list(flags)
    shared = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.bool().tolist()


def share(count: int) -> slice:
    """This process's contiguous share of `count` rows; shares differ by one row at most."""
    return slice(count * rank() // world(), count * (rank() + 1) // world())


def shares(count: int) -> list[int]:
    """How many of `count` rows each process has by `share`."""
    ends = [count * k // world() for k in range(world() + 1)]
    return [end - begin for begin, end in zip(ends, ends[1:], strict=False)]


# -- gathering, with gradients -----------------------------------------------------------------------------


def gathered(rows: Tensor, counts: list[int] | None = None) -> Tensor:
    """The rows of all processes in their order, [sum of counts, ...]; None: all have equally many.

    The gradient of a loss that every process computes on the whole comes back for this process's rows,
    multiplied by the number of processes, because DistributedDataParallel divides by it.
    """
    if world() == 1:
        return rows
    return _Gather.apply(rows, counts or [len(rows)] * world())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        most = rows.new_zeros(max(counts), *rows.shape[1:])  # all processes must send equally much
        most[: len(rows)] = rows
        parts = [torch.empty_like(most) for _ in counts]
        dist.all_gather(parts, most)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.split(ctx.counts)[rank()] * world(), None


def summed(values: Tensor) -> Tensor:
    """The sum over the processes; each process's own values get the gradient of the sum."""
    return values if world() == 1 else _Sum.apply(values)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return _reduced(values)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def shared(values: Tensor) -> Tensor:
    """Values that are equal in all processes, each of which differentiates a part: their gradients add up."""
    values = values.view_as(values)
    if world() > 1 and values.requires_grad:
        values.register_hook(_reduced)
    return values


def largest(values: Tensor) -> Tensor:
    """The elementwise maximum over the processes, without gradient."""
    return _reduced(values, dist.ReduceOp.MAX) if world() > 1 else values.detach()


def _reduced(values: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    values = values.detach().clone()
    dist.all_reduce(values, operation)
    return values


def average_gradients(method: nn.Module, dealt: nn.Module | None) -> None:
    """Make the gradients of a method, which all processes computed from the same batch, equal to the bit.

    The parameters in `dealt`, this process's share of a classifier, keep their own. But where one process's
    are not finite, all become so: float16 then skips the step everywhere.
    """
    if world() == 1:
        return
    own = [] if dealt is None else [one for one in dealt.parameters() if one.requires_grad]
    for parameter in method.parameters():
        if parameter.grad is not None and not any(parameter is one for one in own):
            dist.all_reduce(parameter.grad)
            parameter.grad /= world()
    if own:
        total = torch.stack([one.grad.sum() for one in own]).sum()
        dist.all_reduce(total)
        for one in own:
            one.grad += 0.0 * total


# -- the network -------------------------------------------------------------------------------------------


def parallel(network: nn.Module, device: torch.device, sync_batchnorm: bool) -> nn.Module:
    """The network whose gradients are averaged over the processes; the network itself where there is one.

    With `sync_batchnorm` batch statistics are over all processes' rows; without, each normalises by its own
    rows, and the running statistics are those of the first process.
    """
    if world() == 1:
        return network
    cuda = device.type == "cuda"
    if sync_batchnorm and cuda:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    elif sync_batchnorm:  # torch's own knows GPUs only
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.forward = partial(_normalise, module)
    ids = [torch.cuda.current_device()] if cuda else None
    return nn.parallel.DistributedDataParallel(network, device_ids=ids)


def _normalise(module: nn.BatchNorm1d | nn.BatchNorm2d, rows: Tensor) -> Tensor:
    """Batch normalisation by the statistics of all processes' rows [N, C, ...], float32."""
    parameters = (module.running_mean, module.running_var, module.weight, module.bias)
    if not module.training:
        return F.batch_norm(rows, *parameters, eps=module.eps)
    dims, shape = [0, *range(2, rows.ndim)], [1, -1, *[1] * (rows.ndim - 2)]
    own = rows.float()
    count = summed(own.new_tensor([own.numel() / own.shape[1]]))
    mean = summed(shared(own.sum(dims))) / count
    centred = own - mean.view(shape)
    variance = summed(shared(centred.square().sum(dims))) / count
    with torch.no_grad():
        module.num_batches_tracked += 1
        module.running_mean.lerp_(mean, module.momentum)
        module.running_var.lerp_(variance * count / (count - 1), module.momentum)
    normed = centred * (variance + module.eps).rsqrt().view(shape)
    if module.affine:
        normed = normed * module.weight.view(shape) + module.bias.view(shape)
    return normed.to(rows.dtype)


def same_buffers(network: nn.Module) -> None:
    """Give all processes the first one's running statistics."""
    if world() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
