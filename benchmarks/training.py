"""Images per second of adversarial training: this project, a plain loop, and ART's AdversarialTrainerMadryPGD.

Same network, images, batches, eps, number and size of steps, random start, Adam; one epoch each, from the same weights.
"Robust" is the accuracy left by PGD-40 on 200 test images after the epoch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from calipers.data import DataSet, load
from calipers.models import Classifier
from calipers.threats import Threat
from calipers.training import Ascent, Plan, Schedule, accuracy, best_precision, fresh, robust_accuracy, train

__all__ = ["main", "precisions"]

EPS, STEPS, STEP_SIZE, BATCH, RATE = 0.3, 15, 0.05, 128, 1e-3
Trainer = Callable[[nn.Module, DataSet], None]


def _plain(net: nn.Module, data: DataSet) -> None:
    """What one writes by hand: float32, parameters included in the attack's graph, nothing tuned."""
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    for x, y in zip(data.x.split(BATCH), data.y.split(BATCH), strict=True):
        z = (x + EPS * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            z.requires_grad_()
            (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(z), y), z)
            z = torch.minimum(torch.maximum(z.detach() + STEP_SIZE * grad.sign(), x - EPS), x + EPS).clamp(0, 1)
        loss = nn.functional.cross_entropy(net(z), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _ours(precision: str) -> Trainer:
    def run(net: nn.Module, data: DataSet) -> None:
        ascent = Ascent("linf", step_size=STEP_SIZE, steps=STEPS)
        plan = Plan("pgd", Schedule("constant", EPS), ascent, 1, BATCH, lr=RATE, precision=precision)
        train(Classifier.of(net, shape=data.shape), data, plan)

    return run


def _art(net: nn.Module, data: DataSet) -> None:
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    optimizer = torch.optim.Adam(net.parameters(), RATE)
    model = PyTorchClassifier(
        net, nn.CrossEntropyLoss(), data.shape, 10, optimizer=optimizer, clip_values=(0, 1), device_type="cpu"
    )
    trainer = AdversarialTrainerMadryPGD(
        model, nb_epochs=1, batch_size=BATCH, eps=EPS, eps_step=STEP_SIZE, max_iter=STEPS, num_random_init=1
    )
    trainer.fit(data.x.numpy(), nn.functional.one_hot(data.y, 10).float().numpy())


def _robust(net: nn.Module, shape: tuple[int, ...], x: Tensor, y: Tensor) -> float:
    return robust_accuracy(Classifier.of(net, shape=shape), x, y, Threat("linf", EPS), steps=40)


def main(images: int = 512, networks: tuple[str, ...] = ("mnist-cnn", "mnist-small")) -> None:
    """One table a network; the fastest contender has a warm-up batch like the others."""
    data, test = load("mnist", split="train").take(images), load("mnist").take(200)
    trainers: dict[str, Trainer] = {"plain loop": _plain, "calipers, float32": _ours("32")}
    if best_precision("cpu") == "bf16":
        trainers["calipers, bf16"] = _ours("bf16")
    try:
        trainers[f"ART {version('adversarial-robustness-toolbox')}"] = _art
    except PackageNotFoundError as missing:
        print(f"  ART: left out ({missing})")
    print(f"PGD-{STEPS} training, L-infinity {EPS:g}, {images} MNIST images, batches of {BATCH}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    for arch in networks:
        start, rates, robust = fresh(arch), {}, {}
        for name, run in trainers.items():
            run(copy.deepcopy(start.module).train(), data.take(BATCH))
            net = copy.deepcopy(start.module).train()
            began = time.perf_counter()
            run(net, data)
            rates[name] = images / (time.perf_counter() - began)
            robust[name] = _robust(net.eval(), data.shape, test.x, test.y)
        print(f"\n{arch:25}{'images/s':>10}{'x plain':>9}{'robust':>9}")
        for name, rate in rates.items():
            print(f"{name:25}{rate:10.0f}{rate / rates['plain loop']:9.2f}{robust[name]:9.3f}")
    if best_precision("cpu") == "bf16":
        precisions()


def precisions(images: int = 20_000, epochs: int = 3, seeds: int = 3) -> None:
    """Whether bfloat16 costs robust accuracy: mnist-small, a ramp to 0.3 and on, both precisions, several seeds.

    Judged in float32 by PGD-40 on 1,000 test images.
    """
    data, test = load("mnist", split="train").take(images), load("mnist").take(1000)
    print("| seed | float32: clean | robust | bfloat16: clean | robust |\n|---|---|---|---|---|")
    for seed in range(seeds):
        cells = []
        for precision in ("32", "bf16"):
            schedule, ascent = Schedule("ramp", EPS, span=epochs - 1), Ascent("linf", step_size=STEP_SIZE)
            plan = Plan(
                "pgd", schedule, ascent, epochs, BATCH, lr=2 * RATE, anneal=True, seed=seed, precision=precision
            )
            model = train(fresh("mnist-small", seed=seed), data, plan).model
            robust = robust_accuracy(model, test.x, test.y, Threat("linf", EPS), steps=40)
            cells += [f"{100 * share:.1f} %" for share in (accuracy(model, test.x, test.y), robust)]
        print(f"| {seed} | " + " | ".join(cells) + " |", flush=True)
