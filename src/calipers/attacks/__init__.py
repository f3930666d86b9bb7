"""How small a change breaks it? Attacks: functions of (model, x, y, threat) that return witnesses."""

from __future__ import annotations

from collections.abc import Callable

from calipers.attacks.apgd import apgd
from calipers.attacks.engine import Ask, Method, Options, Rows, Seen, Steps, column, likely_targets, run
from calipers.attacks.estimated import nes, spsa, zoo
from calipers.attacks.fmn import fmn
from calipers.attacks.hopskipjump import hopskipjump
from calipers.attacks.linear import affine_map, linear
from calipers.attacks.losses import LOSSES, Loss, find_loss, margin
from calipers.attacks.noise import noise
from calipers.attacks.pgd import fgsm, pgd
from calipers.attacks.result import AttackResult
from calipers.attacks.search import Queries, attack, judged, refine, settle
from calipers.attacks.square import square

__all__ = [
    "ATTACKS",
    "LOSSES",
    "Ask",
    "AttackResult",
    "Loss",
    "Method",
    "Options",
    "Queries",
    "Rows",
    "Seen",
    "Steps",
    "affine_map",
    "apgd",
    "attack",
    "column",
    "fgsm",
    "find_loss",
    "fmn",
    "hopskipjump",
    "judged",
    "likely_targets",
    "linear",
    "margin",
    "nes",
    "noise",
    "pgd",
    "refine",
    "run",
    "settle",
    "spsa",
    "square",
    "zoo",
]

ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "apgd": apgd,
    "fmn": fmn,
    "linear": linear,
    "noise": noise,
    "square": square,
    "spsa": spsa,
    "nes": nes,
    "zoo": zoo,
    "hopskipjump": hopskipjump,
}
