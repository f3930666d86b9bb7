"""Where an ascent ends, fooled or not: what adversarial training trains on."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.attacks.engine import Ask, Rows, Seen
from calipers.attacks.losses import Loss, find_loss
from calipers.attacks.pgd import PGD
from calipers.errors import BadInput
from calipers.models import Classifier, as_they_were, faster, public
from calipers.threats import Threat

__all__ = ["climb"]


@public
def climb(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int,
    step_size: float | None = None,
    loss: str | Loss = "ce-raw",
    random_start: bool = True,
    raw: bool = False,
    start: Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
) -> Tensor:
    r"""The last iterate of :func:`calipers.attacks.pgd`'s ascent, z ≈ argmax_{z ∈ ball ∩ box} loss(model(z), y).

    The same steps as the attack, without what an attack does besides: no example leaves early, nothing is judged, and
    nothing waits for a number from a GPU. On the CPU the ascent ends where the gradient is exactly 0 for every example,
    as on a dead network: all later steps would stand still. The module runs in eval mode and is left as it was found,
    so that the statistics of batch normalisation do not see the iterates.

    Arguments:
        model: the classifier; its module may be in train mode.
        x: inputs in the model's box, shape (N, \*shape).
        y: labels, shape (N,).
        threat: norm and one eps.
        steps, step_size, loss, random_start, raw: as for :func:`calipers.attacks.pgd`; ``loss`` may be any function
            of what the model returns for the batch, in the order of the batch.
        start: begin here instead, shape as ``x``.
        seed, index: random draws are a function of (seed, index) alone.

    Returns:
        points inside ball ∩ box, shape as ``x``.

    Example:
        >>> net = torch.nn.Linear(2, 2)
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> climb(model, torch.tensor([[0.5, 0.5]]), torch.tensor([0]), Threat("linf", 0.25), steps=5).tolist()
        [[0.25..., 0.74...]]
    """
    if len(threat.ladder) != 1:
        raise BadInput("eps to climb to", expected="one radius", got=threat.eps)
    n = len(x)
    method = PGD(find_loss(loss), steps, step_size=step_size, random_start=random_start and start is None, raw=raw)
    zero = torch.zeros(n, dtype=torch.int64, device=x.device)
    ones = torch.ones(n, dtype=x.dtype, device=x.device)
    named = torch.arange(n, device=x.device) if index is None else index.to(x.device)
    rows = Rows(z=x, x=x, y=y, index=named, k=zero, attempt=zero, target=zero - 1, eps=ones * threat.ladder[0])
    rows.scale = ones
    ask = Ask(faster(model), threat, seed, restarts=1)
    with as_they_were(model.module):
        method.start(ask, rows)
        if start is not None:
            rows.z = start
        for _ in range(steps):
            seen = _seen(method, ask.model, rows)
            method.step(ask, rows, seen)
            rows.k = rows.k + 1
            # Asking a GPU would stop the queue of its kernels at every step.
            if seen.grad.device.type == "cpu" and not seen.grad.any():
                break
    return rows.z.detach()


def _seen(method: PGD, model: Classifier, rows: Rows) -> Seen:
    z = rows.z.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(z)
        value = method.loss(logits, rows.y, rows.target, rows.scale)
        (grad,) = torch.autograd.grad(value.sum(), z)
    return Seen(logits.detach(), value.detach(), grad, torch.zeros_like(rows.k, dtype=torch.bool))
