"""Data with a known answer: samples of models whose Bayes and robust error are closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from calipers.data.dataset import DataSet
from calipers.errors import BadInput, nearest
from calipers.theory import BernoulliPair, GaussianPair
from calipers.threats import Box, Norm

__all__ = ["is_synthetic", "synthetic"]

Split = Literal["train", "test"]
Options = dict[str, float | str]

COMMON: Options = {"n": 1000, "seed": 0, "eps": 0.0}
GAUSSIAN: Options = COMMON | {"d": 20, "distance": 4.0, "sigma": 1.0, "norm": "l2"}
BERNOULLI: Options = COMMON | {"k": 50, "d": 50, "t": 0.3, "norm": "l0"}
WHOLE = ("n", "seed", "d", "k")


def is_synthetic(spec: str) -> bool:
    """Whether a data name asks for ``synthetic``.

    Example:
        >>> is_synthetic("gaussian:d=2"), is_synthetic("mnist")
        (True, False)
    """
    return spec.partition(":")[0] in MODELS


def synthetic(spec: str, split: Split = "test") -> DataSet:
    r"""Sample a model with a known answer; its parameters and its errors go into ``provenance``.

    ``gaussian:d=20,distance=4,sigma=1,eps=0.5,norm=l2,n=1000,seed=0``: class 1 is N(μ, σ²I), class 0 is N(−μ, σ²I),
    with μ along the diagonal and ‖2μ‖₂ = distance; norm ``l2`` or ``linf``; the box is unbounded.
    ``bernoulli:k=50,d=50,t=0.3,eps=3,norm=l0,n=1000,seed=0``: θ₁ is all ones, θ₀ has −1 in the first k of d
    coordinates (d = k unless said otherwise); each coordinate of x is θ's with probability ½ + t and its negative
    otherwise; norm ``l0`` or ``linf``; box [−1, 1].

    ``provenance["bayes_error"]`` is the least error of any classifier, ``provenance["robust_error"]`` the least
    adversarial error at the given norm and eps, both from the closed forms of :mod:`calipers.theory`.

    Arguments:
        spec: the model's name and, after a colon, ``key=value`` pairs in any order; all have defaults.
        split: ``"train"`` and ``"test"`` draw different samples.

    Returns:
        float32 inputs of shape (n, d), labels 0 and 1 in equal expectation; the same spec gives the same numbers.

    Raises:
        BadInput: for an unknown model, key or split, or a value outside its range.

    Source:
        Shaeiri, Nobahari and Rohban, Towards Deep Learning Models Resistant to Large Perturbations, 2020,
        Definitions 6 and 7.

    Example:
        >>> some = synthetic("gaussian:d=20,eps=1,n=5")
        >>> some.shape, len(some), round(float(some.provenance["robust_error"]), 6)
        ((20,), 5, 0.158655)
        >>> synthetic("bernoulli:t=0.6")
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: t of bernoulli:t=0.6: expected a number strictly between 0 and 0.5, got 0.6
    """
    name, _, rest = spec.partition(":")
    if name not in MODELS:
        raise BadInput("model", got=repr(name), hint=nearest(name, MODELS))
    if split not in get_args(Split):
        raise BadInput(f"split of {spec}", got=repr(split), hint=nearest(str(split), get_args(Split)))
    defaults, model = MODELS[name]
    options = _options(spec, rest, defaults)
    generator = torch.Generator().manual_seed(2 * int(options["seed"]) + (split == "train"))
    y = torch.randint(0, 2, (int(options["n"]),), generator=generator)
    x, box, bayes, robust = model(spec, options, y, generator)
    known = {"bayes_error": repr(bayes), "robust_error": repr(robust)}
    shown = {key: str(value) for key, value in options.items()}
    return DataSet(spec, x, y, ("0", "1"), box, {"model": name, "split": split} | shown | known)


def _options(spec: str, text: str, defaults: Options) -> Options:
    """The defaults, with what the text says; every word checked."""
    options, seen = dict(defaults), set[str]()
    for part in filter(None, text.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in defaults:
            raise BadInput(f"{key!r} in {spec}", expected="key=value", hint=nearest(key, defaults))
        if key in seen:
            raise BadInput(f"{key} of {spec}", expected="one value", got="more than one")
        seen.add(key)
        options[key] = value if isinstance(defaults[key], str) else _number(spec, key, value)
    if "k" in options and "d" not in seen:
        options["d"] = options["k"]
    least = {"n": 1, "seed": 0, "d": 1, "k": 1, "eps": 0}
    for key in least.keys() & options.keys():
        if float(options[key]) < least[key]:
            raise BadInput(f"{key} of {spec}", expected=f"at least {least[key]}", got=options[key])
    return options


def _number(spec: str, key: str, value: str) -> float | int:
    """A finite number; whole where a count is meant."""
    try:
        number = int(value) if key in WHOLE else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        kind = "a whole number" if key in WHOLE else "a finite number"
        raise BadInput(f"{key} of {spec}", expected=kind, got=repr(value))
    return number


def _check_norm(spec: str, norm: float | str, allowed: tuple[str, ...]) -> None:
    if norm not in allowed:
        raise BadInput(f"norm of {spec}", expected=" or ".join(allowed), got=repr(norm))


Sample = tuple[Tensor, Box, float, float]


def _gaussian(spec: str, options: Options, y: Tensor, generator: torch.Generator) -> Sample:
    """Definition 6: the sample, its box, Bayes error and robust error."""
    d, distance, sigma, eps = int(options["d"]), *(float(options[key]) for key in ("distance", "sigma", "eps"))
    _check_norm(spec, options["norm"], ("l2", "linf"))
    if not (distance > 0 and sigma > 0):
        raise BadInput(f"distance and sigma of {spec}", expected="numbers > 0", got=f"{distance:g} and {sigma:g}")
    mean = distance / 2 / math.sqrt(d)
    sign = (2 * y - 1).double()[:, None]
    x = sign * mean + sigma * torch.randn(len(y), d, generator=generator, dtype=torch.float64)
    pair = GaussianPair.apart(distance, d=d, sigma=sigma)
    norm: Norm = "l2" if options["norm"] == "l2" else "linf"
    return x.float(), Box(-math.inf, math.inf), pair.bayes_error, pair.robust_error(eps, norm)


def _bernoulli(spec: str, options: Options, y: Tensor, generator: torch.Generator) -> Sample:
    """Definition 7: the sample, its box, Bayes error and robust error."""
    k, t, eps = int(options["k"]), float(options["t"]), float(options["eps"])
    d = int(options["d"])
    _check_norm(spec, options["norm"], ("l0", "linf"))
    if not 0 < t < 0.5:
        raise BadInput(f"t of {spec}", expected="a number strictly between 0 and 0.5", got=t)
    if d < k:
        raise BadInput(f"d of {spec}", expected=f"at least k = {k}", got=d)
    theta = torch.ones(len(y), d)
    theta[:, :k] = (2.0 * y - 1)[:, None]
    kept = torch.rand(len(y), d, generator=generator, dtype=torch.float64) < 0.5 + t
    pair = BernoulliPair.of(k, t, d=d)
    norm: Norm = "l0" if options["norm"] == "l0" else "linf"
    return torch.where(kept, theta, -theta), Box(-1.0, 1.0), pair.bayes_error, pair.robust_error(eps, norm)


MODELS: dict[str, tuple[Options, Callable[[str, Options, Tensor, torch.Generator], Sample]]] = {
    "gaussian": (GAUSSIAN, _gaussian),
    "bernoulli": (BERNOULLI, _bernoulli),
}
