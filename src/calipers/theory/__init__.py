"""What must be true: closed forms and exact solutions that attacks, certificates and training are held against.

Optimal robust classifiers (``GaussianPair``, ``BernoulliPair``, ``optimal_robust`` and the graph reduction) and
polynomial classifiers with known adversarial regions (``chebyshev_margin``, ``hard_margin``, ``adversarial_regions``),
with the objectives that say which points are hard to learn from.
"""

from calipers.theory.bernoulli import BernoulliPair, ThresholdRule, effective_dimensions
from calipers.theory.finite import FiniteDistribution, RobustOptimum, optimal_robust, pairwise_distance, robust_mass
from calipers.theory.gaussian import GaussianPair
from calipers.theory.margin import Grid, grid, hard_margin, nearest_label
from calipers.theory.objectives import (
    adversarial_objective,
    chebyshev_hardness,
    chebyshev_hardness_maxima,
    feature_layer,
    hard_objective,
    optimal_objective,
    self_loss,
)
from calipers.theory.polynomials import Basis, Polynomial, basis_values, bernstein_margin, chebyshev_margin
from calipers.theory.reduction import (
    classifier_of_set,
    distribution_of_graph,
    graph,
    graph_distance,
    set_of_classifier,
)
from calipers.theory.regions import AdversarialRegions, adversarial_regions, sign_changes

__all__ = [
    "AdversarialRegions",
    "Basis",
    "BernoulliPair",
    "FiniteDistribution",
    "GaussianPair",
    "Grid",
    "Polynomial",
    "RobustOptimum",
    "ThresholdRule",
    "adversarial_objective",
    "adversarial_regions",
    "basis_values",
    "bernstein_margin",
    "chebyshev_hardness",
    "chebyshev_hardness_maxima",
    "chebyshev_margin",
    "classifier_of_set",
    "distribution_of_graph",
    "effective_dimensions",
    "feature_layer",
    "graph",
    "graph_distance",
    "grid",
    "hard_margin",
    "hard_objective",
    "nearest_label",
    "optimal_objective",
    "optimal_robust",
    "pairwise_distance",
    "robust_mass",
    "self_loss",
    "set_of_classifier",
    "sign_changes",
]
