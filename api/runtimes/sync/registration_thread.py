"""Uploaded models in the sync runtime: a background thread registers one after the other, each in its own process."""

import threading

from sqlalchemy import Engine

from shared.background import Background
from shared.config.settings import Settings
from shared.handlers.registrations import claim_next
from shared.handlers.table import APART_HANDLERS
from shared.jobs import transitions

IDLE_SECONDS = 5.0  # how often it looks without being woken


class RegistrationThread:
    """Registers uploads beside the requests."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._wake = threading.Event()
        self._thread = Background(self._run, name="registrations", wake=self._wake.set)

    def start(self) -> None:
        """Take back what the last process held, and begin."""
        self._wake.set()
        self._thread.start()

    def stop(self) -> None:
        """Stop; a proof that runs is ended, and begun again when the service starts."""
        self._thread.stop(10)

    def wake(self) -> None:
        """Look for uploads now; safe from any thread, returns at once."""
        self._wake.set()

    def _run(self) -> None:
        with self._engine.begin() as connection:  # nobody else claims them: what runs was held by one that has ended
            transitions.recover_apart(connection)
        while not self._thread.is_stopping:
            self._wake.wait(IDLE_SECONDS)
            self._wake.clear()
            while not self._thread.is_stopping and self._step():
                pass

    def _step(self) -> bool:
        held = claim_next(self._engine, self._settings, worker="sync")
        if held is not None:
            handle = APART_HANDLERS[held.kind]
            handle(self._engine, self._settings, held, is_stopping=lambda: self._thread.is_stopping)
        return held is not None
