"""`make smoke`: a service that is well passes, and one that is not is named with what is wrong."""

from pathlib import Path

import pytest

from scripts.release.smoke import main
from shared.version import VERSION
from tests.contracts.helpers import apart
from tests.support.stack import Stack, free_port


@pytest.mark.long
def test_service_that_is_well_passes(
    sync: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_KEY", raising=False)
    with apart(sync, tmp_path, AUTH="predict-open", RATE_PER_MINUTE="600") as space:
        assert main([space.url, "--version", VERSION]) == 0
        output = capsys.readouterr()
        assert output.out.count("ok    ") == 7
        assert main([space.url, "--version", "9.9.9"]) == 1
        assert f"version {VERSION} runs, and 9.9.9 was deployed" in capsys.readouterr().err


def test_service_that_lets_everyone_do_everything_fails(sync: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([sync.url]) == 1
    assert "instead of 401 or 403" in capsys.readouterr().err


def test_service_that_does_not_answer_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"http://127.0.0.1:{free_port()}", "--wait", "0.1"]) == 1
    assert "no answer" in capsys.readouterr().err
