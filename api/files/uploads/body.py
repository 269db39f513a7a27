"""The body of an upload: read in bounded pieces as it arrives, and answered even before its end."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors.handlers import respond
from api.files.uploads.unwrapping import FORM_BYTES, too_large
from shared.errors import GuichetError, MalformedBody, SlowRequest, TooLarge, TooManyRequests, Unavailable
from shared.faults import counted

BATCH_BYTES = 1 << 18  # handed over at once: threads are not changed for every packet
STALL_SECONDS = 60.0  # a batch must come within it: who sends nothing, or nearly so, holds a place for nothing
LEAST_RATE = 50_000  # bytes a second, on the whole, beyond the first STALL_SECONDS: a gigabyte takes five hours at most
LINGER_SECONDS = 5.0  # how long the rest of a refused upload is still taken from the network
MAX_UPLOADS = 8  # at the same time in this process: what they hold in memory and on disk is bounded
MAX_OF_ONE = 4  # of one caller, so that nobody keeps everyone else out


class UploadSlots:
    """The uploads that this process takes at the same time."""

    def __init__(self, count: int, *, of_one: int) -> None:
        self._count = count
        self._of_one = of_one
        self._held: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str | None) -> Iterator[None]:
        """Hold a place of a caller; raise Unavailable if all are taken, TooManyRequests if the caller has its share.

        None is any caller, where callers cannot be told apart: together they may hold all places.
        """
        if self._held.total() >= self._count:
            raise Unavailable(f"{self._count} files are being uploaded already: try again soon.", retry_after=5)
        if caller is not None and self._held[caller] >= self._of_one:
            raise TooManyRequests(
                f"You are uploading {counted(self._of_one, 'file')} already: send the next one when one is received.",
                retry_after=5,
            )
        key = caller or ""
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]


class UploadBody:
    """The body of a request, read once."""

    def __init__(self, request: Request, *, max_bytes: int, refuse: Callable[[int], TooLarge] = too_large) -> None:
        self._refuse = refuse  # what is said of a file that is larger
        self.is_complete = False
        self._receive = request.receive
        self._max_bytes = max_bytes  # of the file
        self._size = 0
        self._waited = 0.0  # seconds, for the sender
        declared = request.headers.get("content-length", "")
        self._announced = int(declared) if declared.isascii() and declared.isdigit() else 0

    async def read(self) -> bytes:
        """Return the next bytes, about a quarter of a megabyte; none at the end.

        Raises TooLarge, before anything is read if the caller announces too much, MalformedBody for a body that is cut
        off, and SlowRequest for one that hardly moves, now or on the whole.
        """
        if max(self._announced, self._size) > self._max_bytes + FORM_BYTES:
            raise self._refuse(self._max_bytes)
        pieces: list[bytes] = []
        size = 0
        # Only the waiting counts, not what is done with the bytes.
        left = STALL_SECONDS + self._size / LEAST_RATE - self._waited
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(min(STALL_SECONDS, left)):
                while size < BATCH_BYTES and not self.is_complete:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise MalformedBody("The upload ended before its announced length.")
                    piece = message.get("body", b"")
                    self.is_complete = not message.get("more_body", False)
                    pieces.append(piece)
                    size += len(piece)
        except TimeoutError:
            if left >= STALL_SECONDS:
                complaint = f"stood still: less than {BATCH_BYTES >> 10} KB came in {STALL_SECONDS:.0f} s"
            else:
                complaint = f"is too slow: less than {LEAST_RATE // 1000} kB came in a second"
            raise SlowRequest(f"The upload {complaint}. Send the file compressed, or in several files.") from None
        finally:
            self._waited += clock() - began
        self._size += size
        return b"".join(pieces)


class EarlyResponse(Response):
    """An answer to a request whose body was not read to its end; it closes the connection.

    Closing it with unread bytes would reset it, and the sender might never see why. So the answer goes out whole, and
    then what still comes is thrown away for some seconds (as nginx does with lingering_close).
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response.body, response.status_code)
        self.raw_headers = [*response.raw_headers, (b"connection", b"close")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, then linger."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        except (TimeoutError, asyncio.CancelledError):
            pass  # enough; or the server shuts down
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answer_upload(
    request: Request, body: UploadBody, answer: Awaitable[Response], *, noun: str = "file"
) -> Response:
    """Return the answer to an upload, or its refusal.

    A refusal may be sent while the body still arrives: its rest is received for some seconds, and discarded.
    """
    try:
        return await answer
    except GuichetError as error:
        refusal = error
    except asyncio.CancelledError:  # by the server, which shuts down
        refusal = Unavailable(f"The service is being restarted: send the {noun} again.", retry_after=5)
    response = await respond(request, refusal)
    return response if body.is_complete else EarlyResponse(response)
