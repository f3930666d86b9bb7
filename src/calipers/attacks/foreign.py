"""Attacks of Foolbox, torchattacks and ART as witnesses of ours; their parameter names for ours; plugins."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from calipers.attacks.method import Options
from calipers.attacks.result import AttackResult
from calipers.attacks.search import judged, settle
from calipers.errors import BadInput, nearest
from calipers.models import Classifier
from calipers.threats import Threat

__all__ = ["ALIASES", "ForeignName", "find_attack", "foreign", "plugins"]

Attack = Callable[..., AttackResult]

# What others call our keywords. Their eps (epsilon, max_eps) is part of our threat.
ALIASES: dict[str, str] = {
    "alpha": "step_size",
    "eps_step": "step_size",
    "eps_iter": "step_size",
    "abs_stepsize": "step_size",
    "nb_iter": "steps",
    "max_iter": "steps",
    "n_iter": "steps",
    "num_steps": "steps",
    "n_queries": "steps",
    "n_restarts": "restarts",
    "num_random_init": "restarts",
    "rand_init": "random_start",
    "p_init": "share",
    "nb_random_init": "restarts",
}


class ForeignName(UserWarning):
    """A keyword of another library was understood as one of ours."""


def find_attack(name: str, known: dict[str, Attack]) -> Attack:
    """An attack by name, ours or a plugin's, that takes other libraries' keywords too, with a notice.

    Arguments:
        name: a key of ``known``, or an entry point of the group ``calipers.attacks``.
        known: usually :data:`calipers.attacks.ATTACKS`; built-in names win over plugins of the same name.

    Example:
        >>> from calipers.attacks import ATTACKS
        >>> model, x = Classifier.of(torch.nn.Identity(), shape=(2,)), torch.tensor([[0.6, 0.5]])
        >>> with warnings.catch_warnings(record=True) as notices:
        ...     warnings.simplefilter("always")
        ...     found = find_attack("pgd", ATTACKS)(model, x, torch.tensor([0]), Threat("linf", 0.1), nb_iter=5)
        >>> found.success, str(notices[0].message)
        (tensor([True]), 'pgd: nb_iter is called steps here; taken as steps=5')
    """
    if name not in known and name not in plugins():
        raise BadInput("attack", expected="a known name", got=repr(name), hint=nearest(name, [*known, *plugins()]))
    attack: Attack = known[name] if name in known else plugins()[name].load()

    def called(model: Classifier, x: Tensor, y: Tensor, threat: Threat, **keywords: Any) -> AttackResult:
        return attack(model, x, y, threat, **_translated(name, keywords))

    return called


def _translated(name: str, keywords: dict[str, Any]) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    for word, value in keywords.items():
        ours_word = ALIASES.get(word, word)
        if ours_word in ours or (ours_word != word and ours_word in keywords):
            raise BadInput(f"{word} of {name}", expected=f"{ours_word} once", got="both", hint="leave one of them out")
        if ours_word != word:
            notice = f"{name}: {word} is called {ours_word} here; taken as {ours_word}={value!r}"
            warnings.warn(notice, ForeignName, stacklevel=4)
        ours[ours_word] = value
    return ours


def plugins() -> dict[str, metadata.EntryPoint]:
    """The attacks that installed packages offer: entry points of the group ``calipers.attacks``, by name.

    Example:
        >>> all(point.group == "calipers.attacks" for point in plugins().values())
        True
    """
    return {point.name: point for point in metadata.entry_points(group="calipers.attacks")}


def foreign(attack: Any) -> Attack:
    r"""An attack object of Foolbox, torchattacks or ART, or any function (x, y) → z, as an attack of ours.

    It runs as it was set up, in batches; what it proposes is brought into ball ∩ box and judged by a fresh call of our
    model, so a wrong claim costs it nothing but the witness. Its own eps should be the threat's. What it spends is
    counted on our model's module where it attacks that very module, and shared out evenly over the batch.

    Arguments:
        attack: ``foolbox.attacks.Attack``, ``torchattacks.Attack``, ``art.attacks.EvasionAttack``, or a callable.

    Raises:
        BadInput: for anything else.

    Example:
        >>> model, x = Classifier.of(torch.nn.Identity(), shape=(2,)), torch.tensor([[0.6, 0.5]])
        >>> found = foreign(lambda x, y: 1 - x)(model, x, torch.tensor([0]), Threat("linf", 0.2))
        >>> found.success, found.distance.item() <= 0.2
        (tensor([True]), True)
    """
    origin = {base.__module__.partition(".")[0] for base in type(attack).__mro__}
    if "foolbox" in origin:
        propose = _by_foolbox(attack)
    elif "art" in origin and hasattr(attack, "generate"):
        propose = _by_art(attack)
    elif callable(attack):
        # torchattacks' objects are called with images and labels, like any function.
        def propose(model: Classifier, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
            proposed: Tensor = attack(x, y)
            return proposed
    else:
        got = type(attack).__name__
        raise BadInput("attack", expected="one of Foolbox, torchattacks or ART, or a function of (x, y)", got=got)

    def run(model: Classifier, x: Tensor, y: Tensor, threat: Threat, **options: Unpack[Options]) -> AttackResult:
        x, y = model.check(x.detach(), y)
        parts, costs = [], []
        with model.frozen():
            for a, b in zip(x.split(size := options.get("batch_size", 256)), y.split(size), strict=True):
                with counted(model.module) as cost:
                    parts.append(torch.as_tensor(propose(model, a, b, threat)).to(x.device, x.dtype).view_as(a))
                costs.append(torch.tensor([-(-spent // len(a)) for spent in cost]).expand(len(a), 2))
        found = judged(torch.cat(parts), model, x, y, threat, **options)
        spent = torch.cat(costs).to(found.forwards.device)
        found = replace(found, forwards=found.forwards + spent[:, 0], gradients=found.gradients + spent[:, 1])
        return settle(found, model, x, y, threat, **options)

    return run


def _by_foolbox(attack: Any) -> Callable[[Classifier, Tensor, Tensor, Threat], Tensor]:
    def propose(model: Classifier, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        import foolbox

        lo, hi = (float(side.flatten()[0]) for side in model.box.sides(x))
        theirs = foolbox.PyTorchModel(model.module, bounds=(lo, hi), device=x.device)
        # Minimal-norm attacks take no eps.
        proposed: Tensor = attack(theirs, x, y, epsilons=threat.ladder[-1] if threat.ladder else None)[1]
        return proposed

    return propose


def _by_art(attack: Any) -> Callable[[Classifier, Tensor, Tensor, Threat], Tensor]:
    def propose(model: Classifier, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy()))

    return propose


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """Inside, the examples that go through the module, and those whose gradient comes back: [forwards, gradients]."""
    cost = [0, 0]

    def backward(gradient: Tensor) -> None:
        cost[1] += len(gradient)

    def forward(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            cost[0] += len(output)
            if output.requires_grad:
                output.register_hook(backward)

    handle = module.register_forward_hook(forward)
    try:
        yield cost
    finally:
        handle.remove()
