"""The bytes of large bodies that this process holds, from their arrival to the end of the answer.

Each body has a limit of its own, and so have connections; but the product of both is far more than a machine has.
"""

from collections import Counter

from shared.errors import TooManyRequests, Unavailable


class HeldBodies:
    """The bytes of all callers together, and of each."""

    def __init__(self, most: int, *, of_one: int) -> None:
        self._most = most
        self._of_one = of_one
        self._held: Counter[str] = Counter()

    @property
    def size(self) -> int:
        """Bytes that are held now."""
        return self._held.total()

    def add(self, caller: str | None, size: int) -> None:
        """Count more bytes of a caller; raise Unavailable above the limit, TooManyRequests beyond the caller's share.

        None is any caller, where callers cannot be told apart: together they may hold all bytes.
        """
        if self.size + size > self._most:
            raise Unavailable(
                f"The requests that are being answered hold {self._most // 1_000_000} MB already: "
                "try again soon, or send smaller bodies.",
                retry_after=5,
            )
        if caller is not None and self._held[caller] + size > self._of_one:
            raise TooManyRequests(
                f"Your requests that are being answered hold {self._of_one // 1_000_000} MB already: "
                "send the next one when one of them is answered.",
                retry_after=5,
            )
        self._held[caller or ""] += size

    def remove(self, caller: str | None, size: int) -> None:
        """Count them no longer."""
        self._held[caller or ""] -= size
        if not self._held[caller or ""]:
            del self._held[caller or ""]
