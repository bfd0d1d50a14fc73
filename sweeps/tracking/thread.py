"""The projection in a thread: training never waits for it, and the end of a study for a stated time at most."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sweeps.planning.plan import Plan
from sweeps.tracking.projection import MlflowProjection

__all__ = ["PATIENCE_SECONDS", "ProjectionThread"]

PATIENCE_SECONDS = 25.0
"""How long the study's end waits for a store that does not answer; one that goes on taking what it is sent is waited
for."""
log = logging.getLogger(__name__)


class ProjectionThread:
    """Projects in the background while a study runs; a fault of the tracking store is logged and tried again."""

    def __init__(
        self,
        ledger_url: str,
        tracking_uri: str,
        artifacts: str | None,
        study: str,
        plan: Plan,
        checkpoints: Callable[[str], Path] | None = None,
        *,
        every_seconds: float = 3.0,
    ) -> None:
        self._arguments = (ledger_url, tracking_uri, artifacts, study, plan, checkpoints)
        self._every, self._stop = every_seconds, threading.Event()
        self._projection: MlflowProjection | None = None
        self.fault: Exception | None = None
        self.cpu_seconds = 0.0
        """Of this thread, without what the import of MLflow took."""
        self._thread = threading.Thread(target=self._loop, name="mlflow-projection", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            stopping = self._stop.wait(self._every if self._projection else 0)
            try:
                if self._projection is None:
                    self._projection = MlflowProjection(*self._arguments)
                self._projection.sync()
                self.fault = None
            except Exception as error:
                # What the store did of the last request is not known: it is asked anew.
                self._projection, self.fault = None, error
                log.warning("MLflow at %s: %s", self._arguments[1], error)
                self._stop.wait(self._every)
            self.cpu_seconds = time.thread_time()
            if stopping:
                return

    def finish(self, timeout: float = PATIENCE_SECONDS) -> MlflowProjection | None:
        """Stop after one last sync; the projection, or None if MLflow has not answered for ``timeout`` seconds."""
        self._stop.set()
        asked = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.1)
            answered = self._projection.answered_at if self._projection else 0.0
            if time.monotonic() - max(asked, answered) > timeout:
                self.fault = TimeoutError(f"no answer within {timeout:.0f} s")
                return None
        return None if self.fault else self._projection
