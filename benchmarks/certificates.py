"""The lower jaw: random networks, ratios to an attack and seconds on MNIST networks, a certified one, a large one."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calipers.attacks import apgd, fab, fmn
from calipers.certificates import (
    CERTIFICATES,
    NotApplicable,
    branch,
    clever,
    crown,
    interval,
    lipschitz,
    local_lipschitz,
)
from calipers.data import load
from calipers.models import Classifier
from calipers.threats import Box, Norm, Threat

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
    model = Classifier.of(_fit(_mlp(widths), epochs=5), shape=(1, 28, 28))
    x, y, accuracy = _examples(model, examples)
    print(f"{'-'.join(map(str, widths))}, clean accuracy {accuracy:.3f}, {examples} images")
    for norm in NORMS:
        # FMN alone is up to twice too far on a third of these images, and the ratio would measure the attack.
        many = fab(model, x, y, Threat(norm), steps=100, targets=9)
        upper = fmn(model, x, y, Threat(norm), steps=500).better(many).distance
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


def certified_training(eps: float = 0.1, trained: float = 0.25, images: int = 500) -> None:
    """A small CNN trained with interval bounds: CROWN's certified accuracy beside PGD's robust accuracy.

    It is trained at a larger eps than it is asked for, as is usual: bounds are tight well inside what was trained.
    """
    net = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2), nn.ReLU(), nn.Conv2d(8, 16, 4, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    model = Classifier.of(_fit(net, epochs=5, eps=trained), shape=(1, 28, 28))
    test = load("mnist", split="test")
    x, y = test.x[:images], test.y[:images]
    attacked = apgd(model, x, y, Threat("linf", eps), steps=50, loss="dlr").distance
    right = attacked > 0
    start = time.perf_counter()
    plain = interval(model, x, y, "linf").radius
    # CROWN's bounds lie inside the intervals: what is proved by these need not be proved again.
    radius, rest = plain.clone(), right & (plain < eps)
    radius[rest] = crown(model, x[rest], y[rest], "linf", upper=torch.full_like(attacked[rest], 1.05 * eps)).radius
    each = (time.perf_counter() - start) / images
    shares = {"clean": right, "APGD": attacked > eps, "CROWN": radius >= eps, "interval": plain >= eps}
    told = ", ".join(f"{name} {float(share.double().mean()):.3f}" for name, share in shares.items())
    print(f"certified CNN, eps {eps} (trained at {trained}), {images} images: {told}; {each:.3f} s an image")


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


ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.GELU, lambda: nn.GELU("tanh"), nn.SiLU,
)  # fmt: skip
BOXES = (Box(0, 1), Box(-2, 3), Box(-math.inf, math.inf))


def _random(seed: int) -> tuple[Classifier, Tensor, Tensor, Norm]:
    """A small network, three inputs of it with their labels, and a norm; all drawn from one generator."""
    g = torch.Generator().manual_seed(seed)

    def draw(n: int) -> int:
        return int(torch.randint(n, (1,), generator=g))

    act, classes, gain = ACTIVATIONS[draw(len(ACTIVATIONS))], 2 + draw(4), 10 ** (1.4 * draw(100) / 100 - 0.2)
    shape: tuple[int, ...]
    with torch.random.fork_rng():
        if draw(4) == 0:
            padding, pool = draw(2), (nn.MaxPool2d, nn.AvgPool2d)[draw(2)]
            shape, side = (1, 4, 4), 2 + 2 * padding
            layers = [nn.Conv2d(1, 3, 2, padding=padding), act(), pool(2, 1), nn.Flatten()]
            net = nn.Sequential(*layers, nn.Linear(3 * side * side, classes))
        else:
            widths = [2 + draw(9), *(2 + draw(12) for _ in range(1 + draw(3)))]
            parts = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), act())]
            shape, net = (widths[0],), nn.Sequential(*parts, nn.Linear(widths[-1], classes))
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.randn(p.shape, generator=g) * (gain / p[0].numel() ** 0.5 if p.dim() > 1 else 0.3))
    dtype = (torch.float32, torch.float64)[draw(2)]
    model = Classifier.of(net.to(dtype).eval(), shape=shape, box=BOXES[draw(3)])
    x = torch.rand(3, *shape, generator=g).to(dtype)
    with torch.no_grad():
        return model, x, model(x).argmax(1), NORMS[draw(3)]


def _broken(seed: int) -> tuple[int, list[str]]:
    """How many bounds one random network was given, and which of them an attack has proved wrong."""
    model, x, y, norm = _random(seed)
    upper = fmn(model, x, y, Threat(norm), steps=30).distance
    every = dict(CERTIFICATES)
    if seed % 10 == 0:
        every["branch"] = partial(branch, upper=upper, cases=60)
    count, wrong = 0, []
    for name, certificate in every.items():
        try:
            radius = certificate(model, x, y, norm).radius
        except NotApplicable:
            continue
        count += len(x)
        bad = (radius > upper) | radius.isnan()
        # The attack is sent into the largest ball that is said to be safe, too.
        safe = torch.where(radius.isfinite(), radius, 0.0)
        if float(safe.max()) > 0:
            i = safe.argmax()[None]
            inside = apgd(model, x[i], y[i], Threat(norm, float(safe.max())), steps=15, loss="margin").distance
            bad[i] |= inside <= radius[i]
        wrong += [f"{name} in {norm}, seed {seed}"] * bool(bad.any())
    return count, wrong


def random_networks(count: int = 2000) -> None:
    """Every certificate on thousands of random networks: all activations, norms, depths, scales, boxes, both floats."""
    start = time.perf_counter()
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = list(pool.map(_broken, range(count), chunksize=25))
    wrong = [one for _, those in found for one in those]
    print(f"{count} random networks, {sum(n for n, _ in found)} bounds, {len(wrong)} above an attack "
          f"({time.perf_counter() - start:.0f} s)", *wrong, sep="\n  ")  # fmt: skip


def main() -> None:
    """Print the tables."""
    random_networks()
    large()
    ratios((784, 64, 64, 10))
    ratios((784, 20, 20, 10))
    certified_training()
