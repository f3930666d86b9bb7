"""Broken defences: what people have put around a network so that gradients no longer find what is still there."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from calipers.audit import Inputs, open_inputs
from calipers.data import load
from calipers.models import ARCHITECTURES, Classifier

__all__ = ["ZOO", "Defence", "inputs_of"]

EXAMPLES = 60


@dataclass(frozen=True)
class Defence:
    """A defended network, the same without its defence, and the check that must name the cause.

    Arguments:
        make: the defended module.
        bare: the module it defends; the built-in network on digits by default.
        eps: the L∞ radius at which they are compared.
        cause: a check that fails.
        quiet: checks that must not fail.
    """

    make: Callable[[], nn.Module]
    eps: float
    cause: str
    bare: Callable[[], nn.Module] | None = None


class Wrapped(nn.Module):
    """A network with something done to its inputs or outputs."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


@cache
def digits() -> Inputs:
    return open_inputs("digits-mlp", "digits", examples=EXAMPLES)


def net() -> nn.Module:
    return digits().model.module


def inputs_of(module: nn.Module) -> Inputs:
    """The same digits, for another module."""
    given = digits()
    return Inputs(Classifier.of(module, shape=(1, 8, 8), name="defended"), given.data, given.size)


def scaled() -> nn.Module:
    return Wrapped(net(), after=lambda logits: 1000 * logits)


def softmaxed() -> nn.Module:
    return Wrapped(net(), after=lambda logits: (3 * logits).softmax(1))


def quantised() -> nn.Module:
    """Four bits and the white: the seventeen levels that a digit has."""
    return Wrapped(net(), before=lambda x: (x * 16).round() / 16)


def jpeg(x: Tensor) -> Tensor:
    coded = []
    for image in (x.detach().cpu().numpy() * 255).round().astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image[0]).save(file, "JPEG", quality=75)
        coded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(coded))[:, None].float() / 255


def jpeg_coded() -> nn.Module:
    return Wrapped(net(), before=jpeg)


def noisy() -> nn.Module:
    return Wrapped(net(), before=lambda x: x + 0.05 * torch.randn_like(x))


def per_batch() -> nn.Module:
    """The mean logits of the batch are added: an attack's own batch is not the user's."""
    return Wrapped(net(), after=lambda logits: logits + 3 * logits.mean(0))


class Detector(nn.Module):
    """Digits are multiples of 1/16. What is not is rounded before it is answered, out of the gradient's sight."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            snapped = (16 * x).round() / 16
            suspicious = (x - snapped).abs().flatten(1).mean(1) > 1e-3
            safe = self.net(snapped)
        return torch.where(suspicious[:, None], safe, self.net(x))


def detecting() -> nn.Module:
    return Detector(net())


class Watching(Detector):
    """It looks for a gradient, and answers the attacker what is no use to him."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.zeros_like(x) if x.requires_grad else x)


def watching() -> nn.Module:
    return Watching(net())


class Resized(nn.Module):
    """Digits on a canvas of 10 × 10 at a random size and place (Xie et al. 2018); in the middle without the defence."""

    def __init__(self, net: nn.Module, random: bool) -> None:
        super().__init__()
        self.net, self.random = net, random
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        side, top, left = 8, 1, 1
        if self.random:
            side = 8 + int(torch.randint(3, ()))
            top, left = (int(torch.randint(11 - side, ())) for _ in range(2))
        sized = nn.functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        return self.net(nn.functional.pad(sized, (left, 10 - side - left, top, 10 - side - top)))


@cache
def canvas_net() -> nn.Module:
    """Trained on digits at random sizes and places."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.random.fork_rng():
        torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())
        fit(module, lambda x: Resized(nn.Identity(), random=True)(x))
    return module


def resized() -> nn.Module:
    return Resized(canvas_net(), random=True)


def placed() -> nn.Module:
    return Resized(canvas_net(), random=False)


class Saturated(nn.Sequential):
    """Sigmoids so steep that float32 has no slope left."""

    def __init__(self, gain: float) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 10))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self[3](self[2](self.gain * self[1](self[0](x))))


@cache
def saturated_pair() -> tuple[nn.Module, nn.Module]:
    """A sigmoid network, and the same with its hidden layer multiplied by 40 and its last layer fitted again."""
    with torch.random.fork_rng():
        torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())
        soft = Saturated(1.0)
        fit(soft)
        hard = Saturated(1000.0)
        hard.load_state_dict(soft.state_dict())
        fit(hard, parameters=list(hard[3].parameters()))
    return soft, hard


@cache
def distilled_pair(temperature: float = 100.0) -> tuple[nn.Module, nn.Module]:
    """A network, and one distilled from it at T = 100 and used at T = 1 (Papernot et al. 2016)."""
    build = ARCHITECTURES["digits-mlp"].build
    with torch.random.fork_rng():
        torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())
        plain, teacher, student = build(), build(), build()
        fit(plain)
        fit(teacher, temperature=temperature)
        fit(student, temperature=temperature, teacher=teacher)
    return plain, student


def fit(
    module: nn.Module,
    augment: Callable[[Tensor], Tensor] = lambda x: x,
    *,
    parameters: list[nn.Parameter] | None = None,
    temperature: float = 1.0,
    teacher: nn.Module | None = None,
) -> None:
    """Adam on the cross-entropy of logits/temperature, against labels or a teacher's probabilities at temperature."""
    train = load("digits", split="train")
    optimizer = torch.optim.Adam(module.parameters() if parameters is None else parameters, 0.01)
    for _ in range(20):
        for some in torch.randperm(len(train)).split(64):
            x, goal = train.x[some], train.y[some]
            if teacher is not None:
                with torch.no_grad():
                    goal = (teacher(x) / temperature).softmax(1)
            loss = nn.functional.cross_entropy(module(augment(x)) / temperature, goal)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    module.eval().requires_grad_(False)


ZOO: dict[str, Defence] = {
    "logits × 1000": Defence(scaled, 0.125, "cross-entropy-has-a-gradient"),
    "softmax": Defence(softmaxed, 0.125, "outputs-are-logits"),
    "distillation, T = 100": Defence(
        lambda: distilled_pair()[1], 0.2, "cross-entropy-has-a-gradient", lambda: distilled_pair()[0]
    ),
    "4-bit quantisation": Defence(quantised, 0.125, "forward-can-be-differentiated"),
    "JPEG, quality 75": Defence(jpeg_coded, 0.25, "forward-can-be-differentiated"),
    "random resize and pad": Defence(resized, 0.25, "model-is-deterministic", placed),
    "additive noise": Defence(noisy, 0.25, "model-is-deterministic"),
    "saturated sigmoids": Defence(lambda: saturated_pair()[1], 0.2, "gradients-are-there", lambda: saturated_pair()[0]),
    "hidden detector": Defence(detecting, 0.125, "forward-can-be-differentiated"),
    "watches for gradients": Defence(watching, 0.125, "gradients-go-unnoticed"),
    "logits moved per batch": Defence(per_batch, 0.125, "batch-mates-do-not-matter"),
}
