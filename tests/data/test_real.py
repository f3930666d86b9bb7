"""The real files, where $CALIPERS_DATA has them."""

import pytest

from calipers.data import load, verify

pytestmark = pytest.mark.mnist


@pytest.mark.parametrize(("split", "count"), [("test", 10_000), ("train", 60_000)])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_and_fashion(real, name, split, count):
    data = load(name, split=split, home=real(name))
    assert len(data) == count
    assert data.shape == (1, 28, 28)
    assert (data.x.min().item(), data.x.max().item()) == (0.0, 1.0)
    # Fashion-MNIST is balanced; MNIST is not.
    assert (data.y.bincount() == count // 10).all().item() == (name == "fashion-mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_and_fashion_are_the_official_bytes(real, name):
    assert [found.what for found in verify(name, real(name)) if not found.ok] == []


def test_first_labels(real):
    assert load("mnist", home=real("mnist")).y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert load("fashion-mnist", home=real("fashion-mnist")).y[:4].tolist() == [9, 2, 1, 1]


def test_cifar10(real):
    home = real("cifar10")
    train, test = load("cifar10", split="train", home=home), load("cifar10", home=home)
    assert train.x.shape == (50_000, 3, 32, 32)
    assert (train.y.bincount() == 5000).all()
    assert [test.class_names[k] for k in test.y[:4]] == ["cat", "ship", "ship", "airplane"]
    assert (len(test) == 10_000) == ("examples" not in test.provenance)
    assert all(found.ok for found in verify("cifar10", home) if found.file.name != "test_batch.bin")
