"""The faster form of a network is the same function, with the same input gradient."""

import pytest
import torch
from torch import nn

from calipers.models import Classifier, faster


def grads(model: Classifier, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    z = x.clone().requires_grad_()
    logits = model(z)
    (grad,) = torch.autograd.grad((logits * torch.arange(1.0, 1 + logits.shape[1])).sum(), z)
    return logits.detach(), grad


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    ("kernel", "padding"), [(5, 2), (3, 1), (3, 0), ((5, 3), (1, 2)), (3, "same"), (1, 1), (2, 4)], ids=str
)
@pytest.mark.parametrize("stride", [1, 2, (3, 1)], ids=str)
@pytest.mark.parametrize("size", [(12, 12), (13, 10)], ids=str)
def test_logits_and_input_gradients_agree(channels, kernel, padding, stride, size):
    if padding == "same" and stride != 1:
        pytest.skip("padding 'same' has no strides")
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        first = nn.Conv2d(channels, 8, kernel, stride, padding)
        features = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2))
        net = nn.Sequential(features, nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        x = torch.rand(3, channels, *size)
        net = nn.Sequential(*net, nn.Linear(net(x).shape[1], 4)).eval()
    model = Classifier.of(net, shape=(channels, *size))
    quick = faster(model)
    assert quick is not model
    for ours, truth in zip(grads(quick, x), grads(model, x), strict=True):
        assert torch.allclose(ours, truth, rtol=1e-4, atol=1e-5)


def test_the_users_network_is_left_alone_and_a_hook_or_another_class_is_respected():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
    before = {name: (value.clone(), value.stride()) for name, value in net.state_dict().items()}
    model = Classifier.of(net, shape=(1, 8, 8))
    quick = faster(model)
    quick(torch.rand(2, 1, 8, 8))
    assert all(torch.equal(v, before[k][0]) and v.stride() == before[k][1] for k, v in net.state_dict().items())

    class Own(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    own = nn.Sequential(Own(1, 4, 3), *list(net)[1:]).eval()
    assert faster(Classifier.of(own, shape=(1, 8, 8))).module is own
    net[0].register_forward_hook(lambda part, args, out: 3 * out)
    assert faster(model) is model


def test_what_is_changed_after_the_search_began_is_seen_by_the_next():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
    model, x = Classifier.of(net, shape=(1, 8, 8)), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        net[0].weight.mul_(-1)
    assert torch.allclose(faster(model)(x), model(x), atol=1e-5)


def test_under_autocast_it_is_as_near_the_truth_as_the_network_itself():
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 4))
        x = torch.rand(6, 1, 14, 14)
    model = Classifier.of(net.eval(), shape=(1, 14, 14))
    logits, grad = grads(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [grads(form, x) for form in (model, faster(model))]
    off = [float((own[1] - grad).abs().max()) for own in rounded]
    assert 0 < off[1] <= 2 * off[0] + 1e-3
    assert torch.allclose(rounded[1][0].float(), logits, atol=0.1)
