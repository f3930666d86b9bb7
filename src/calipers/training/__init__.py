"""How is it made robust? A recipe says which examples a step trains on, a schedule with which eps."""

from calipers.models.training import ABOUT, WEIGHTS, about
from calipers.training.launch import DEVICES, best_precision, launch
from calipers.training.loop import METRICS, SUMMARY, Trained, train
from calipers.training.measure import Withstands, accuracy, robust_accuracy, withstands
from calipers.training.plan import OPTIMIZERS, PRECISIONS, Plan
from calipers.training.recipes import RECIPES, WITHOUT_ADVERSARY, Ascent, Batch, Recipe
from calipers.training.schedule import SCHEDULES, Schedule
from calipers.training.start import INITIALISATIONS, begun, fresh, initial, trained_for
from calipers.training.stopping import sudden_rise

__all__ = [
    "ABOUT",
    "DEVICES",
    "INITIALISATIONS",
    "METRICS",
    "OPTIMIZERS",
    "PRECISIONS",
    "RECIPES",
    "SCHEDULES",
    "SUMMARY",
    "WEIGHTS",
    "WITHOUT_ADVERSARY",
    "Ascent",
    "Batch",
    "Plan",
    "Recipe",
    "Schedule",
    "Trained",
    "Withstands",
    "about",
    "accuracy",
    "begun",
    "best_precision",
    "fresh",
    "initial",
    "launch",
    "robust_accuracy",
    "sudden_rise",
    "train",
    "trained_for",
    "withstands",
]
