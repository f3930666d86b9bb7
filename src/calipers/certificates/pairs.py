"""An affine classifier of pairs, one class against another: a label that wins all its pairs has the most votes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from calipers.certificates.affine import form_error, form_of, linear_graph, nearest_exit
from calipers.certificates.alone import hooked
from calipers.certificates.arithmetic import ASSUMES, arithmetic_of
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.models import Classifier, OneVsOne, public
from calipers.threats import Norm

__all__ = ["pairs"]


@public
def pairs(model: Classifier, x: Tensor, y: Tensor, norm: Norm) -> Certified:
    r"""The distance to where the label first loses a pair: min over j ≠ y of dist_p(x, {s_yj ≤ 0} ∩ box).

    With more votes to spare a label can lose a pair and still win, so this is a lower bound; where it has none it is
    the distance to where the votes are tied.

    Arguments:
        model: affine scores of all pairs of classes before :class:`calipers.models.OneVsOne`, which scikit-learn's
            SVC(kernel="linear") of three and more classes becomes, behind a scaler or not.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: any of the four.

    Raises:
        NotApplicable: for any other model, and (UnknownOperator) where the scores are not affine.

    Example:
        >>> from sklearn.svm import SVC
        >>> from calipers.models import from_sklearn
        >>> model = from_sklearn(SVC(kernel="linear", C=100).fit([[0.0], [1.0], [2.0]], [0, 1, 2]))
        >>> x = torch.tensor([[0.25], [1.0]], dtype=torch.float64)
        >>> pairs(model, x, torch.tensor([0, 1]), "l2").radius.numpy().round(3)
        array([0.25, 0.5 ])
    """
    x, y = model.check(x, y)
    parts = list(model.module) if type(model.module) is nn.Sequential else [model.module]
    vote = parts[-1]
    if type(vote) is not OneVsOne or hooked(model):
        got = "a module with a hook" if hooked(model) else type(vote).__name__
        raise NotApplicable("pairs certificate", expected="a model that ends with OneVsOne", got=got)
    scores = replace(model, module=nn.Sequential(*parts[:-1]), classes=len(vote.first))
    graph, arithmetic = linear_graph(scores), arithmetic_of(model)
    form = form_of(graph, x)
    radius = x.new_empty(len(x), dtype=torch.float64)
    for label in y.unique().tolist():
        some = (y == label).nonzero()[:, 0]
        # The label's own score is 0, that of another class what their pair says against the label: (K, P).
        first, second = vote.first.double(), vote.second.double()
        turned = (first + second).T * (second - first)[:, label]
        turned[label] = 0.0

        def error(lo: Tensor, hi: Tensor, some: Tensor = some, turned: Tensor = turned) -> Tensor:
            return form_error(graph, form, x[some].double(), lo, hi, arithmetic) @ turned.abs().T

        radius[some] = nearest_exit(
            turned @ form.weight, graph(x[some].double()) @ turned.T, error, x[some].double(), y[some], norm, model.box
        )
    return Certified(radius, norm, "pairs", arithmetic.name, ASSUMES, model.box)
