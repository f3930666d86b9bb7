"""The lower jaw: ratios to an attack and seconds on MNIST networks, a certified network, and a large one's memory."""

from __future__ import annotations

import resource
import time
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calipers.attacks import apgd, fab, fmn
from calipers.certificates import branch, clever, crown, interval, lipschitz, local_lipschitz
from calipers.data import load
from calipers.models import Classifier
from calipers.threats import Norm, Threat

__all__ = ["main"]

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
# The radius of the balls that CLEVER draws from, beyond the distances of the attack.
CLEVER = {"linf": 0.3, "l2": 2.0, "l1": 10.0}


def _draw(net: nn.Module, g: torch.Generator) -> nn.Module:
    """torch's usual initialisation, uniform within 1/√fan-in, from a generator of our own."""
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                side = layer.weight[0].numel() ** -0.5
                for p in (layer.weight, layer.bias):
                    p.copy_((2 * torch.rand(p.shape, generator=g) - 1) * side)
    return net


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def _worst(net: nn.Sequential, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The logits that interval arithmetic fears most: the label's lower, all others' upper."""
    middle = ((x + eps).clamp_max(1) + (x - eps).clamp_min(0)) / 2
    half = (x + eps).clamp_max(1) - middle
    for layer in net:
        if isinstance(layer, nn.Linear):
            middle, half = layer(middle), half @ layer.weight.abs().T
        elif isinstance(layer, nn.Conv2d):
            middle, half = layer(middle), F.conv2d(half, layer.weight.abs(), None, layer.stride, layer.padding)
        else:
            low, high = layer(middle - half), layer(middle + half)
            middle, half = (low + high) / 2, (high - low) / 2
    return (middle + half).scatter(1, y[:, None], (middle - half).gather(1, y[:, None]))


def _fit(net: nn.Sequential, epochs: int, eps: float = 0.0, images: int = 60_000) -> nn.Sequential:
    """Adam; with eps > 0 on the mean of clean and worst-case losses, eps growing over the first half."""
    g, train = torch.Generator().manual_seed(0), load("mnist", split="train")
    x, y = train.x[:images], train.y[:images]
    _draw(net, g)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    steps = epochs * (len(x) // 128 + 1)
    for step in range(steps):
        some = torch.randint(len(x), (128,), generator=g)
        loss = F.cross_entropy(net(x[some]), y[some])
        if eps:
            now = eps * min(1.0, 2 * step / steps)
            loss = (loss + F.cross_entropy(_worst(net, x[some], y[some], now), y[some])) / 2
        adam.zero_grad()
        loss.backward()
        adam.step()
    return net.eval()


def _examples(model: Classifier, count: int) -> tuple[Tensor, Tensor, float]:
    test = load("mnist", split="test")
    with torch.no_grad():
        right = model(test.x).argmax(1) == test.y
    some = right.nonzero()[:count, 0]
    return test.x[some], test.y[some], float(right.double().mean())


def ratios(widths: tuple[int, ...], examples: int = 20, seconds: float = 3.0) -> None:
    """Median of lower / attack's upper on the first correctly classified test images, and seconds for each image."""
    model = Classifier.of(_fit(_mlp(widths), epochs=8), shape=(1, 28, 28))
    x, y, accuracy = _examples(model, examples)
    print(f"{'-'.join(map(str, widths))}, clean accuracy {accuracy:.3f}, {examples} images")
    for norm in NORMS:
        # FMN alone is up to twice too far on a third of these images, and the ratio would measure the attack.
        upper = fmn(model, x, y, Threat(norm), steps=500).better(fab(model, x, y, Threat(norm))).distance
        for name, run in (
            ("product", lambda n: lipschitz(model, x, y, n, constants="product")),
            ("partial", lambda n: lipschitz(model, x, y, n)),
            ("sdp", lambda n: lipschitz(model, x, y, n, constants="sdp")),
            ("local", lambda n: local_lipschitz(model, x, y, n)),
            ("clever", lambda n: clever(model, x, y, n, batches=10, samples=32, radius=CLEVER[n])),
            ("interval", lambda n: interval(model, x, y, n)),
            ("crown", lambda n, u=upper: crown(model, x, y, n, upper=u)),
            ("branch", lambda n, u=upper: branch(model, x, y, n, upper=u, seconds=seconds)),
        ):
            start = time.perf_counter()
            radius = run(norm).radius
            each = (time.perf_counter() - start) / len(x)
            share = radius / upper
            # CLEVER is an estimate; all others are proofs.
            assert name == "clever" or (share <= 1).all()
            print(f"  {norm:5}{name:10}{float(share.median()):6.3f}  (least {float(share.min()):.3f})  {each:.4f} s")


def certified_training(eps: float = 0.1, images: int = 500) -> None:
    """A small CNN trained with interval bounds: CROWN's certified accuracy beside PGD's robust accuracy."""
    net = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2), nn.ReLU(), nn.Conv2d(8, 16, 4, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    model = Classifier.of(_fit(net, epochs=3, eps=eps), shape=(1, 28, 28))
    test = load("mnist", split="test")
    x, y = test.x[:images], test.y[:images]
    attacked = apgd(model, x, y, Threat("linf", eps), steps=50, loss="dlr").distance
    right = attacked > 0
    start, radius = time.perf_counter(), torch.zeros(images, dtype=torch.float64)
    plain = interval(model, x, y, "linf").radius
    radius[right] = crown(model, x[right], y[right], "linf", upper=torch.full_like(attacked[right], 1.05 * eps)).radius
    each = (time.perf_counter() - start) / images
    print(f"certified CNN, eps {eps}, {images} images: clean {float(right.double().mean()):.3f}, "
          f"APGD {float((attacked > eps).double().mean()):.3f}, CROWN {float((radius >= eps).double().mean()):.3f}, "
          f"interval {float((plain >= eps).double().mean()):.3f}; {each:.3f} s an image")  # fmt: skip


def large(channels: int = 64) -> None:
    """A convolutional network of more than 100,000 activations: interval and Lipschitz radii within the memory said."""
    net = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 196, 10),
    )  # fmt: skip
    # Untrained margins are so small that float32 rounding would take all of them.
    model = Classifier.of(_draw(net, torch.Generator().manual_seed(0)).double().eval(), shape=(1, 28, 28))
    count = channels * (784 + 784 + 196)
    x = load("mnist", split="test").x[:8].double()
    with torch.no_grad():
        y = model(x).argmax(1)
    for name, certificate in (("lipschitz", lipschitz), ("interval", interval)):
        start = time.perf_counter()
        radius = certificate(model, x, y, "linf").radius
        each = (time.perf_counter() - start) / len(x)
        print(f"{count} activations: {name} median {float(radius.median()):.2g}, {each:.2f} s an image, peak "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")  # fmt: skip


def main() -> None:
    """Print the tables."""
    large()
    ratios((784, 64, 64, 10))
    ratios((784, 20, 20, 10))
    certified_training()
