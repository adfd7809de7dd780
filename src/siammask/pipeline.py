"""Work beside other work: `Ahead` pulls from an iterator in a thread, `Behind` does things in one, both in order.

Both are bounded, so memory is too: who is faster waits. What is raised in a thread is raised in the caller's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 4  # items that may wait between two stages: evens out frames that take longer, and holds few in memory
_POLL = 0.2  # seconds; an endless wait for a lock would not see Ctrl-C on Windows
_PATIENCE = 2.0  # seconds for a reader to notice that nobody wants more; a camera that hangs is left behind


class Ahead(Iterator[T]):
    """The items of a generator, pulled by a thread that is up to `depth` items ahead.

    What the generator raises is raised in the place of its next item. With `newest` the thread never waits: an item
    that nobody has taken when the next one comes is dropped and counted (not the very first, which others refer to).
    """

    def __init__(self, items: Generator[T, None, None], depth: int = DEPTH, newest: bool = False) -> None:
        self.dropped = 0
        self._items, self._depth, self._newest = items, 1 if newest else depth, newest
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._begun = self._ended = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._pull, name="siammask-ahead", daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        with self._changed:
            while not self._ready and not self._ended:
                self._changed.wait(_POLL)
            if self._ready:
                self._begun = True
                self._changed.notify_all()
                return self._ready.popleft()
            error, self._error = self._error, None
        raise StopIteration if error is None else error

    def close(self) -> None:
        """Stop pulling and close the generator; a second call does nothing."""
        with self._changed:
            self._stopped = self._ended = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(_PATIENCE)

    def _pull(self) -> None:
        try:
            for item in self._items:
                if not self._offer(item):
                    break
        except BaseException as error:  # the caller's thread is told
            self._error = error
        finally:
            self._items.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _offer(self, item: T) -> bool:
        """Put an item where the caller finds it; False when nobody wants more."""
        with self._changed:
            while len(self._ready) >= self._depth and not self._stopped and not (self._newest and self._begun):
                self._changed.wait()
            if self._stopped:
                return False
            if len(self._ready) >= self._depth:
                self._ready.popleft()
                self.dropped += 1
            self._ready.append(item)
            self._changed.notify_all()
            return True


class Behind(Generic[T]):
    """Does `work` with every item that is put, in order, in a thread of its own, and `finish` at the end.

    `put` waits where `depth` items have not been worked on. What `work` or `finish` raises is raised by the next `put`,
    or else by `close`; what waited then is left undone, but `finish` is called.
    """

    def __init__(
        self, work: Callable[[T], None], finish: Callable[[], None] = lambda: None, depth: int = DEPTH
    ) -> None:
        self._work, self._finish, self._depth = work, finish, depth
        self._waiting: deque[T] = deque()
        self._error: BaseException | None = None
        self._closed = self._told = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="siammask-behind", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item."""
        with self._changed:
            while len(self._waiting) >= self._depth and self._error is None and not self._closed:
                self._changed.wait(_POLL)
            self._tell()
            if self._closed:
                raise RuntimeError("This lane is closed; nothing more can be put.")
            self._waiting.append(item)
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until everything that was put is done and finished; a second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        while self._thread.is_alive():
            self._thread.join(_POLL)
        if not self._told:
            self._tell()

    def _tell(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def _run(self) -> None:
        try:
            try:
                while True:
                    with self._changed:
                        while not self._waiting and not self._closed:
                            self._changed.wait()
                        if not self._waiting:
                            break
                        item = self._waiting[0]
                    self._work(item)
                    with self._changed:  # only now, so that `depth` counts what is being worked on
                        self._waiting.popleft()
                        self._changed.notify_all()
                    del item
            finally:
                self._finish()
        except BaseException as error:  # the caller's thread is told
            with self._changed:
                self._error = error
                self._waiting.clear()
                self._changed.notify_all()
