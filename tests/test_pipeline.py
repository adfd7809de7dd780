"""Two threads and a bounded wait between them: order, bounds, errors, and an end at any time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from siammask.pipeline import Ahead, Behind


def numbers(count: int, seen: list[int] | None = None, error: Exception | None = None) -> Iterator[int]:
    for number in range(count):
        if seen is not None:
            seen.append(number)
        yield number
    if error is not None:
        raise error


def feed(behind: Behind[int], items: Iterable[int], put: list[int] | None = None) -> None:
    for number in items:
        behind.put(number)
        if put is not None:
            put.append(number)


def eventually(condition) -> bool:  # type: ignore[no-untyped-def]
    """Whether it comes true within seconds (a busy machine is no failure)."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


def test_ahead_gives_all_in_order_and_no_more_than_its_depth_ahead() -> None:
    seen: list[int] = []
    ahead = Ahead(numbers(20, seen), depth=3)
    assert eventually(lambda: len(seen) == 4)  # three wait, one is held
    taken = []
    for number in ahead:
        taken.append(number)
        assert len(seen) <= len(taken) + 4
    assert taken == list(range(20))
    with pytest.raises(StopIteration):
        next(ahead)


def test_ahead_raises_in_the_place_of_the_next_item() -> None:
    error = OSError("broken")
    ahead = Ahead(numbers(3, error=error))
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="broken") as caught:
        next(ahead)
    assert caught.value is error
    with pytest.raises(StopIteration):
        next(ahead)


def test_ahead_closes_its_generator_when_nobody_wants_more() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = Ahead(endless())
    next(ahead)
    ahead.close()
    assert closed.wait(10)
    ahead.close()
    assert list(ahead) == []


def test_newest_keeps_the_first_and_the_last_and_counts_the_rest() -> None:
    done = threading.Event()

    def live() -> Iterator[int]:
        yield from range(6)
        done.set()

    ahead = Ahead(live(), newest=True)
    assert not done.wait(0.05)  # 0 is kept until it is taken
    assert next(ahead) == 0
    assert done.wait(10)
    assert list(ahead) == [5]
    assert ahead.dropped == 4


def test_behind_does_all_in_order_then_finishes() -> None:
    done: list[object] = []
    behind = Behind(done.append, lambda: done.append("finished"))
    for number in range(20):
        behind.put(number)
    behind.close()
    assert done == [*range(20), "finished"]
    behind.close()
    assert done.count("finished") == 1
    with pytest.raises(RuntimeError, match="closed"):
        behind.put(1)


def test_behind_makes_the_faster_one_wait() -> None:
    go = threading.Semaphore(0)
    done: list[int] = []

    def work(number: int) -> None:
        go.acquire()
        done.append(number)

    behind = Behind(work, depth=2)
    put: list[int] = []

    feeder = threading.Thread(target=feed, args=(behind, range(6), put))
    feeder.start()
    assert eventually(lambda: len(put) == 2)
    time.sleep(0.05)
    assert len(put) == 2
    go.release()
    assert eventually(lambda: len(put) == 3)
    go.release(6)
    feeder.join(10)
    behind.close()
    assert done == list(range(6))


def test_behind_raises_what_the_work_raised_once_and_finishes() -> None:
    error = OSError("disk full")
    done: list[object] = []

    def work(number: int) -> None:
        if number == 2:
            raise error
        done.append(number)

    behind = Behind(work, lambda: done.append("finished"))
    with pytest.raises(OSError, match="disk full") as caught:
        feed(behind, range(1000))
    assert caught.value is error
    behind.close()  # has been told
    assert done == [0, 1, "finished"]


def test_behind_tells_at_the_end_what_nobody_heard() -> None:
    def fail() -> None:
        raise OSError("cannot finish")

    behind = Behind(print, fail)
    with pytest.raises(OSError, match="cannot finish"):
        behind.close()
