"""The metrics against the references, scikit-learn and hand-made cases."""

import math

import numpy as np
import pytest
import references
import torch
from sklearn import metrics as sklearn_metrics
from sklearn.neighbors import KNeighborsClassifier

from trainables.parts.classification import prediction_columns, prediction_rows
from trainables.parts.evaluation import auc_macro, classification_metrics, confusion_matrix, knn_accuracy


def guesses(seed, n=200, classes=4, truth_classes=4):
    random = np.random.default_rng(seed)
    truth = random.integers(0, truth_classes, n)
    guess = np.where(random.random(n) < 0.6, truth, random.integers(0, classes, n))
    return truth, guess


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_the_plain_counts_and_scikit_learn(seed):
    truth, guess = guesses(seed)
    confusion = confusion_matrix(truth, guess, 4)
    assert confusion.dtype == np.int64
    assert (confusion == sklearn_metrics.confusion_matrix(truth, guess, labels=range(4))).all()
    ours = classification_metrics(confusion)
    assert list(ours) == ["accuracy", "precision", "sensitivity", "specificity", "f1"]
    assert ours == pytest.approx(references.metrics(truth.tolist(), guess.tolist(), 4), rel=1e-12)
    assert ours["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, guess))
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(truth, guess, average="macro")
    assert (ours["precision"], ours["sensitivity"], ours["f1"]) == pytest.approx((precision, recall, f1))
    ovr = sklearn_metrics.multilabel_confusion_matrix(truth, guess)
    assert ours["specificity"] == pytest.approx(np.mean([m[0, 0] / m[0].sum() for m in ovr]))


def test_rows_of_the_confusion_matrix_are_the_truth():
    assert confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1]), 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_a_class_never_predicted_has_precision_and_f1_0():
    truth, guess = [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 0, 1]
    ours = classification_metrics(confusion_matrix(truth, guess, 3))
    assert ours["precision"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert ours["sensitivity"] == pytest.approx(2 / 3)
    assert ours["f1"] == pytest.approx((0.8 + 0.8 + 0) / 3)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(truth, guess, average="macro", zero_division=0)
    assert (ours["precision"], ours["sensitivity"], ours["f1"]) == pytest.approx((precision, recall, f1))


def test_a_class_that_the_truth_lacks_is_left_out_of_the_means():
    truth, guess = guesses(1, truth_classes=3)
    ours = classification_metrics(confusion_matrix(truth, guess, 4))
    assert (guess == 3).any()
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(truth, guess, labels=[0, 1, 2], average="macro")
    assert (ours["precision"], ours["sensitivity"], ours["f1"]) == pytest.approx((precision, recall, f1))
    assert ours == pytest.approx(references.metrics(truth.tolist(), guess.tolist(), 4))
    perfect = classification_metrics(confusion_matrix(truth, truth, 4))
    assert perfect == dict.fromkeys(perfect, 1.0)


def test_all_wrong_is_0_and_of_a_single_class_the_specificity_is_undefined():
    assert classification_metrics([[0, 3], [2, 0]]) == {"accuracy": 0, "precision": 0, "sensitivity": 0, "specificity": 0, "f1": 0}
    single = {"accuracy": 1, "precision": 1, "sensitivity": 1, "specificity": None, "f1": 1}
    assert classification_metrics(np.array([[5, 0], [0, 0]])) == single
    assert references.metrics([0] * 5, [0] * 5, 2) == single


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.ones((2, 3)), np.ones(4), []], ids=str)
def test_metrics_of_no_image_or_no_square_are_refused(matrix):
    with pytest.raises(ValueError, match="square confusion matrix with at least one image"):
        classification_metrics(matrix)


def test_labels_out_of_range_not_whole_or_of_another_length_are_refused():
    for labels, predictions in (([0, 4], [0, 1]), ([0, 1], [-1, 1]), ([0.5, 1.0], [0, 1]), ([0, 1], [0]), ([[0]], [[0]])):
        with pytest.raises(ValueError, match=r"labels|predictions"):
            confusion_matrix(labels, predictions, 4)
    assert confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_scikit_learns_one_against_the_rest(ties):
    random = np.random.default_rng(3)
    truth = random.integers(0, 4, 300)
    scores = torch.tensor(random.normal(size=(300, 4)) + 1.5 * np.eye(4)[truth]).softmax(1)
    if ties:
        scores = (scores * 8).round() + 1
        scores = scores / scores.sum(1, keepdim=True)
    expected = sklearn_metrics.roc_auc_score(truth, scores.numpy(), multi_class="ovr", average="macro")
    assert auc_macro(truth, scores.numpy()) == pytest.approx(expected, rel=1e-9)
    assert auc_macro(torch.tensor(truth), scores) == pytest.approx(expected, rel=1e-3)


def test_auc_has_its_closed_forms():
    truth = [0, 0, 1, 1]
    right = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    assert auc_macro(truth, right) == 1 and auc_macro(truth, right[:, ::-1]) == 0
    assert auc_macro(truth, np.full((4, 2), 0.5)) == 0.5
    assert auc_macro(truth, np.pad(right, ((0, 0), (0, 2)))) == 1  # classes that the truth lacks


def test_auc_without_two_classes_or_with_nan_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        auc_macro([1, 1], np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match="finite"):
        auc_macro([0, 1], np.array([[math.nan, 1], [0, 1]]))
    for labels in ([0, 2], [0, -1], [0]):
        with pytest.raises(ValueError, match="labels"):
            auc_macro(labels, np.full((2, 2), 0.5))


def embeddings(n, seed, classes=4, dim=8):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    return torch.randn(n, dim, generator=generator) + 1.2 * torch.eye(dim)[labels], labels


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (500, 0.5)])
def test_nearest_neighbour_accuracy_equals_the_reference_and_scikit_learn(k, temperature):
    (train_z, train_y), (z, y) = embeddings(60, 0), embeddings(50, 1)
    ours = knn_accuracy(train_z, train_y, z, y, k, temperature)
    assert ours == references.knn_accuracy(train_z.tolist(), train_y.tolist(), z.tolist(), y.tolist(), k, temperature)
    unit = [torch.nn.functional.normalize(rows, dim=1).numpy() for rows in (train_z, z)]
    peer = KNeighborsClassifier(min(k, 60), metric="cosine", algorithm="brute", weights=lambda away: np.exp((1 - away) / temperature))
    assert ours == pytest.approx(peer.fit(unit[0], train_y.numpy()).score(unit[1], y.numpy()))


def test_nearest_neighbours_do_not_depend_on_the_length_of_the_rows_nor_on_the_chunks():
    (train_z, train_y), (z, y) = embeddings(60, 0), embeddings(2500, 1)
    whole = knn_accuracy(train_z, train_y, z, y)
    assert knn_accuracy(train_z * torch.linspace(0.1, 3, 60)[:, None], train_y, z * 7, y) == whole
    halves = [knn_accuracy(train_z, train_y, z[part], y[part]) for part in (slice(0, 1250), slice(1250, None))]
    assert whole == pytest.approx(sum(halves) / 2) and 0.3 < whole < 1


def test_a_set_is_its_own_nearest_neighbour_and_shuffled_labels_are_not():
    z, y = embeddings(80, 0)
    assert knn_accuracy(z, y, z, y, k=1) == 1
    assert knn_accuracy(z, y[torch.randperm(80, generator=torch.Generator().manual_seed(0))], z, y, k=1) < 0.5


def test_a_very_low_temperature_does_not_overflow():
    (train_z, train_y), (z, y) = embeddings(60, 0), embeddings(50, 1)
    assert knn_accuracy(train_z, train_y, z, y, 20, 1e-4) == knn_accuracy(train_z, train_y, z, y, 1)


def test_nearest_neighbours_of_nothing_are_refused():
    z, y = embeddings(4, 0)
    for arguments in ((z[:0], y[:0], z, y), (z, y, z[:0], y[:0]), (z, y[:2], z, y)):
        with pytest.raises(ValueError, match="a label each"):
            knn_accuracy(*arguments)
    for k, temperature in ((0, 0.07), (5, 0.0)):
        with pytest.raises(ValueError, match="at least 1"):
            knn_accuracy(z, y, z, y, k, temperature)


def test_the_auc_of_a_sure_network_is_that_of_its_recorded_probabilities():
    labels = torch.arange(24).repeat(20)
    logits = torch.randn((480, 24), generator=torch.Generator().manual_seed(0))
    logits = 15 * (logits + 3.5 * torch.eye(24)[labels])
    rows, names = prediction_rows(logits), tuple(map(str, range(24)))
    assert auc_macro(labels, rows) == pytest.approx(auc_macro(labels, logits.double().softmax(1).numpy()), abs=1e-5)
    said = prediction_columns(logits, names)  # of new images: the same numbers as in a record
    assert said.pop("prediction") == [names[np.argmax(row)] for row in rows]
    assert list(said) == [f"p_{name}" for name in names] and [list(row) for row in zip(*said.values(), strict=True)] == rows
    assert prediction_columns(logits[:0], names) == {name: [] for name in ("prediction", *said)}
