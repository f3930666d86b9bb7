"""The laws every attack must pass. A new attack adds one Contract and inherits them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from calipers.attacks import (
    AttackResult,
    apgd,
    cw,
    ddn,
    deepfool,
    ead,
    fab,
    fgsm,
    fmn,
    hopskipjump,
    linear,
    mifgsm,
    nes,
    noise,
    pgd,
    sigma_zero,
    spsa,
    square,
    superdeepfool,
    zoo,
)
from calipers.models import Classifier
from calipers.threats import NORMS, Norm

__all__ = ["CONTRACTS", "Contract", "small_net"]


@dataclass(frozen=True)
class Contract:
    """What an attack promises.

    Arguments:
        name: for the test's id.
        attack: with a budget that suits small inputs.
        norms: what it takes.
        minimal: it seeks the minimal distortion itself; the others are asked at a fixed eps.
        tight: on affine models of two classes, without a binding box, it succeeds within (1 + tight) of the exact
            distance; None promises nothing.
        many: the same for three classes and more, where the nearest class must be found first.
        affine_only: it refuses other models.
        blind: a random search, which promises nothing where every coordinate must move the right way at once.
    """

    name: str
    attack: Callable[..., AttackResult]
    norms: tuple[Norm, ...] = ("linf", "l2", "l1")
    minimal: bool = False
    tight: float | None = None
    many: float | None = None
    affine_only: bool = False
    blind: bool = False

    def __str__(self) -> str:
        return self.name


CONTRACTS = (
    Contract("fgsm", fgsm, ("linf", "l2"), tight=1e-6),
    Contract("pgd-margin", partial(pgd, steps=40), NORMS, tight=0.06),
    Contract("pgd-ce", partial(pgd, steps=40, loss="ce"), tight=0.06),
    Contract("pgd-dlr", partial(pgd, steps=40, loss="dlr"), tight=0.06),
    Contract("pgd-targeted", partial(pgd, steps=40, targets=9), tight=0.06, many=0.06),
    Contract("pgd-raw", partial(pgd, steps=40, raw=True, step_size=0.1), ("l2",), tight=1e-6),
    Contract("apgd-ce", partial(apgd, steps=40, loss="ce"), ("linf", "l2"), tight=1e-6),
    Contract("apgd-dlr", partial(apgd, steps=40, loss="dlr"), ("linf", "l2"), tight=1e-6),
    Contract("apgd-l1", partial(apgd, steps=40, loss="margin"), ("l1",), tight=1e-6),
    Contract(
        "apgd-dlr-targeted", partial(apgd, steps=40, targets=9, loss="dlr"), ("linf", "l2"), tight=1e-6, many=1e-6
    ),
    Contract("fmn", partial(fmn, steps=100), NORMS, minimal=True, tight=1e-5, many=0.2),
    Contract("mifgsm", mifgsm, tight=0.06),
    Contract("ddn", partial(ddn, steps=100), ("l2",), minimal=True, tight=1e-3, many=0.05),
    Contract("fab", partial(fab, steps=20, targets=0), minimal=True, tight=1e-3, many=1e-3),
    Contract("fab-targeted", partial(fab, steps=20, targets=9), minimal=True, tight=1e-3, many=1e-3),
    Contract("deepfool", deepfool, minimal=True, tight=1e-5, many=1e-5),
    Contract("superdeepfool", superdeepfool, minimal=True, tight=1e-5, many=1e-5),
    Contract("cw", partial(cw, steps=240, rounds=6), ("l2",), minimal=True, tight=0.03, many=0.05),
    Contract("ead", partial(ead, steps=180, rounds=6), ("l1",), minimal=True, tight=0.3),
    Contract("sigma-zero", partial(sigma_zero, steps=40), ("l0",), minimal=True),
    Contract("linear", linear, NORMS, minimal=True, tight=1e-9, many=1e-9, affine_only=True),
    Contract("noise", partial(noise, steps=20), NORMS, blind=True),
    Contract("noise-bernoulli", partial(noise, steps=20, kind="bernoulli"), NORMS, blind=True),
    Contract("square", partial(square, steps=20), blind=True),
    Contract("hopskipjump", partial(hopskipjump, steps=200, samples=10), ("linf", "l2"), minimal=True, tight=0.5),
    Contract("spsa", partial(spsa, steps=3, samples=4), ("linf", "l2")),
    Contract("nes", partial(nes, steps=3, samples=4), ("linf", "l2")),
    Contract("zoo", partial(zoo, steps=6, coordinates=4), ("linf", "l2")),
)


def small_net(shape: tuple[int, ...], classes: int, dtype: torch.dtype, seed: int = 0) -> Classifier:
    """A random ReLU network with weights drawn from a generator of its own."""
    g = torch.Generator().manual_seed(seed)
    d = int(torch.tensor(shape).prod())
    with torch.random.fork_rng():
        net = nn.Sequential(nn.Flatten(), nn.Linear(d, 16), nn.ReLU(), nn.Linear(16, classes)).to(dtype).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) / p.shape[-1] ** 0.5)
    return Classifier.of(net, shape=shape, name="small net")


def examples(model: Classifier, n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs in the box, some coordinates exactly on it, with the labels the model gives them."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *model.shape, generator=g, dtype=torch.float64)
    x = torch.where(torch.rand(x.shape, generator=g) < 0.2, x.round(), x).to(model.dtype)
    with torch.no_grad():
        return x, model(x).argmax(1)
