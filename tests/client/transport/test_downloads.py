"""Downloads that are cut off, and what is left of them on disk."""

from pathlib import Path

import httpx2
import pytest
from guichet import ConnectionFailed, JobFailed, Refused, Unusable

from tests.client.scripted import JOB_ID, Cut, Script, answer, broken, job, problem, run

CONTENT = bytes(range(256)) * 40
ETAG = '"one"'


def file(
    content: bytes = CONTENT, *, first: int | None = None, cut: int | None = None, etag: str = ETAG, **more: str
) -> httpx2.Response:
    """Return an answer with a file, or its rest from a byte on; the connection breaks after `cut` bytes of it."""
    body = content[first or 0 :]
    headers = {"content-length": str(len(body)), **more} | ({"etag": etag} if etag else {})
    if first is not None:
        headers["content-range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
    stream = Cut([body[:cut]], None if cut is None else broken())
    return httpx2.Response(200 if first is None else 206, headers=headers, stream=stream)


def fetch(script: Script, path: Path, **options: object) -> None:
    script.steps.insert(0, answer(200, job("succeeded", "csv")))
    with script.client() as client:
        client.job(JOB_ID).download(path, **options)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_is_there_when_it_is_whole(pauses, tmp_path):
    seen = []
    script = Script(file())
    fetch(script, tmp_path / "out.csv", on_progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "out.csv").read_bytes() == CONTENT
    assert left(tmp_path) == ["out.csv"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert str(script.requests[1].url) == f"http://guichet.test/prefix/jobs/{JOB_ID}/output.csv"
    assert script.headers("range")[1] is None
    assert script.headers("accept-encoding")[1] == "identity"


def test_what_is_asked_for_is_said_in_the_query(pauses, tmp_path):
    script = Script(file(), file())
    fetch(script, tmp_path / "a", join=True, partial=True, parquet=True)
    assert script.requests[1].url.params == httpx2.QueryParams("join=true&partial=true&format=parquet")
    script = Script(file())
    fetch(script, tmp_path / "b", errors=True)
    assert script.requests[1].url.path.endswith("/errors.csv")
    with pytest.raises(Unusable, match="no input columns"):
        fetch(Script(), tmp_path / "c", errors=True, join=True)


def test_cut_download_goes_on_where_it_was(pauses, tmp_path):
    script = Script(
        file(cut=1000),
        httpx2.ConnectError("refused"),
        problem(503, "unavailable"),
        file(first=1000, cut=2000),
        file(first=3000),
    )
    fetch(script, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == CONTENT
    assert script.headers("range")[1:] == [None, "bytes=1000-", "bytes=1000-", "bytes=1000-", "bytes=3000-"]
    assert script.headers("if-range")[1:] == [None, ETAG, ETAG, ETAG, ETAG]
    assert pauses == [0.5, 1, 2, 0.5]


def test_answer_that_ends_before_its_length_is_asked_for_the_rest(pauses, tmp_path):
    short = file()
    short.stream = Cut([CONTENT[:10]], None)
    script = Script(short, file(first=10))
    fetch(script, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == CONTENT


def test_file_that_changed_begins_anew(pauses, tmp_path):
    script = Script(file(cut=1000), file(b"new" * 10, etag='"two"'))
    fetch(script, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"new" * 10


@pytest.mark.parametrize(
    "wrong",
    [
        file(first=999),
        file(first=1000, etag='"two"'),
        httpx2.Response(206, headers={"etag": ETAG}, content=b"x"),
        httpx2.Response(416, headers={"content-range": "bytes */7", "etag": ETAG}),
    ],
)
def test_part_that_was_not_asked_for_is_not_used(pauses, tmp_path, wrong):
    script = Script(file(cut=1000), wrong, file())
    fetch(script, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == CONTENT
    assert script.headers("range")[3] is None


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_etag_a_cut_download_begins_anew(pauses, tmp_path, etag):
    script = Script(file(cut=1000, etag=etag), file(etag=etag))
    fetch(script, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == CONTENT
    assert script.headers("range") == [None, None, None]
    assert left(tmp_path) == ["out.csv"]


def test_service_that_never_sends_more_than_the_beginning_is_given_up(pauses, tmp_path):
    script = Script(*(file(cut=1000, etag="") for _ in range(6)))
    with pytest.raises(ConnectionFailed, match="broke"):
        fetch(script, tmp_path / "out.csv")
    assert left(tmp_path) == []


def test_next_process_goes_on_with_the_part_of_the_last_one(pauses, tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("an older one")
    with pytest.raises(ConnectionFailed):
        fetch(Script(file(cut=1000), *(httpx2.ConnectError("refused") for _ in range(5))), path)
    assert left(tmp_path) == ["out.csv", "out.csv.part", "out.csv.part.etag"]
    assert path.read_text() == "an older one"
    script = Script(file(first=1000))
    fetch(script, path)
    assert script.headers("range")[1] == "bytes=1000-"
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == ["out.csv"]


def test_part_of_another_download_is_not_gone_on_with(pauses, tmp_path):
    path = tmp_path / "out.csv"
    with pytest.raises(ConnectionFailed):
        fetch(Script(file(cut=1000), *(httpx2.ConnectError("refused") for _ in range(5))), path)
    script = Script(file())
    fetch(script, path, join=True)
    assert script.headers("range")[1] is None
    (tmp_path / "b.csv.part").write_text("who knows what")
    script = Script(file())
    fetch(script, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == CONTENT


def test_part_that_was_whole_already_only_gets_its_name(pauses, tmp_path):
    path = tmp_path / "out.csv"
    Path(f"{path}.part").write_bytes(CONTENT)
    Path(f"{path}.part.etag").write_text(f"/jobs/{JOB_ID}/output.csv\n{ETAG}\n")
    fetch(Script(httpx2.Response(416, headers={"content-range": f"bytes */{len(CONTENT)}", "etag": ETAG})), path)
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == ["out.csv"]


def test_answer_that_a_proxy_compressed_is_unpacked(pauses, tmp_path):
    script = Script(
        httpx2.Response(200, headers={"content-encoding": "deflate", "etag": ETAG}, content=b"x\x9cK\x04\x00\x00b\x00b")
    )
    fetch(script, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"a"


def test_answer_of_unknown_length_is_written(pauses, tmp_path):
    fetch(Script(httpx2.Response(200, stream=Cut([b"a", b"b"], None))), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"ab"


def test_refusal_is_told_and_leaves_nothing(pauses, tmp_path):
    with pytest.raises(Refused, match="not finished"):
        fetch(Script(problem(409, "conflict", "It is not finished.")), tmp_path / "out.csv", partial=True)
    assert left(tmp_path) == []


def test_job_that_failed_has_no_output(pauses, tmp_path):
    failed = job("failed", "csv", error={"code": "too_many_errors", "message": "6 % of the rows have errors."})
    with Script(answer(200, failed)).client() as client, pytest.raises(JobFailed, match="6 % of the rows") as caught:
        client.job(JOB_ID).download(tmp_path / "out.csv")
    assert caught.value.code == "too_many_errors"


def test_what_is_not_a_file_is_not_replaced(pauses, tmp_path):
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(Unusable, match="is not a file"):
            fetch(Script(), place)


def test_place_that_cannot_be_written_is_told(pauses, tmp_path):
    with pytest.raises(Unusable, match=r"out\.csv cannot be written: No such file or directory\.") as caught:
        fetch(Script(), tmp_path / "none" / "out.csv")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_link_is_followed(pauses, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    fetch(Script(file()), tmp_path / "link")
    assert (tmp_path / "real").read_bytes() == CONTENT
    assert (tmp_path / "link").is_symlink()


def test_asynchronous_client_downloads_alike(pauses, tmp_path):
    async def fetch(script: Script) -> None:
        async with script.async_client() as client:
            await (await client.job(JOB_ID)).download(tmp_path / "out.csv")

    script = Script(answer(200, job("succeeded", "csv")), file(cut=1000), problem(503, "x"), file(first=1000))
    run(fetch(script))
    assert (tmp_path / "out.csv").read_bytes() == CONTENT
    assert script.headers("range")[2:] == ["bytes=1000-", "bytes=1000-"]
