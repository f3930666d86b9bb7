"""Models that only answer: what they answer is what onnxruntime and scikit-learn answer."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from calipers.attacks import hopskipjump, noise, pgd, square
from calipers.errors import BadInput
from calipers.models import digest, from_sklearn, load
from calipers.threats import Threat
from tests.models.test_sklearn import points, quiet_fit

onnx = pytest.importorskip("onnx", reason="ONNX models are written with the package onnx")
pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime")

ESTIMATORS = [
    DecisionTreeClassifier(max_depth=4, random_state=0),
    RandomForestClassifier(5, random_state=0),
    KNeighborsClassifier(3),
    NearestCentroid(),
    SVC(),
    make_pipeline(StandardScaler(), SVC()),
    make_pipeline(Normalizer(), DecisionTreeClassifier(random_state=0)),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("classes", [2, 3])
def test_an_estimator_without_a_form_in_torch_answers_as_it_is(estimator, classes):
    x, y = points(classes=classes)
    fitted = quiet_fit(estimator, x, y)
    twin, model = from_sklearn(pickle.loads(pickle.dumps(fitted))), from_sklearn(fitted)
    answer = model(torch.from_numpy(x)).argmax(1)
    assert model.dtype == torch.float64
    assert (np.array(model.class_names)[answer] == fitted.predict(x).astype(str)).all()
    assert digest(model) == digest(twin)


def onnx_file(path, weight, *, batch="n", labels=False, shape=(4,)):
    """y = Wx as an ONNX file, with scores or, through ArgMax, labels."""
    h = onnx.helper
    size, classes = weight.shape
    nodes = [h.make_node("Reshape", ["x", "flat"], ["v"]), h.make_node("MatMul", ["v", "w"], ["scores"])]
    out = h.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [batch, classes])
    if labels:
        nodes.append(h.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
        out = h.make_tensor_value_info("label", onnx.TensorProto.INT64, [batch])
    given = h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, *shape])
    constants = [
        onnx.numpy_helper.from_array(weight.astype(np.float32), "w"),
        onnx.numpy_helper.from_array(np.array([-1, size]), "flat"),
    ]
    graph = h.make_graph(nodes, "g", [given], [out], constants)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


WEIGHT = np.random.default_rng(0).normal(size=(4, 3))


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_an_onnx_file_answers_what_its_graph_says_whatever_its_batch_size(tmp_path, batch):
    x = torch.rand(7, 2, 2)
    model = load(onnx_file(tmp_path / "m.onnx", WEIGHT, batch=batch), shape=(2, 2))
    assert torch.allclose(model(x), x.flatten(1) @ torch.from_numpy(WEIGHT).float(), atol=1e-6)


def test_labels_alone_become_one_hot_scores(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", WEIGHT, labels=True)
    model = load(path, shape=(4,), class_names=("a", "b", "c"))
    x = torch.rand(9, 4)
    assert torch.equal(model(x).argmax(1), (x @ torch.from_numpy(WEIGHT).float()).argmax(1))
    assert model(x).unique().tolist() == [0, 1]
    with pytest.raises(BadInput, match="logits of shape"):
        load(path, shape=(4,))


def test_another_file_has_another_digest_and_a_worker_gets_the_same_model(tmp_path):
    one = load(onnx_file(tmp_path / "a.onnx", WEIGHT), shape=(4,))
    two = load(onnx_file(tmp_path / "b.onnx", 2 * WEIGHT), shape=(4,))
    assert digest(one) != digest(two)
    travelled, x = pickle.loads(pickle.dumps(one)), torch.rand(3, 4)
    assert torch.equal(travelled(x), one(x))


def test_attacks_without_gradients_break_what_has_none_and_those_with_say_so(tmp_path):
    model = load(onnx_file(tmp_path / "m.onnx", WEIGHT), shape=(4,), box=(-9, 9))
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    slope = torch.from_numpy(WEIGHT).float()
    gap = (model(x).gather(1, y[:, None]) - model(x)) / (slope[:, y].T[:, :, None] - slope).norm(dim=1)
    exact = gap.scatter(1, y[:, None], torch.inf).amin(1)
    found = hopskipjump(model, x, y, Threat("l2"), steps=1000).distance
    assert (found >= exact * (1 - 1e-5)).all()
    assert (found <= 1.3 * exact).all()
    assert square(model, x, y, Threat("l2", float(exact.max() * 1.5)), steps=300).success.all()
    assert noise(model, x, y, Threat("linf", 5.0)).success.all()
    with pytest.raises(BadInput, match=r"has no gradient with respect to its input; use an attack without gradients"):
        pgd(model, x, y, Threat("l2", 0.1))


def test_a_file_with_two_inputs_or_none_that_is_a_tensor_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no network")
    with pytest.raises(BadInput, match="expected an ONNX model"):
        load(str(tmp_path / "m.onnx"), shape=(4,))
