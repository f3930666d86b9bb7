"""Around one input every differentiable classifier is nearly affine: its local hyperplane, and the distance to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.errors import BadInput
from calipers.geometry.affine import Hyperplane
from calipers.geometry.labels import classifier, examples
from calipers.models import Classifier

__all__ = ["LocalLinear", "local_linear"]


@dataclass(frozen=True, eq=False)
class LocalLinear:
    r"""The first-order classifier at every input; exact inside the linear region of a ReLU network.

    Arguments:
        distance: d(x) = min over j ≠ c of (z_c − z_j) / ‖∇(z_c − z_j)‖₂, shape (N,); negative where j beats c; inf
            where no class has a gradient of its own.
        rival: the class j that attains it, shape (N,).
        score: s(x) = z_c − z_rival, shape (N,). gradient: ∇s, shape (N, \*shape). So score = ‖gradient‖ · distance.
        bias: s(x) − ∇s·x, shape (N,): the local classifier is z → ∇s·z + bias.
    """

    distance: Tensor
    rival: Tensor
    score: Tensor
    gradient: Tensor
    bias: Tensor

    def plane(self, i: int) -> Hyperplane:
        """The local hyperplane at example i, positive on the side of its class c: its tilt, projected, mirror images.

        Raises:
            BadInput: where the classifier is flat: there is no boundary.
        """
        return Hyperplane(self.gradient[i].flatten().double().cpu().numpy(), float(self.bias[i]))


def local_linear(model: Classifier, x: Tensor, y: Tensor | None = None) -> LocalLinear:
    r"""s(x) = ‖∇s(x)‖ d(x), by K gradients; a first-order estimate, never a bound, unless the model is affine.

    A pair whose difference has no gradient (a saturated network) is infinitely far, not at distance 0, unless the
    rival is ahead or level: then the distance is 0 at most, and −inf stands for "wrong, and flat".

    Arguments:
        model: any differentiable classifier. x: inputs (N, \*shape). y: the class c of each; the predicted if None.

    Raises:
        BadInput: as ``Classifier.check``; or if the model gives no gradient.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]]), "bias": torch.zeros(2)})
        >>> found = local_linear(Classifier.of(net, shape=(2,)), torch.tensor([[1.0, 0.5]], dtype=torch.float64))
        >>> found.distance.tolist(), found.rival.tolist(), found.plane(0).mirror([[1.0, 0.5]]).round(2).tolist()
        ([0.2], [1], [[0.76, 0.82]])
    """
    examples(x, *([] if y is None else [y]))
    known = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    inputs, labels = classifier(model).check(x.detach(), known)
    with model.frozen():
        if y is None:
            with torch.no_grad():
                labels = model(inputs).argmax(1)
        z = inputs.clone().requires_grad_()
        with torch.enable_grad():
            logits = model(z)
            if not logits.requires_grad:
                raise BadInput(model.name, expected="a classifier with gradients", got="scores without any")
            jacobian = torch.stack([torch.autograd.grad(logits[:, k].sum(), z, retain_graph=True)[0]
                                    for k in range(model.classes)], 1)  # fmt: skip
    rows, logits = torch.arange(len(x), device=z.device), logits.detach()
    scores = logits[rows, labels][:, None] - logits
    differences = jacobian[rows, labels][:, None] - jacobian
    distances = scores / differences.flatten(2).norm(dim=2)
    # 0/0: level and flat, so the rival is met at once.
    distances = distances.nan_to_num(0.0, torch.inf, -torch.inf)
    distances[rows, labels] = torch.inf
    rival = distances.argmin(1)
    rival = torch.where(rival == labels, (labels + 1) % model.classes, rival)
    score, gradient = scores[rows, rival], differences[rows, rival]
    bias = score - (gradient * inputs).flatten(1).sum(1)
    return LocalLinear(distances[rows, rival], rival, score, gradient, bias)
