from __future__ import annotations

import threading

from sevkit.testing.kubevirt.work_queue import WorkQueue

ONE, TWO = ("ns", "one"), ("ns", "two")


def test_a_key_that_waits_is_not_added_twice() -> None:
    queue = WorkQueue(lambda: 0.0)
    for key in (ONE, TWO, ONE):
        queue.add(key)
    assert (queue.take(), queue.take()) == (ONE, TWO)
    queue.close()
    assert queue.take() is None


def test_a_key_that_is_added_while_it_is_worked_on_comes_again_after_that() -> None:
    queue = WorkQueue(lambda: 0.0)
    queue.add(ONE)
    assert queue.take() == ONE
    queue.add(ONE)
    queue.add(TWO)
    assert queue.take() == TWO
    queue.done(ONE)
    assert queue.take() == ONE


def test_a_key_that_is_due_later_waits_for_the_given_clock() -> None:
    now = [0.0]
    queue = WorkQueue(lambda: now[0])
    queue.add_at(TWO, 240.0)
    queue.add(ONE)
    assert queue.take() == ONE
    found: list[object] = []
    waiter = threading.Thread(target=lambda: found.append(queue.take()))
    waiter.start()
    waiter.join(timeout=0.1)
    assert waiter.is_alive()
    now[0] = 240.0
    waiter.join(timeout=5)
    assert found == [TWO]


def test_closing_lets_everybody_go() -> None:
    queue = WorkQueue(lambda: 0.0)
    found: list[object] = []
    waiters = [threading.Thread(target=lambda: found.append(queue.take())) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    queue.close()
    for waiter in waiters:
        waiter.join(timeout=5)
    assert found == [None, None, None]
