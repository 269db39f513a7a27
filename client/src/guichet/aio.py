"""The client for asyncio: the same calls as in client.py, awaited. The docstrings there say more."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, cast

import httpx2

from guichet.connection import Connection, JobFacts, file_of
from guichet.errors import Unusable
from guichet.events import Event, Following
from guichet.flows import calls, changes
from guichet.flows.calls import BatchOptions, CsvOptions, RowOptions
from guichet.flows.changes import Alias, AliasEvent
from guichet.flows.comparisons import Comparison, find_comparison, replay_body
from guichet.flows.erasures import Erasure, erase
from guichet.flows.reproductions import Reproduction
from guichet.flows.trainings import TrainedVersion, TrainingOptions
from guichet.records import BatchResult, CsvReport, CsvResult, Explanation, JobInfo, Model, ModelInfo, Result
from guichet.registering import File, Registered, RegisterOptions, open_model
from guichet.tables import read_parquet
from guichet.transport.downloads import Download
from guichet.transport.streams import Stream
from guichet.transport.uploads import OnProgress, Source
from guichet.transport.wire import Answer, Flow, Pause, Reply, Request, broken
from guichet.values import Row, Rows

Value = TypeVar("Value")
ResultT = TypeVar("ResultT")


class AsyncClient:
    """Speaks with one Guichet service from asyncio; Client describes the arguments."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60,
        retries: int = 5,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = Connection(url, api_key, timeout, retries)
        self._retries = retries
        self._http = httpx2.AsyncClient(transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def url(self) -> str:
        """The address of the service."""
        return self._connection.url

    async def submit(
        self,
        row: Row,
        *,
        model: str | None = None,
        version: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> "AsyncJob[Result]":
        """Submit one row and return its job at once; see Client.submit."""
        options: RowOptions = {"model": model, "version": version, "expires_in": expires_in, "timeout": timeout}
        flow = calls.submit(row, options, retries=self._retries, key=idempotency_key)
        return AsyncJob(self, await self._run(flow))

    async def predict(
        self,
        row: Row,
        *,
        model: str | None = None,
        version: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> Result:
        """Score one row and return its result; raise TimedOut after `wait` seconds, if that is given."""
        options: RowOptions = {"model": model, "version": version, "expires_in": expires_in, "timeout": timeout}
        flow = calls.predict(row, options, retries=self._retries, key=idempotency_key, wait=wait)
        return await self._run(flow)

    async def explain(
        self,
        row: Row | None = None,
        *,
        job_id: str | None = None,
        index: int | None = None,
        model: str | None = None,
        version: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> Explanation:
        """Return the explanation of a row's score; instead of a row, `job_id` and `index` name a scored one."""
        options: RowOptions = {"model": model, "version": version, "expires_in": expires_in, "timeout": timeout}
        flow = calls.explain(
            row, options, job_id=job_id, index=index, retries=self._retries, key=idempotency_key, wait=wait
        )
        return await self._run(flow)

    async def explain_job(
        self,
        job_id: str,
        *,
        expires_in: float | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> "AsyncJob[CsvResult]":
        """Explain every row of a job that has ended (rows, or a CSV file), and return the job that does so.

        It is a job like that of a CSV file: `download` writes a line for each row and a column for each feature.
        `timeout` is that of one chunk of rows.
        """
        flow = calls.explain_job(
            job_id, expires_in=expires_in, timeout=timeout, retries=self._retries, key=idempotency_key
        )
        return AsyncJob(self, await self._run(flow))

    async def replay(
        self,
        reference: str,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        decided_by: int | None = None,
        features: Mapping[str, Any] | None = None,
        cost_fp: float | None = None,
        cost_fn: float | None = None,
        idempotency_key: str | None = None,
    ) -> "AsyncJob[Comparison]":
        """Have `name@3` or `name@alias` decide again what was decided from `start` to `end`; return the job.

        The window ends now and begins a week before when left out. `decided_by` and `features` (name to the value, or
        to a list of values) leave out other rows; the costs are those of a false decision. `download` writes both
        decisions of every row.
        """
        body = replay_body(
            reference,
            start=start,
            end=end,
            decided_by=decided_by,
            features=features,
            cost_fp=cost_fp,
            cost_fn=cost_fn,
        )
        return AsyncJob(self, await self._run(calls.replay(body, retries=self._retries, key=idempotency_key)))

    async def register(
        self,
        model: object,
        X: object = None,  # noqa: N803 - as scikit-learn calls it
        y: object = None,
        *,
        name: str,
        reference: File | None = None,
        contract: File | None = None,
        card: File | None = None,
        preprocessor: File | None = None,
        code: File | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[RegisterOptions],
    ) -> "AsyncJob[Registered]":
        """Add a model under this name, as its next version, and return the job that does so. Needs MODEL_UPLOADS=on.

        `model` is a fitted estimator, which is pickled, or the path of a joblib file, a skops file or a zipped MLflow
        folder. `X` and `y` are what it was trained on (data frames, arrays, lists of rows); `reference` is a file of
        such rows instead. The other options are those of `python -m shared.registry add`.
        """
        files = {
            "reference": reference,
            "contract": contract,
            "card": card,
            "preprocessor": preprocessor,
            "code": code,
        }
        with await asyncio.to_thread(open_model, model, X, y, files, options, name) as upload:
            return AsyncJob(self, await self._run(calls.register(upload, retries=self._retries, key=idempotency_key)))

    async def train(
        self,
        source: Source,
        target: str,
        *,
        name: str,
        task: str | None = None,
        filename: str | None = None,
        compress: bool = False,
        on_progress: OnProgress | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[TrainingOptions],
    ) -> "AsyncJob[TrainedVersion]":
        """Train a candidate version of a model on a CSV file or a data frame with the answers in `target`.

        `task` is read off the target. Options: `positive`, `leave_out`, `estimators`, `draws`, `seed`; for the
        threshold `cost_fp` and `cost_fn`, or `target_recall`. No alias is moved: promote the version for it to serve.
        """
        chosen = {**options, "name": name, "target": target, "task": task}
        upload, _ = calls.open_upload(source, {}, filename=filename, compress=compress, on_progress=on_progress)
        with upload:
            flow = calls.train(upload, chosen, retries=self._retries, key=idempotency_key)
            return AsyncJob(self, await self._run(flow))

    async def train_again(
        self,
        model: str,
        *,
        name: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[TrainingOptions],
    ) -> "AsyncJob[TrainedVersion]":
        """Train a candidate version on a model's reference rows and its scored rows of a window with outcomes.

        The window ends now when left out; the options are those of `train`. `name` is another model's for the version.
        """
        chosen = {**options, "name": name}
        flow = calls.train_again(model, chosen, start=start, end=end, retries=self._retries, key=idempotency_key)
        return AsyncJob(self, await self._run(flow))

    async def model_card(self, name: str, version: int) -> str:
        """Return the model card of a version that was trained by the service, as Markdown."""
        return await self._run(calls.model_card(name, version, retries=self._retries))

    async def comparison(
        self,
        name: str,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        decided_by: int | None = None,
        cost_fp: float | None = None,
        cost_fn: float | None = None,
    ) -> Comparison:
        """Read what the challenger of a model says beside what the champion decided from `start` to `end`.

        The window ends now and begins a week before when left out. `name@3` is what version 3 scored while it was the
        challenger, and `decided_by` the version that decided, where that is not the champion now.
        """
        flow = find_comparison(
            name,
            start=start,
            end=end,
            decided_by=decided_by,
            cost_fp=cost_fp,
            cost_fn=cost_fn,
            retries=self._retries,
        )
        return await self._run(flow)

    async def explanations(self, job_id: str, *, row: int | None = None) -> AsyncIterator[tuple[int, Explanation]]:
        """Iterate over the stored explanations of a job's rows, as (row, explanation); `row` selects one row."""
        place: str | None = None
        while True:
            items, place = await self._run(calls.explanations(job_id, place, row=row, retries=self._retries))
            for item in items:
                yield item
            if place is None:
                return

    async def lineage(self, job_id: str, *, row: int = 0) -> dict[str, Any]:
        """Return what led to the score of a row of a job, and what became of it, as `GET /jobs/{id}/lineage` does."""
        return await self._run(calls.lineage(job_id, row=row, retries=self._retries))

    async def reproduce(
        self, job_id: str, *, row: int | None = None, idempotency_key: str | None = None
    ) -> "AsyncJob[Reproduction]":
        """Make the decisions of a job again, and compare the scores bit for bit; see Client.reproduce."""
        flow = calls.reproduce(job_id, row=row, retries=self._retries, key=idempotency_key)
        return AsyncJob(self, await self._run(flow))

    async def submit_batch(
        self,
        rows: Rows,
        *,
        model: str | None = None,
        version: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        on_error: Literal["continue", "abort"] | None = None,
        idempotency_key: str | None = None,
    ) -> "AsyncJob[BatchResult]":
        """Submit several rows as one job and return it at once; see Client.submit_batch."""
        options: BatchOptions = {
            "model": model,
            "version": version,
            "expires_in": expires_in,
            "timeout": timeout,
            "on_error": on_error,
        }
        flow = calls.submit_batch(rows, options, retries=self._retries, key=idempotency_key)
        return AsyncJob(self, await self._run(flow))

    async def predict_batch(
        self,
        rows: Rows,
        *,
        model: str | None = None,
        version: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        on_error: Literal["continue", "abort"] | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> BatchResult:
        """Score several rows and return their results in order."""
        options: BatchOptions = {
            "model": model,
            "version": version,
            "expires_in": expires_in,
            "timeout": timeout,
            "on_error": on_error,
        }
        flow = calls.predict_batch(rows, options, retries=self._retries, key=idempotency_key, wait=wait)
        return await self._run(flow)

    async def predict_csv(
        self,
        source: Source,
        *,
        model: str | None = None,
        version: int | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        decimal: str | None = None,
        thousands: str | None = None,
        sheet: str | None = None,
        id_column: str | None = None,
        strict: bool | None = None,
        max_error_rate: float | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        filename: str | None = None,
        compress: bool = False,
        on_progress: OnProgress | None = None,
        idempotency_key: str | None = None,
    ) -> "AsyncJob[CsvResult]":
        """Send a CSV file or a data frame and return its job; it is read in a thread, which calls `on_progress`."""
        options: CsvOptions = {
            "model": model,
            "version": version,
            "delimiter": delimiter,
            "encoding": encoding,
            "decimal": decimal,
            "thousands": thousands,
            "sheet": sheet,
            "id_column": id_column,
            "strict": strict,
            "max_error_rate": max_error_rate,
            "expires_in": expires_in,
            "timeout": timeout,
        }
        upload, options = calls.open_upload(
            source, options, filename=filename, compress=compress, on_progress=on_progress
        )
        with upload:
            flow = calls.predict_csv(upload, options, retries=self._retries, key=idempotency_key)
            return AsyncJob(self, await self._run(flow))

    async def validate_csv(
        self,
        source: Source,
        *,
        model: str | None = None,
        version: int | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        decimal: str | None = None,
        thousands: str | None = None,
        sheet: str | None = None,
        id_column: str | None = None,
        strict: bool | None = None,
        max_error_rate: float | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        filename: str | None = None,
        compress: bool = False,
        on_progress: OnProgress | None = None,
    ) -> CsvReport:
        """Check a CSV file: nothing is stored, and the report lists its faults."""
        options: CsvOptions = {
            "model": model,
            "version": version,
            "delimiter": delimiter,
            "encoding": encoding,
            "decimal": decimal,
            "thousands": thousands,
            "sheet": sheet,
            "id_column": id_column,
            "strict": strict,
            "max_error_rate": max_error_rate,
            "expires_in": expires_in,
            "timeout": timeout,
        }
        upload, options = calls.open_upload(
            source, options, filename=filename, compress=compress, on_progress=on_progress
        )
        with upload:
            return await self._run(calls.validate_csv(upload, options, retries=self._retries))

    async def job(self, job_id: str) -> "AsyncJob[Any]":
        """Return a job by its id."""
        return AsyncJob(self, await self._run(calls.find(job_id, retries=self._retries)))

    async def jobs(
        self, *, status: str | None = None, model: str | None = None, page_size: int = 50
    ) -> "AsyncGenerator[AsyncJob[Any], None]":
        """Iterate over your jobs, newest first; older pages are read when they are needed."""
        place = None
        while True:
            flow = calls.page(place, status=status, model=model, size=page_size, retries=self._retries)
            items, place = await self._run(flow)
            for info in items:
                yield AsyncJob(self, info)
            if place is None:
                return

    async def erase(self, job_id: str, *, reason: str) -> Erasure:
        """Erase an ended job and everything that was made of its rows; see Client.erase."""
        return await self._run(erase(job_id, reason, retries=self._retries))

    async def models(self) -> list[ModelInfo]:
        """List the models."""
        return await self._run(calls.models(retries=self._retries))

    async def model(self, name: str) -> Model:
        """Read a model, `name`, `name@3` or `name@alias`: its card, its features, and an example row."""
        return await self._run(calls.model(name, retries=self._retries))

    # ── changing models (scope `admin`) ──────────────────────────────────────────────────────────────────────────

    async def alias(self, name: str, alias: str = "champion") -> Alias:
        """Read the version of an alias."""
        return await self._run(changes.find_alias(name, alias, retries=self._retries))

    async def promote(
        self, reference: str, *, reason: str, alias: str = "champion", etag: str | None = None, force: bool = False
    ) -> Alias:
        """Let an alias mean `name@3`; with the `etag` that you saw, only if nobody moved it meanwhile.

        `force` promotes in spite of PROMOTION_GATE, which is audited.
        """
        return await self._run(changes.promote(reference, reason, alias, etag, force=force, retries=self._retries))

    async def roll_back(self, name: str, *, reason: str, alias: str = "champion") -> Alias:
        """Point an alias back to its version before the last move."""
        return await self._run(changes.roll_back(name, reason, alias, retries=self._retries))

    async def remove_alias(self, name: str, alias: str, *, reason: str, etag: str | None = None) -> None:
        """Take an alias away, with the `etag` that you saw only if nobody moved it; the champion can only be moved."""
        await self._run(changes.remove_alias(name, alias, reason, etag, retries=self._retries))

    async def history(self, name: str) -> list[AliasEvent]:
        """List how a model's aliases were moved, newest first."""
        return await self._run(changes.history(name, retries=self._retries))

    async def archive(self, reference: str, *, reason: str) -> None:
        """Put `name@3` away: it takes no rows until it is restored."""
        await self._run(changes.move(reference, reason, to="archive", retries=self._retries))

    async def restore(self, reference: str, *, reason: str) -> None:
        """Let an archived `name@3` serve again."""
        await self._run(changes.move(reference, reason, to="restore", retries=self._retries))

    async def delete(self, reference: str, *, reason: str) -> None:
        """Delete an archived `name@3` that never scored anything, with its files."""
        await self._run(changes.move(reference, reason, to="delete", retries=self._retries))

    # ── how flows and streams are carried out ────────────────────────────────────────────────────────────────────

    async def _run(self, flow: Flow[Value]) -> Value:
        reply: Reply | None = None
        while True:
            try:
                step = flow.send(reply)
            except StopIteration as end:
                return cast(Value, end.value)
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                reply = None
            else:
                reply = await self._send(step)

    async def _send(self, request: Request) -> Reply:
        arguments = self._connection.arguments(request)
        if request.upload is not None:
            arguments["content"] = request.upload.in_thread()
        try:
            response = await self._http.request(**arguments)
        except httpx2.RequestError as error:
            return broken(error, self.url)
        return Answer(response.status_code, response.headers, response.content)

    async def _pieces(self, stream: Stream) -> AsyncGenerator[bytes, None]:
        while not stream.has_ended():
            try:
                async with self._http.stream(**self._connection.arguments(stream.request())) as response:
                    answer = Answer(response.status_code, response.headers)
                    if stream.accepts(answer):
                        async for piece in response.aiter_bytes():
                            yield piece
                            if stream.has_ended():
                                return
                        stream.finish()
                    else:
                        stream.refused(Answer(answer.status, answer.headers, await response.aread()))
            except httpx2.RequestError as error:
                stream.broke(broken(error, self.url))
            if not stream.has_ended():
                await asyncio.sleep(stream.pause())


class AsyncJob(JobFacts, Generic[ResultT]):
    """A job of the service, as of its last answer; see Job."""

    def __init__(self, client: AsyncClient, info: JobInfo) -> None:
        super().__init__(info)
        self._client = client
        self._retries = client._retries

    async def refresh(self) -> Self:
        """Ask how it is now."""
        self.info = await self._client._run(calls.find(self.id, retries=self._retries))
        return self

    async def wait(self, timeout: float | None = None) -> Self:
        """Wait until the job ends, good or bad; raise TimedOut after `timeout` seconds, while the job goes on."""
        if not self.is_ended:
            self.info = await self._client._run(calls.wait_for(self.id, retries=self._retries, timeout=timeout))
        return self

    async def result(self, timeout: float | None = None) -> ResultT:
        """Wait until it ends and return its result; raise JobFailed when it has none."""
        await self.wait(timeout)
        flow = calls.result(self.info, retries=self._retries, timeout=timeout)
        return cast(ResultT, await self._client._run(flow))

    async def cancel(self) -> Self:
        """Cancel it: at once while it is queued, soon when it runs. Rows that are done stay."""
        self.info = await self._client._run(calls.cancel(self.id, retries=self._retries))
        return self

    async def retry(self) -> Self:
        """Retry the remaining rows of a failed or canceled CSV job."""
        self.info = await self._client._run(calls.retry(self.id, retries=self._retries))
        return self

    async def events(self, *, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Iterate over the job's events until its end; a broken connection is resumed."""
        following = Following(self.id, after=after, retries=self._retries)
        async with aclosing(self._client._pieces(following)) as pieces:
            async for piece in pieces:
                for event in following.feed(piece):
                    yield event

    async def download(
        self,
        path: str | os.PathLike[str],
        *,
        errors: bool = False,
        join: bool = False,
        partial: bool = False,
        parquet: bool = False,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Wait until a CSV job ends and write its rows to a file; see Job.download."""
        if not partial:
            calls.check_succeeded((await self.wait()).info)
        place, params = file_of(self.id, errors=errors, join=join, partial=partial, parquet=parquet)
        with Download(path, place, params, retries=self._retries, on_progress=on_progress) as download:
            async with aclosing(self._client._pieces(download)) as pieces:
                async for piece in pieces:
                    download.write(piece)

    async def to_frame(self, *, join: bool = False, partial: bool = False) -> Any:  # noqa: ANN401 - a pandas DataFrame
        """Wait until it ends and return its rows with their scores as a pandas DataFrame; see `download`.

        Raise Unusable where pandas is not installed (and pyarrow, for CSV jobs).
        """
        if self.kind == "replay":
            raise Unusable("A replay's rows can be had as CSV only: see download.")
        if self.kind not in ("csv", "explain_batch"):
            return cast(Any, await self.result()).to_frame()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scores.parquet"
            await self.download(path, join=join, partial=partial, parquet=True)
            return read_parquet(path)
