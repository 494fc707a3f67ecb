"""The lambda-orthogonal adapter: two maps between frozen models that meet in the old model's space."""

import torch
from torch import Tensor, nn

from compat_lib.data.images import torch_defaults
from compat_lib.evaluation.inputs import as_tensor, codes, full_precision, paired_rows
from compat_lib.losses.heads import unit_rows

ROWS_AT_ONCE = 65_536
THRESHOLD = 12.0  # lambda, how far from orthogonal the backward map may be, in the Frobenius norm
STEEPNESS = 1.0  # a, how fast the penalty sets in beyond it; not stated in the text
TEMPERATURE = 0.1  # of the contrasts; not stated in the text


class OrthogonalAdapter(nn.Module):
    """Maps of new and of old features [N, d] into one space, that of the old features as they are.

    Source: lambda-orthogonality (Ricci et al., NeurIPS 2025, arXiv 2509.16664): the backward map of new
    features is linear and nearly orthogonal, the forward map of old ones a network. A raw old feature, a
    mapped old one and a mapped new one can be compared, so that a gallery may be mapped in part. Unequal
    widths are cut to the smaller one. Deviations: inputs have unit length, since features are compared by
    their cosine; the text does not say which network the forward map is, here it has one hidden layer of 2 d
    units.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.backward_map = nn.Linear(width, width)
        self.forward_map = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def cut(self, features: Tensor) -> Tensor:
        """The first coordinates of features, float32 of unit length."""
        return unit_rows(features[:, : self.width].float())

    @torch.no_grad()
    def query(self, new) -> Tensor:
        """New features [N, d_new] as queries, float32 [N, d] of unit length."""
        return self._mapped(self.backward_map, new)

    @torch.no_grad()
    def gallery(self, old) -> Tensor:
        """Old features [N, d_old] as gallery entries, likewise."""
        return self._mapped(self.forward_map, old)

    def _mapped(self, network: nn.Module, features) -> Tensor:
        rows = as_tensor(features, "features").split(ROWS_AT_ONCE)
        with full_precision(rows[0].device):
            return torch.cat([unit_rows(network(self.cut(part))) for part in rows])


def orthogonality(weight: Tensor) -> Tensor:
    """sigmoid(a (r - lambda)) r, r the Frobenius norm of W W^T - I, of `weight` [d, d]: free up to lambda."""
    far = torch.linalg.matrix_norm(weight @ weight.T - torch.eye(len(weight)).to(weight))
    return torch.sigmoid(STEEPNESS * (far - THRESHOLD)) * far


def contrast(anchors: Tensor, others: Tensor, labels: Tensor) -> Tensor:
    """The supervised contrast of rows [B, d] with others of the same images, by cosines.

    Source: Khosla et al. (arXiv 2004.11362), as pytorch-metric-learning's SupConLoss gives it; that builds
    all pairs first, which takes several times as long.
    """
    same = labels[:, None] == labels
    likely = (unit_rows(anchors) @ unit_rows(others).T / TEMPERATURE).log_softmax(dim=1)
    return -((likely * same).sum(dim=1) / same.sum(dim=1)).mean()


def adapter_loss(adapter: OrthogonalAdapter, old: Tensor, new: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch of unit old and new features [B, d] with labels int64 [B].

    Squared distances of both maps, the penalty, and supervised contrasts of the mapped old features with the
    mapped new ones and with the old ones, all with weight 1.
    """
    carried, mapped = adapter.forward_map(old), adapter.backward_map(new)
    distances = (mapped - old).square().sum(1).mean() + (carried - mapped).square().sum(1).mean()
    contrasts = sum(contrast(carried, side, labels) for side in (mapped, old))
    return distances + orthogonality(adapter.backward_map.weight) + contrasts


@torch_defaults()
def fit_orthogonal(
    old, new, labels, *, epochs: int = 10, batch_size: int = 256, lr: float = 1e-3, seed: int = 0
) -> OrthogonalAdapter:
    """The adapter fitted to features of the same images with labels, whole numbers or names [N].

    Source: see OrthogonalAdapter; Adam at 1e-3 and lambda 12 as published. Not stated there, and our choices:
    the steepness of the penalty, the epochs and the batch. Ten epochs of a few thousand rows, as in the
    tables of this project's runs, are a few hundred steps; more lift both maps. `seed` is for the start and
    the order of the rows; the global random generator is left alone.
    """
    old, new = paired_rows(old, new, "old", "new")
    labels = torch.from_numpy(codes(labels, None, (len(old), 0), "labels")[0]).to(new.device)
    with torch.random.fork_rng(devices=[]), full_precision(new.device):
        torch.manual_seed(seed)
        adapter = OrthogonalAdapter(min(old.shape[1], new.shape[1])).to(new.device)
        adam = torch.optim.Adam(adapter.parameters(), lr=lr)
        for _ in range(epochs):
            for rows in torch.randperm(len(old)).tensor_split(max(1, len(old) // batch_size)):
                sides = adapter.cut(old[rows].to(new.device)), adapter.cut(new[rows])
                adam.zero_grad()
                adapter_loss(adapter, *sides, labels[rows]).backward()
                adam.step()
    return adapter.eval().requires_grad_(False)
