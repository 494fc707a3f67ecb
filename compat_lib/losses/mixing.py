"""Running class centres of the new model, which replace some old ones in Dual-Tuning's MixCenter."""

import torch
from torch import Tensor, nn


class RunningCentres(nn.Module):
    """Class centres that follow the features of the training, and begin at the old ones.

    Reconstruction: Dual-Tuning's published code (arXiv 2108.02959) names the variant and its constants (share
    0.5, eta 0.7, a queue of 4096) and lacks the file that uses them. Guessed: the direction of eta; that the
    mean is taken over a class's rows in the queue, the batch included; that only classes of the batch move;
    that the share is drawn anew in every step, and exactly, as in a commented fragment of that code.

    Args:
        start: [C, d] floating point, the centres at the beginning.
        eta: what a centre keeps of itself in a step, 0..1.
        queue: number of recent (feature, label) rows whose means the centres follow; 0 takes the batch alone.

    >>> centres = RunningCentres(torch.zeros(2, 1), eta=0.5, queue=4)
    >>> centres.update(torch.tensor([[4.0], [8.0]]), torch.tensor([1, 1]))
    >>> centres.running.tolist()                                     # class 1: half of 0, half of (4 + 8) / 2
    [[0.0], [3.0]]
    """

    def __init__(self, start: Tensor, *, eta: float, queue: int):
        super().__init__()
        self.eta = eta
        self.register_buffer("running", start.detach().clone())
        self.register_buffer("queue_features", start.new_zeros(queue, start.shape[1]))
        self.register_buffer("queue_labels", torch.full((queue,), -1, device=start.device))
        self.register_buffer("queue_next", torch.zeros((), dtype=torch.int64, device=start.device))

    def mixed(self, fixed: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """A table in which a share of the classes, drawn at random, has its running centre.

        Args:
            fixed: [C, d], the centres of the other classes.
            share: fraction of the C classes that are drawn, 0..1, rounded down to whole classes.
            generator: random generator on the CPU.
        Returns:
            [C, d], a new tensor.
        """
        count = int(share * len(fixed) + 1e-9)  # 0.29 * 100 is 28.999... in floating point
        drawn = torch.zeros(len(fixed), 1, dtype=torch.bool)
        drawn[torch.randperm(len(fixed), generator=generator)[:count]] = True
        return torch.where(drawn.to(fixed.device), self.running, fixed)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Puts a batch into the queue and moves the centres of its classes towards their queue means.

        Args:
            features: [B, d] floating point; of more rows than the queue holds the last ones are kept.
            labels: [B] int64, 0..C-1.
        """
        features = features.to(self.running.dtype)
        moved = torch.zeros(len(self.running), dtype=torch.bool, device=labels.device)
        moved[labels] = True
        size = len(self.queue_labels)
        if size > 0:
            features, labels = features[-size:], labels[-size:]
            places = (self.queue_next + torch.arange(len(labels), device=labels.device)) % size
            self.queue_features[places], self.queue_labels[places] = features, labels
            self.queue_next.copy_((self.queue_next + len(labels)) % size)
            features, labels = self.queue_features, self.queue_labels
        classes, width = self.running.shape
        counts = torch.bincount(labels + 1, minlength=classes + 1)[1:, None]  # empty places have label -1
        sums = features.new_zeros(classes + 1, width).index_add_(0, labels + 1, features)[1:]
        means = sums / counts.clamp(min=1)
        moved = moved[:, None] & (counts > 0)
        self.running.copy_(torch.where(moved, torch.lerp(means, self.running, self.eta), self.running))
