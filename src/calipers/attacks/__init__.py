"""How small a change breaks it? Attacks: functions of (model, x, y, threat) that return witnesses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from calipers.attacks.apgd import apgd
from calipers.attacks.climb import climb
from calipers.attacks.ddn import ddn
from calipers.attacks.deepfool import deepfool, superdeepfool
from calipers.attacks.engine import (
    Ask,
    Method,
    NoGradient,
    Options,
    Rows,
    Seen,
    Steps,
    column,
    differentiable,
    likely_targets,
    run,
)
from calipers.attacks.ensemble import EnsembleResult, Stage, auto, reference
from calipers.attacks.estimated import nes, spsa, zoo
from calipers.attacks.fab import fab
from calipers.attacks.fmn import fmn
from calipers.attacks.foreign import ALIASES, ForeignName, find_attack, foreign, plugins
from calipers.attacks.hopskipjump import hopskipjump
from calipers.attacks.linear import affine_map, linear
from calipers.attacks.losses import LOSSES, Loss, find_loss, margin
from calipers.attacks.noise import noise
from calipers.attacks.penalty import cw, ead
from calipers.attacks.pgd import fgsm, mifgsm, pgd
from calipers.attacks.result import AttackResult
from calipers.attacks.search import Queries, attack, judged, refine, settle
from calipers.attacks.shared import along, transferred, universal
from calipers.attacks.sigma_zero import sigma_zero
from calipers.attacks.square import square

__all__ = [
    "ALIASES",
    "ATTACKS",
    "LOSSES",
    "Ask",
    "AttackResult",
    "EnsembleResult",
    "ForeignName",
    "Loss",
    "Method",
    "NoGradient",
    "Options",
    "Queries",
    "Rows",
    "Seen",
    "Stage",
    "Steps",
    "affine_map",
    "along",
    "apgd",
    "attack",
    "auto",
    "climb",
    "column",
    "cw",
    "ddn",
    "deepfool",
    "differentiable",
    "ead",
    "fab",
    "fgsm",
    "find_attack",
    "find_loss",
    "fmn",
    "foreign",
    "hopskipjump",
    "judged",
    "likely_targets",
    "linear",
    "margin",
    "mifgsm",
    "nes",
    "noise",
    "pgd",
    "plugins",
    "reference",
    "refine",
    "run",
    "settle",
    "sigma_zero",
    "spsa",
    "square",
    "superdeepfool",
    "transferred",
    "universal",
    "zoo",
]

ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "mifgsm": mifgsm,
    "apgd": apgd,
    "apgd-targeted": partial(apgd, loss="dlr", targets=9),
    "fmn": fmn,
    "ddn": ddn,
    "cw": cw,
    "ead": ead,
    "sigma-zero": sigma_zero,
    "fab": fab,
    "deepfool": deepfool,
    "superdeepfool": superdeepfool,
    "linear": linear,
    "noise": noise,
    "square": square,
    "spsa": spsa,
    "nes": nes,
    "zoo": zoo,
    "hopskipjump": hopskipjump,
    "auto": auto,
    "reference": reference,
}
