"""The client for ordinary Python: every call returns when it is answered."""

import os
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
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


class Client:
    """Speaks with one Guichet service; may be shared by threads. Close it, or use it as a context manager.

    `url` defaults to GUICHET_URL, then to http://127.0.0.1:8000; `api_key` to GUICHET_API_KEY. `timeout` is how many
    seconds one request may go without an answer; `retries` how often a request is sent again when the service cannot
    be reached or asks to come back later. A submission carries an Idempotency-Key: however often it is sent, it makes
    one job. Give your own `idempotency_key` to make that hold over runs of your program.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60,
        retries: int = 5,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection(url, api_key, timeout, retries)
        self._retries = retries
        self._http = httpx2.Client(transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def url(self) -> str:
        """The address of the service."""
        return self._connection.url

    def submit(
        self,
        row: Row,
        *,
        model: str | None = None,
        version: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> "Job[Result]":
        """Submit one row and return its job at once.

        A row is feature names with their values: a mapping, a pandas Series, a data frame of one row. `model` is
        `name`, `name@3` or `name@alias`, the default model when left out; `version` a number, the champion when left
        out. The job may queue for `expires_in` seconds and run for `timeout` seconds.
        """
        options: RowOptions = {"model": model, "version": version, "expires_in": expires_in, "timeout": timeout}
        flow = calls.submit(row, options, retries=self._retries, key=idempotency_key)
        return Job(self, self._run(flow))

    def predict(
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
        """Score one row and return its result; raise TimedOut after `wait` seconds, if that is given. See `submit`."""
        options: RowOptions = {"model": model, "version": version, "expires_in": expires_in, "timeout": timeout}
        flow = calls.predict(row, options, retries=self._retries, key=idempotency_key, wait=wait)
        return self._run(flow)

    def explain(
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
        return self._run(flow)

    def explain_job(
        self,
        job_id: str,
        *,
        expires_in: float | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> "Job[CsvResult]":
        """Explain every row of a job that has ended (rows, or a CSV file), and return the job that does so.

        It is a job like that of a CSV file: `download` writes a line for each row and a column for each feature.
        `timeout` is that of one chunk of rows.
        """
        flow = calls.explain_job(
            job_id, expires_in=expires_in, timeout=timeout, retries=self._retries, key=idempotency_key
        )
        return Job(self, self._run(flow))

    def replay(
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
    ) -> "Job[Comparison]":
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
        return Job(self, self._run(calls.replay(body, retries=self._retries, key=idempotency_key)))

    def register(
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
    ) -> "Job[Registered]":
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
        with open_model(model, X, y, files, options, name) as upload:
            return Job(self, self._run(calls.register(upload, retries=self._retries, key=idempotency_key)))

    def train(
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
    ) -> "Job[TrainedVersion]":
        """Train a candidate version of a model on a CSV file or a data frame with the answers in `target`.

        `task` is read off the target. Options: `positive`, `leave_out`, `estimators`, `draws`, `seed`; for the
        threshold `cost_fp` and `cost_fn`, or `target_recall`. No alias is moved: promote the version for it to serve.
        """
        chosen = {**options, "name": name, "target": target, "task": task}
        upload, _ = calls.open_upload(source, {}, filename=filename, compress=compress, on_progress=on_progress)
        with upload:
            flow = calls.train(upload, chosen, retries=self._retries, key=idempotency_key)
            return Job(self, self._run(flow))

    def train_again(
        self,
        model: str,
        *,
        name: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[TrainingOptions],
    ) -> "Job[TrainedVersion]":
        """Train a candidate version on a model's reference rows and its scored rows of a window with outcomes.

        The window ends now when left out; the options are those of `train`. `name` is another model's for the version.
        """
        chosen = {**options, "name": name}
        flow = calls.train_again(model, chosen, start=start, end=end, retries=self._retries, key=idempotency_key)
        return Job(self, self._run(flow))

    def model_card(self, name: str, version: int) -> str:
        """Return the model card of a version that was trained by the service, as Markdown."""
        return self._run(calls.model_card(name, version, retries=self._retries))

    def comparison(
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
        return self._run(flow)

    def explanations(self, job_id: str, *, row: int | None = None) -> Iterator[tuple[int, Explanation]]:
        """Iterate over the stored explanations of a job's rows, as (row, explanation); `row` selects one row."""
        place: str | None = None
        while True:
            items, place = self._run(calls.explanations(job_id, place, row=row, retries=self._retries))
            yield from items
            if place is None:
                return

    def lineage(self, job_id: str, *, row: int = 0) -> dict[str, Any]:
        """Return what led to the score of a row of a job, and what became of it, as `GET /jobs/{id}/lineage` does."""
        return self._run(calls.lineage(job_id, row=row, retries=self._retries))

    def reproduce(
        self, job_id: str, *, row: int | None = None, idempotency_key: str | None = None
    ) -> "Job[Reproduction]":
        """Make the decisions of a job again by the artefact that decided, and compare the scores bit for bit.

        `row` is the only row, from 0. The result says what decided, and names everything that has changed since.
        """
        flow = calls.reproduce(job_id, row=row, retries=self._retries, key=idempotency_key)
        return Job(self, self._run(flow))

    def submit_batch(
        self,
        rows: Rows,
        *,
        model: str | None = None,
        version: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
        on_error: Literal["continue", "abort"] | None = None,
        idempotency_key: str | None = None,
    ) -> "Job[BatchResult]":
        """Submit several rows (a list of them, a data frame) as one job and return it at once.

        With `on_error="abort"` all of them are refused when one is bad; otherwise a bad row spoils no other one. The
        other options are those of `submit`.
        """
        options: BatchOptions = {
            "model": model,
            "version": version,
            "expires_in": expires_in,
            "timeout": timeout,
            "on_error": on_error,
        }
        flow = calls.submit_batch(rows, options, retries=self._retries, key=idempotency_key)
        return Job(self, self._run(flow))

    def predict_batch(
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
        """Score several rows and return their results in order; see `submit_batch`."""
        options: BatchOptions = {
            "model": model,
            "version": version,
            "expires_in": expires_in,
            "timeout": timeout,
            "on_error": on_error,
        }
        flow = calls.predict_batch(rows, options, retries=self._retries, key=idempotency_key, wait=wait)
        return self._run(flow)

    def predict_csv(
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
    ) -> "Job[CsvResult]":
        """Send a CSV file (a path, or a file opened in binary mode; gzip too) or a data frame; return its job.

        An Excel workbook (.xlsx) is read, too: its first visible sheet, or the one that `sheet` names.

        The file is streamed, and sent again on trouble if it can be read again. `compress` sends it as gzip.
        `on_progress` is told the bytes sent and the bytes in all. `delimiter` (the character, or comma, semicolon, tab,
        pipe), `encoding`, `decimal` (point or comma) and `thousands` are detected when left out. `id_column` identifies
        rows for you; of a data frame it may be the name of its index. `strict` refuses columns that the model does not
        know.
        With `max_error_rate` (0 to 1) the job fails when more of its rows have errors. The other options are those of
        `submit`; `timeout` is that of one piece of the file.
        """
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
            return Job(self, self._run(flow))

    def validate_csv(
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
        """Check a CSV file or a data frame: nothing is stored, and the report lists its faults."""
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
            return self._run(calls.validate_csv(upload, options, retries=self._retries))

    def job(self, job_id: str) -> "Job[Any]":
        """Return a job by its id."""
        return Job(self, self._run(calls.find(job_id, retries=self._retries)))

    def jobs(self, *, status: str | None = None, model: str | None = None, page_size: int = 50) -> "Iterator[Job[Any]]":
        """Iterate over your jobs, newest first; older pages are read when they are needed."""
        place = None
        while True:
            items, place = self._run(
                calls.page(place, status=status, model=model, size=page_size, retries=self._retries)
            )
            yield from (Job(self, info) for info in items)
            if place is None:
                return

    def erase(self, job_id: str, *, reason: str) -> Erasure:
        """Erase an ended job: its rows, scores, explanations and outcomes, and every copy of them; for its owner.

        The jobs that explained its rows go with it. Raises Refused: 409 where it has not ended, 410 where it is erased.
        """
        return self._run(erase(job_id, reason, retries=self._retries))

    def models(self) -> list[ModelInfo]:
        """List the models."""
        return self._run(calls.models(retries=self._retries))

    def model(self, name: str) -> Model:
        """Read a model, `name`, `name@3` or `name@alias`: its card, its features, and an example row."""
        return self._run(calls.model(name, retries=self._retries))

    # ── changing models (scope `admin`) ──────────────────────────────────────────────────────────────────────────

    def alias(self, name: str, alias: str = "champion") -> Alias:
        """Read the version of an alias."""
        return self._run(changes.find_alias(name, alias, retries=self._retries))

    def promote(
        self, reference: str, *, reason: str, alias: str = "champion", etag: str | None = None, force: bool = False
    ) -> Alias:
        """Let an alias mean `name@3`; with the `etag` that you saw, only if nobody moved it meanwhile.

        `force` promotes in spite of PROMOTION_GATE, which is audited.
        """
        return self._run(changes.promote(reference, reason, alias, etag, force=force, retries=self._retries))

    def roll_back(self, name: str, *, reason: str, alias: str = "champion") -> Alias:
        """Point an alias back to its version before the last move."""
        return self._run(changes.roll_back(name, reason, alias, retries=self._retries))

    def remove_alias(self, name: str, alias: str, *, reason: str, etag: str | None = None) -> None:
        """Take an alias away, with the `etag` that you saw only if nobody moved it; the champion can only be moved."""
        self._run(changes.remove_alias(name, alias, reason, etag, retries=self._retries))

    def history(self, name: str) -> list[AliasEvent]:
        """List how a model's aliases were moved, newest first."""
        return self._run(changes.history(name, retries=self._retries))

    def archive(self, reference: str, *, reason: str) -> None:
        """Put `name@3` away: it takes no rows until it is restored."""
        self._run(changes.move(reference, reason, to="archive", retries=self._retries))

    def restore(self, reference: str, *, reason: str) -> None:
        """Let an archived `name@3` serve again."""
        self._run(changes.move(reference, reason, to="restore", retries=self._retries))

    def delete(self, reference: str, *, reason: str) -> None:
        """Delete an archived `name@3` that never scored anything, with its files."""
        self._run(changes.move(reference, reason, to="delete", retries=self._retries))

    # ── how flows and streams are carried out ────────────────────────────────────────────────────────────────────

    def _run(self, flow: Flow[Value]) -> Value:
        reply: Reply | None = None
        while True:
            try:
                step = flow.send(reply)
            except StopIteration as end:
                return cast(Value, end.value)
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                reply = None
            else:
                reply = self._send(step)

    def _send(self, request: Request) -> Reply:
        try:
            response = self._http.request(**self._connection.arguments(request))
        except httpx2.RequestError as error:
            return broken(error, self.url)
        return Answer(response.status_code, response.headers, response.content)

    def _pieces(self, stream: Stream) -> Generator[bytes, None, None]:
        while not stream.has_ended():
            try:
                with self._http.stream(**self._connection.arguments(stream.request())) as response:
                    answer = Answer(response.status_code, response.headers)
                    if stream.accepts(answer):
                        for piece in response.iter_bytes():
                            yield piece
                            if stream.has_ended():
                                return
                        stream.finish()
                    else:
                        stream.refused(Answer(answer.status, answer.headers, response.read()))
            except httpx2.RequestError as error:
                stream.broke(broken(error, self.url))
            if not stream.has_ended():
                time.sleep(stream.pause())


class Job(JobFacts, Generic[ResultT]):
    """A job of the service, as of its last answer."""

    def __init__(self, client: Client, info: JobInfo) -> None:
        super().__init__(info)
        self._client = client
        self._retries = client._retries

    def refresh(self) -> Self:
        """Ask how it is now."""
        self.info = self._client._run(calls.find(self.id, retries=self._retries))
        return self

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the job ends, good or bad; raise TimedOut after `timeout` seconds, while the job goes on."""
        if not self.is_ended:
            self.info = self._client._run(calls.wait_for(self.id, retries=self._retries, timeout=timeout))
        return self

    def result(self, timeout: float | None = None) -> ResultT:
        """Wait until it ends and return its result; raise JobFailed when it has none."""
        self.wait(timeout)
        return cast(ResultT, self._client._run(calls.result(self.info, retries=self._retries, timeout=timeout)))

    def cancel(self) -> Self:
        """Cancel it: at once while it is queued, soon when it runs. Rows that are done stay."""
        self.info = self._client._run(calls.cancel(self.id, retries=self._retries))
        return self

    def retry(self) -> Self:
        """Retry the remaining rows of a failed or canceled CSV job."""
        self.info = self._client._run(calls.retry(self.id, retries=self._retries))
        return self

    def events(self, *, after: str | None = None) -> Iterator[Event]:
        """Iterate over the job's events until its end; a broken connection is resumed.

        `after` is the id of an event: only later ones come.
        """
        following = Following(self.id, after=after, retries=self._retries)
        with closing(self._client._pieces(following)) as pieces:
            for piece in pieces:
                yield from following.feed(piece)

    def download(
        self,
        path: str | os.PathLike[str],
        *,
        errors: bool = False,
        join: bool = False,
        partial: bool = False,
        parquet: bool = False,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Wait until a job with files ends and write its rows, in the order of the input, to a file.

        `errors` writes what is wrong with which row instead; `join` repeats the input's columns; `partial` does not
        wait and writes what is done so far; `parquet` writes Parquet. A download that was cut off goes on from
        PATH.part, and PATH is only there when it is whole. Raise JobFailed when the job has no output.
        """
        if not partial:
            calls.check_succeeded(self.wait().info)
        place, params = file_of(self.id, errors=errors, join=join, partial=partial, parquet=parquet)
        with (
            Download(path, place, params, retries=self._retries, on_progress=on_progress) as download,
            closing(self._client._pieces(download)) as pieces,
        ):
            for piece in pieces:
                download.write(piece)

    def to_frame(self, *, join: bool = False, partial: bool = False) -> Any:  # noqa: ANN401 - a pandas DataFrame
        """Wait until it ends and return its rows with their scores as a pandas DataFrame; see `download`.

        Raise Unusable where pandas is not installed (and pyarrow, for CSV jobs).
        """
        if self.kind == "replay":
            raise Unusable("A replay's rows can be had as CSV only: see download.")
        if self.kind not in ("csv", "explain_batch"):
            return cast(Any, self.result()).to_frame()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scores.parquet"
            self.download(path, join=join, partial=partial, parquet=True)
            return read_parquet(path)
