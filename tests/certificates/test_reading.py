"""What the importer reads is the function the model computes; what it cannot read it refuses by name."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calipers.certificates import CERTIFICATES, NotApplicable, UnknownOperator, crown, interval, lipschitz
from calipers.certificates.reading import read
from calipers.models import Classifier, Normalize, OneVsOne, from_sklearn, linear
from tests.certificates.networks import weights


class Residual(nn.Module):
    """A convolutional block with a skip connection, global averaging and functional calls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.block, self.head = nn.Conv2d(6, 6, 3, padding="same", bias=False), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.stem(x)))
        h = F.relu(h + 0.5 * self.block(h), inplace=True)
        h = F.adaptive_avg_pool2d(F.max_pool2d(h, 3, stride=2, padding=1), 1)
        return self.head(h.view(h.size(0), -1))


class Loops(nn.Module):
    """Branches on shapes, loops, in-place sums, constants, matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(12, 12) for _ in range(2)])
        self.weight, self.shift = nn.Parameter(torch.empty(12, 5)), nn.Parameter(torch.empty(12))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() > 2:
            x = x.reshape(len(x), -1)
        assert x.shape[1] == 12
        x = (1 - x - self.shift) / 2.0
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        x -= 0.25
        return -(F.dropout(x, training=self.training) @ self.weight)


class Wide(nn.Module):
    """Averages, permutations, sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv1d(2, 4, 3, stride=2), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.conv(x))
        h = h - F.avg_pool1d(h, 3, 1, 1)
        h = F.silu(self.mix(h.transpose(1, 2)).permute(0, 2, 1))
        return self.head(F.max_pool1d(h, 2).mean(2))


class Doubled(nn.Sequential):
    """A Sequential whose forward is not its parts' composition."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    net[1].register_forward_hook(lambda module, args, out: out * 2)
    return net


READ = {
    "residual": (Residual, (3, 6, 6)),
    "loops": (Loops, (3, 2, 2)),
    "wide": (Wide, (2, 11)),
    "subclass": (lambda: Doubled(nn.Linear(4, 4), nn.Softplus(2.0), nn.Linear(4, 3)), (4,)),
    "hook": (hooked, (3, 4)),
    "unflatten": (lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten()), (4,)),
    "pools": (
        lambda: nn.Sequential(
            Normalize(torch.tensor([0.4]), torch.tensor([0.3])), nn.AvgPool2d(3, 2, 1), nn.GELU("tanh"),
            nn.MaxPool2d(2, 1, dilation=2), nn.AdaptiveAvgPool2d((1, 2)), nn.Dropout(), nn.Flatten(), nn.Linear(2, 3),
        ),
        (1, 9, 9),
    ),
    "weight-norm": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.SiLU()), (4,)),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_the_graph_is_the_function_of_the_model(name):
    with torch.random.fork_rng():
        make, shape = READ[name]
        net = weights(make(), 1)
    model = Classifier.of(net, shape=shape)
    g = torch.Generator().manual_seed(0)
    x = torch.rand(7, *shape, generator=g)
    with torch.no_grad():
        truth = copy.deepcopy(net).double()(x.double())
        y = net(x).argmax(1)
    graph = read(model)
    # Weights that are computed in forward are taken as they are executed: rounded to float32.
    close = 1e-6 if name == "weight-norm" else 1e-12
    assert torch.allclose(graph(x.double()), truth, rtol=close, atol=close)
    for norm in ("linf", "l2", "l1"):
        radius = interval(model, x, y, norm).radius
        assert (radius > 0).all()
        if name not in ("unflatten", "weight-norm", "hook", "subclass", "loops"):
            assert (lipschitz(model, x, y, norm).radius > 0).all()


@pytest.mark.parametrize("name", READ)
def test_linear_operators_know_their_transpose(name):
    with torch.random.fork_rng():
        make, shape = READ[name]
        net = weights(make(), 2)
    graph, g = read(Classifier.of(net, shape=shape)), torch.Generator().manual_seed(3)
    seen = 0
    for _, node in graph:
        if not node.op.linear:
            continue
        seen += 1
        x = [torch.randn(2, *graph.shape_of(i), generator=g, dtype=torch.float64) for i in node.inputs]
        a = torch.randn(2, *node.shape, generator=g, dtype=torch.float64)
        back = sum((t * v).sum() for t, v in zip(node.op.transpose(a), x, strict=True))
        assert torch.allclose((a * node.op.apply(*x)).sum(), back)
        assert (node.op.spread(*(v.abs() for v in x)) >= node.op.apply(*x).abs() - 1e-12).all()
    assert seen


class Branches(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 2 else -x)


class Detector(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return torch.where(z.amax(1, keepdim=True) > 1, z, -z)


class LeavesTorch(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.as_tensor(x.detach().numpy()))


class Hides(nn.Linear):
    """Leaves the watched tensor by a way that no torch function shows, for a part of the sum."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.from_dlpack(torch.utils.dlpack.to_dlpack(x.as_subclass(Tensor)))
        return super().forward(x) + super().forward(hidden[:1])


class Counts(nn.Linear):
    """A forward with a state."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return self.calls * super().forward(x)


class MixesExamples(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Branches(4, 3), "'sum'.*without branches on values"),
        (Detector(4, 3), "amax"),
        (LeavesTorch(4, 3), "numpy"),
        (Hides(4, 3), "something else"),
        (Counts(4, 3), "something else"),
        (MixesExamples(4, 3), "mean"),
        (nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)), "batch's own statistics"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten()), "pad"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_what_cannot_be_read_is_refused_by_name(net, said):
    shape = (1, 4, 4) if isinstance(net, nn.Sequential) and isinstance(net[0], nn.Conv2d) else (4,)
    model = Classifier.of(net.eval(), shape=shape)
    with pytest.raises(UnknownOperator, match=said):
        read(model)


def test_half_precision_and_reduced_products_are_refused():
    model = Classifier.of(nn.Linear(4, 3).bfloat16().eval(), shape=(4,))
    with pytest.raises(NotApplicable, match=r"call \.float"):
        read(model)
    whole = Classifier.of(nn.Linear(4, 3).eval(), shape=(4,))
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(NotApplicable, match="highest"):
            read(whole)
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.autocast("cpu"), pytest.raises(NotApplicable, match="autocast"):
        read(whole)


def test_scikit_learn_pipelines_keep_the_scaler_in_the_network():
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_iris(return_X_y=True)
    for head in (LogisticRegression(), MLPClassifier((8,), max_iter=2000, random_state=0)):
        fitted = make_pipeline(StandardScaler(), head).fit(x, y)
        model = from_sklearn(fitted, box=(0.0, 10.0))
        points = torch.from_numpy(x[::10])
        labels = torch.from_numpy(fitted.predict(x[::10]))
        radius = interval(model, points, labels, "linf").radius
        assert (radius > 0).sum() >= 13
        # In the units of x: moving every coordinate by the radius does not change what the estimator says.
        for sign in (-1, 1):
            moved = (points + sign * radius[:, None]).clamp(0, 10)
            assert (torch.from_numpy(fitted.predict(moved.numpy())) == labels)[radius > 0].all()


def test_reading_leaves_the_model_and_the_callers_generator_alone():
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 3)).eval()
    state = torch.get_rng_state()
    read(Classifier.of(net, shape=(4,)))
    assert torch.equal(state, torch.get_rng_state())
    assert not any(part.training for part in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


class Slices(nn.Module):
    """Two tokens of three, and two of their four coordinates in reverse, to a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x[:, 1:].relu()
        return self.last(h.transpose(1, 2)[..., [1, 0]][:, ::2].flip(1).flatten(1))


def test_slices_are_read_as_what_they_leave():
    net = weights(Slices().eval(), 0)
    model = Classifier.of(net, shape=(3, 4))
    graph, x = read(model), torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(graph(x).float(), net(x), atol=1e-5)
    # The same map as one matrix, its columns found by asking for every coordinate.
    eye = torch.eye(12).view(12, 3, 4)
    whole = nn.Sequential(nn.Flatten(), nn.ReLU(), linear((net(eye) - net.last.bias).T, net.last.bias)).eval()
    y = net(x).argmax(1)
    for certificate in (interval, crown):
        for norm in ("linf", "l2", "l1"):
            sliced = certificate(model, x, y, norm).radius
            dense = certificate(Classifier.of(whole, shape=(3, 4)), x, y, norm).radius
            assert torch.allclose(sliced, dense, rtol=1e-3), (certificate.__name__, norm)
            assert (sliced > 0).any()


@pytest.mark.parametrize(
    "taken", [lambda x: x[:, [0, 0, 1]], lambda x: x[[1, 0]], lambda x: x.flip(0)], ids=["twice", "mates", "batch"]
)
def test_slices_that_repeat_or_mix_examples_are_refused(taken):
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return taken(x)

    with pytest.raises(UnknownOperator, match=r"a coordinate that is taken twice|examples that change places"):
        read(Classifier.of(Net().eval(), shape=(4,)))


@pytest.mark.parametrize("last", [[nn.Softmax(1)], [nn.LogSoftmax(1), nn.Linear(3, 3)], [nn.ReLU(), nn.LogSoftmax(1)]])
def test_a_softmax_is_refused_with_what_to_do(last):
    with pytest.raises(UnknownOperator, match=r"got '(log_)?softmax'; leave it out and hand over the logits"):
        read(Classifier.of(nn.Sequential(nn.Linear(4, 3), *last).eval(), shape=(4,)))


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-3])
def test_after_a_last_log_softmax_the_answers_are_those_of_the_scores_before_it(scale):
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        x = torch.rand(30, 4)
        with torch.no_grad():
            net[2].weight.mul_(scale)
    bare = Classifier.of(net, shape=(4,))
    model = Classifier.of(nn.Sequential(*net, nn.LogSoftmax(1)).eval(), shape=(4,))
    y = bare(x).argmax(1)
    for certificate in (interval, crown, lipschitz):
        plain, ours = certificate(bare, x, y, "linf").radius, certificate(model, x, y, "linf").radius
        assert (ours <= plain * (1 + 1e-3)).all()
        assert (ours >= 0.98 * plain - 1e-4).all()
    affine = Classifier.of(nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1)).eval(), shape=(4,))
    assert (CERTIFICATES["affine"](affine, x, affine(x).argmax(1), "l2").radius > 0).any()


class ThroughAView(nn.Module):
    """What is done to a view of a tensor in place is done to the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.skip = (linear(torch.full((1, 16), 1 / 16), torch.full((1,), -0.2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        k, h = self.skip(x), self.fc(x)
        h.view(len(h), -1).relu_()
        return F.linear(k - h + 0.05, torch.tensor([[1.0], [0.0]]))


class IntoAConstant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        kept = torch.zeros_like(torch.ones(len(x), 2))
        kept.add_(x[:, :2])
        return kept + x[:, :2]


@pytest.mark.parametrize(
    ("net", "said"),
    [(ThroughAView(), "changed in place through a view of it"), (IntoAConstant(), "no function of the input"),
     (nn.Sequential(OneVsOne(3)), "a comparison")],
)  # fmt: skip
def test_what_is_written_where_the_graph_does_not_see_it_is_refused(net, said):
    shape = (3,) if isinstance(net, nn.Sequential) else (16,)
    with pytest.raises(UnknownOperator, match=said):
        read(Classifier.of(net.eval(), shape=shape))


def test_a_view_that_is_used_alone_may_be_written_to():
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = (x * 2).view(len(x), -1)
            h.relu_()
            return h[:, :2]

    assert read(Classifier.of(Plain().eval(), shape=(2, 2))).last == 4
