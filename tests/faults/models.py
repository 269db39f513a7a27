"""A model that does to its worker what the worst models do, on rows that are marked for it."""

import ctypes
import os
import signal
import sys
import time

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

GOOD = 0.0
LOOPS = 70.25  # no edge of any range: the registry's own checks never try these values
CRASHES = 80.75
RAISES = 90.5
KEEPS_GIL = 75.125
SLOW = 60.625
SLOW_SECONDS = 0.005  # a row
EXITS = 100.25
PANICS = 110.5
EATS = 120.75
ARMED = 130.25
EATEN_BYTES = 1_500_000_000  # more than a process with a limit may take, less than a machine has


class Panic(BaseException):
    """As a library in Rust raises it: no `Exception`."""


class Trap(ClassifierMixin, BaseEstimator):
    """Answers with `chance` of a row, unless its `mark` says that it loops for ever, crashes the process or raises."""

    def fit(self, features, target):
        self.classes_ = np.unique(target)
        self.feature_names_in_ = np.array(list(features.columns), dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        return self

    def predict_proba(self, features):
        values = np.asarray(features, dtype=float)
        marks, chances = values[:, 0], values[:, 1]
        while (marks == LOOPS).any():
            pass
        if (marks == CRASHES).any():
            ctypes.string_at(0)  # a null pointer, as in a broken native library
        if (marks == KEEPS_GIL).any():
            ctypes.PyDLL(None).sleep(3600)  # as native code does that does not let go of the interpreter
        time.sleep(SLOW_SECONDS * int((marks == SLOW).sum()))
        if (marks == EXITS).any():
            sys.exit(3)
        if (marks == EATS).any():
            eat()
        if (marks == PANICS).any():
            raise Panic("a library in Rust gave up")
        if (marks == RAISES).any():
            raise ArithmeticError("this row cannot be scored")
        chances = np.clip(chances, 0, 1)
        return np.column_stack([1 - chances, chances])

    def predict(self, features):
        return self.classes_[(self.predict_proba(features)[:, 1] >= 0.5).astype(int)]


def eat():
    _ = [b"x" * (EATEN_BYTES // 30) for _ in range(30)]


class Armed(Trap):
    """Acts on rows that are marked for it: exits, hangs, eats memory, or waits while there is a file and tells where.

    With the act `load` it exits when it is loaded, while there is the file.
    """

    def __init__(self, file="", act=""):
        self.file = file
        self.act = act

    def __setstate__(self, state):
        super().__setstate__(state)
        if self.act == "load" and os.path.exists(self.file):
            os._exit(9)

    def predict_proba(self, features):
        if (np.asarray(features, dtype=float)[:, 0] == ARMED).any():
            if self.act == "exit":
                os._exit(7)
            if self.act == "hang":
                ctypes.PyDLL(None).sleep(3600)
            if self.act == "eat":
                eat()
            if self.act == "hold" and os.path.exists(self.file):
                with open(f"{self.file}.asks", "w") as asks:
                    asks.write(str(os.getpid()))
                while os.path.exists(self.file):
                    time.sleep(0.05)
        return super().predict_proba(features)


class Heavy(Trap):
    """Takes long to be loaded: for as long as there is a file."""

    def __init__(self, file=""):
        self.file = file

    def __setstate__(self, state):
        super().__setstate__(state)
        while os.path.exists(self.file):
            time.sleep(0.05)


class Crashing(Heavy):
    """Takes its process down when it is loaded, as one that needs more memory than there is: while there is a file."""

    def __setstate__(self, state):
        BaseEstimator.__setstate__(self, state)
        if os.path.exists(self.file):
            os.kill(os.getpid(), signal.SIGKILL)
