"""A thread that delivers journals while their runs go on."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from pde_train.tracking.delivery import Store, away, first_line, masked

SWITCH_SECONDS = 5e-4
"""For how long the thread may keep the interpreter from a training loop that comes back from compiled code."""

RETRY_SECONDS = 10.0
"""Between two tries to reach a store that is away."""

log = logging.getLogger(__name__)


class Courier:
    """Delivers the journals of the folders that it is told of; a store that is away costs one warning.

    The thread ends with the process: what it has not delivered by then is still in the journals.
    """

    def __init__(self, store: Store):
        self.store = store
        self._folders: set[Path] = set()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    def nudge(self, folder: Path) -> None:
        """There is something new in this folder."""
        self._folders.add(folder)
        self._news.set()
        if self._thread is None:
            sys.setswitchinterval(SWITCH_SECONDS)
            self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
            self._thread.start()

    def drain(self, folders: Iterable[Path]) -> None:
        """Deliver these folders, in the calling thread, unless the store is found to be away."""
        for folder in folders:
            if not self._deliver(folder):
                return

    def _work(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            while self._folders:
                folder = self._folders.pop()
                if not self._deliver(folder):
                    self._folders.add(folder)
                    time.sleep(RETRY_SECONDS)

    def _deliver(self, folder: Path) -> bool:
        """Whether the store answered; what it refuses is left in its journal."""
        try:
            self.store.deliver(folder)
        except Exception as error:
            if not self._warned:
                log.warning(
                    "the tracking store %s did not take what %s has for it (%s): the run goes on, its folder keeps "
                    "everything, and python -m pde_train.sync delivers it",
                    masked(self.store.uri),
                    folder,
                    first_line(error),
                )
            self._warned = True
            return not away(error, self.store.uri)
        return True
