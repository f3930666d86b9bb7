"""Robustness as one line of somebody's test suite."""

from __future__ import annotations

from typing import Any

from calipers.audit import Inputs, audit
from calipers.data import DataSet
from calipers.errors import BadInput
from calipers.models import understood
from calipers.records import Run, ThreatSummary, status

__all__ = ["assert_robust"]


def assert_robust(
    model: Any,
    x: Any,
    y: Any,
    *,
    norm: str,
    eps: float,
    proved: float | None = None,
    not_broken: float | None = None,
    box: tuple[float, float] | None = None,
    budget: str = "standard",
    seed: int = 0,
    trusted: bool = True,
) -> Run:
    r"""Fail unless a model is as robust on these examples as promised: proved(eps) ≥ ``proved``, or not broken.

    Arguments:
        model: a Classifier, an ``nn.Module`` that returns logits, or a fitted scikit-learn classifier.
        x: inputs, array or tensor, shape (N, \*shape), inside the box.
        y: labels, shape (N,): 0…K−1, or for a scikit-learn classifier members of its ``classes_``.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"``.
        eps: the radius, in the units of ``x``.
        proved: at least this fraction must be proved robust at ``eps``.
        not_broken: at least this fraction must withstand every attack at ``eps``: weaker, but there for every network.
        box: the values an input may take; a Classifier's own, otherwise [0, 1], for scikit-learn (−∞, ∞).
        budget: of the audit.
        seed: of the audit: the same seed, the same answer.
        trusted: also fail if a check of the evaluation itself failed.

    Returns:
        the run, to look at.

    Raises:
        AssertionError: with the numbers, and the first examples that are not as promised.
        BadInput: if nothing is promised, or the examples do not fit the model.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 2).eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[5.0, 0.0], [0.0, 5.0]]), "bias": torch.zeros(2)})
        >>> x, y = torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([0, 1])
        >>> _ = assert_robust(net, x, y, norm="linf", eps=0.15, proved=1.0)
        >>> assert_robust(net, x, y, norm="linf", eps=0.25, proved=1.0)
        Traceback (most recent call last):
            ...
        AssertionError: Linear at linf eps 0.25: expected at least 1 proved, got 0.5 proved and 0.5 not broken; ...
    """
    promised = {"proved": proved, "not broken": not_broken}
    if proved is None and not_broken is None:
        raise BadInput("assert_robust", expected="proved= or not_broken=", got="neither")
    for name, least in promised.items():
        if least is not None and not 0 <= least <= 1:
            raise BadInput(f"{name} of assert_robust", expected="a fraction from 0 to 1", got=least)
    classifier, inputs, labels = understood(model, x, y, box)
    names = classifier.class_names or tuple(str(at) for at in range(classifier.classes))
    examples = DataSet("the given examples", inputs.detach().cpu(), labels.cpu(), names, classifier.box)
    run = audit(Inputs(classifier, examples, len(examples)), norm=norm, eps=[eps], budget=budget, seed=seed)
    _judge(run, run.summary.threats[0], promised, trusted)
    return run


def _judge(run: Run, band: ThreatSummary, promised: dict[str, float | None], trusted: bool) -> None:
    got = {"proved": band.proved, "not broken": band.not_broken}
    short = [
        f"at least {least:g} {name}" for name, least in promised.items() if least is not None and got[name] < least
    ]
    untrue = [f"{check.id} ({check.evidence})" for check in run.checks if not check.passed] if trusted else []
    if not short and not untrue:
        return
    about = run.about["model"]
    name = about["name"] if isinstance(about, dict) else "the model"
    where = f"{name} at {band.norm} eps {band.eps:g}"
    told = f"got {band.proved:.4g} proved and {band.not_broken:.4g} not broken"
    if short:
        raise AssertionError(f"{where}: expected {' and '.join(short)}, {told}; {_culprits(run, band.eps)}")
    raise AssertionError(f"{where}: {told}, but these numbers cannot be trusted: {'; '.join(untrue)}")


def _culprits(run: Run, eps: float, most: int = 5) -> str:
    rows = run.examples
    state = status(rows["lower"].to_numpy(), rows["upper"].to_numpy(), eps)
    told = []
    for word in ("attacked", "open"):
        some = rows["index"][state == word].tolist()
        if some:
            plural, more = "s" if len(some) > 1 else "", ", …" if len(some) > most else ""
            told.append(f"{word}: example{plural} {', '.join(str(at) for at in some[:most])}{more}")
    return "; ".join(told)
