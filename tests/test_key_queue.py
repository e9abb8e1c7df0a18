"""The queue against a plain list: order, labels, wrap-around, checkpoint, and gradients around it."""

import numpy as np
import pytest
import references
import torch

from trainables.parts.key_queue import KeyQueue


def entries(queue):
    """What the queue holds, oldest first, as the reference has it."""
    size, pointer = len(queue.labels), int(queue.pointer)
    order = [(pointer + i) % size for i in range(size)]
    return [(tuple(queue.keys[i].tolist()), int(queue.labels[i])) for i in order if queue.present[i]]


def batches(sizes, dim=3):
    """Keys that count upwards, so that each is known again; labels 0 to 3."""
    start = 0
    for n in sizes:
        numbers = torch.arange(start, start + n)
        yield (numbers[:, None] + torch.arange(dim) / 8).float(), numbers % 4
        start += n


@pytest.mark.parametrize(
    "sizes", [[4, 4, 4], [3, 3, 3, 3, 3], [8], [8, 8, 1], [5, 0, 7], [9], [21, 2], [16, 16], [1] * 20, [3, 30, 3]], ids=str
)
def test_first_in_is_first_out_whatever_the_batch(sizes):
    queue, reference = KeyQueue(8, 3), references.Queue(8)
    for keys, labels in batches(sizes):
        queue.enqueue(keys, labels)
        reference.enqueue(keys.tolist(), labels.tolist())
        assert entries(queue) == reference.entries
    assert int(queue.pointer) == sum(sizes) % 8


def test_a_new_queue_is_empty_and_fills_slot_by_slot():
    queue = KeyQueue(5, 2)
    assert not queue.present.any() and (queue.keys == 0).all() and (queue.labels == -1).all()
    queue.enqueue(torch.ones(3, 2), torch.tensor([2, 0, 1]))
    assert queue.present.tolist() == [True, True, True, False, False]
    assert queue.labels.tolist() == [2, 0, 1, -1, -1]


def test_keys_without_labels_are_present_and_labelled_0():
    queue = KeyQueue(4, 2)
    queue.enqueue(torch.ones(3, 2))
    assert queue.labels.tolist() == [0, 0, 0, -1] and queue.present.sum() == 3


def test_a_queue_read_from_its_state_goes_on_as_if_nothing_had_happened():
    straight, first = KeyQueue(8, 3), KeyQueue(8, 3)
    parts = list(batches([5, 6, 4, 7]))
    for keys, labels in parts:
        straight.enqueue(keys, labels)
    for keys, labels in parts[:2]:
        first.enqueue(keys, labels)
    state = first.state_dict()
    assert sorted(state) == ["keys", "labels", "pointer"]
    second = KeyQueue(8, 3)
    second.load_state_dict(state)
    for keys, labels in parts[2:]:
        second.enqueue(keys, labels)
    for name, buffer in straight.state_dict().items():
        assert torch.equal(buffer, second.state_dict()[name]), name


def test_an_owned_queue_keeps_whose_each_key_is_and_reads_it_back():
    queue = KeyQueue(4, 2, owned=True)
    assert queue.owners.tolist() == [-1] * 4
    for start in (0, 3):
        queue.enqueue(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64), torch.arange(start, start + 3))
    assert queue.owners.tolist() == [4, 5, 2, 3]
    again = KeyQueue(4, 2, owned=True)
    again.load_state_dict(queue.state_dict())
    assert torch.equal(again.owners, queue.owners)


def test_the_queue_stays_where_it_is_in_memory_whatever_enters():
    queue = KeyQueue(4, 2)
    places = {name: buffer.data_ptr() for name, buffer in queue.state_dict().items()}
    for keys, labels in batches([2, 3, 9], dim=2):
        queue.enqueue(keys, labels)
    assert {name: buffer.data_ptr() for name, buffer in queue.state_dict().items()} == places


def test_a_loss_goes_backward_before_the_keys_enter_and_is_refused_afterwards():
    queue = KeyQueue(4, 2)
    queue.enqueue(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    query = torch.ones(1, 2, requires_grad=True)
    (query @ queue.keys.T).sum().backward()
    assert query.grad.tolist() == [[4.0, 6.0]]
    loss = (query @ queue.keys.T).sum()
    queue.enqueue(torch.full((4, 2), 9.0))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_gradient_enters_the_queue():
    queue = KeyQueue(4, 2)
    queue.enqueue(torch.ones(2, 2, requires_grad=True) * 2)
    assert not queue.keys.requires_grad


def test_half_precision_keys_are_kept_in_float32():
    queue = KeyQueue(4, 2)
    queue.enqueue(torch.full((2, 2), 0.5, dtype=torch.bfloat16))
    assert queue.keys.dtype == torch.float32 and queue.keys[0, 0] == 0.5


def test_keys_that_do_not_fit_and_queues_without_room_are_refused():
    queue = KeyQueue(4, 2)
    for keys, labels in ((torch.ones(2, 3), None), (torch.ones(2), None), (torch.ones(2, 2), torch.zeros(3, dtype=torch.int64))):
        with pytest.raises(ValueError, match=r"takes keys \(N, 2\)"):
            queue.enqueue(keys, labels)
    for size, dim in ((0, 2), (4, 0), (-1, 2)):
        with pytest.raises(ValueError, match="at least 1 slot"):
            KeyQueue(size, dim)


def test_the_moving_average_reference_has_its_closed_form():
    """After n steps towards a fixed query encoder a share decay^n of the start is left."""
    weights = [np.ones((2, 3)), np.full(4, 5.0)]
    for _ in range(10):
        weights = references.moving_average(weights, [np.zeros((2, 3)), np.full(4, 1.0)], 0.9)
    assert weights[0] == pytest.approx(np.full((2, 3), 0.9**10)) and weights[1] == pytest.approx(np.full(4, 1 + 4 * 0.9**10))
