"""An upgrade of libraries, rehearsed on stored rows: in a second environment that shares all packages but one."""

import json
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.naive_bayes import GaussianNB

from scripts.rehearse import main
from shared.database.engine import get_engine, session_scope
from shared.jobs.recording import insert_finished
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.registry.loading import load
from shared.scoring.batch import score_rows
from tests.support.databases import submission
from tests.support.registered import use_empty_registry

pytestmark = pytest.mark.flow
PLANTED = """

_fine = GaussianNB._joint_log_likelihood


def _planted(self, X):
    return _fine(self, X) + np.outer(np.asarray(X)[:, 0] > 1, [0.0, 1e-12])


GaussianNB._joint_log_likelihood = _planted
"""


def environment(folder: Path, *, version: str, patch: str = "") -> Path:
    """Make an environment with the packages of this one, and a scikit-learn of its own: another version, or patched."""
    venv.create(folder, with_pip=False, symlinks=True)
    here = Path(sysconfig.get_paths()["purelib"])
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "shared.pth").write_text(f"{here}\n")
    (site / "sklearn").mkdir()
    for path in Path(sklearn.__file__).parent.iterdir():
        (site / "sklearn" / path.name).symlink_to(path)
    module = site / "sklearn" / "naive_bayes.py"
    text = module.read_text()
    module.unlink()
    module.write_text(text + patch)
    information = site / f"scikit_learn-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: scikit-learn\nVersion: {version}\n")
    return folder


@dataclass
class History:
    """A registered model and the rows that it has scored."""

    rows: list[dict[str, Any]]
    job: str


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    folder = tmp_path_factory.mktemp("rehearse")
    random = np.random.default_rng(2)
    values = pd.DataFrame(random.normal(size=(80, 2)), columns=["a", "b"])
    joblib.dump(GaussianNB().fit(values, values["a"] + values["b"] > 0), folder / "model.joblib")
    values.to_csv(folder / "rows.csv", index=False)
    rows = values.to_dict("records")
    with pytest.MonkeyPatch.context() as patch:
        use_empty_registry(patch, folder)
        # ONNX would score without scikit-learn, and see no difference in it.
        patch.setattr("shared.scoring.selection.CANDIDATES", ("numpy",))
        with session_scope() as session:
            version = add(session, folder / "model.joblib", AddOptions(reference=folder / "rows.csv", name="bayes"))
            model, key = load(version, folder / "models"), version.id
        job = submission(rows=rows, model_version_id=key)
        with get_engine().begin() as connection:
            insert_finished(connection, [job], [score_rows(model, rows)], attempts=[1], started_at=datetime.now(UTC))
        yield History(rows, job.id)
        get_engine().dispose()


def test_difference_in_a_library_is_found_row_by_row(history, tmp_path, capsys):
    other = environment(tmp_path / "other", version=sklearn.__version__, patch=PLANTED)
    assert main(["--python", str(other), "--model", "bayes", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["model"], answer["rows"]) == ("bayes@1", len(history.rows))
    reached = {place for place, row in enumerate(history.rows) if row["a"] > 1}
    differing = {row["row"] for row in answer["differing"]}
    assert len(differing) > 3
    assert differing <= reached  # where the change is smaller than the last bit, it is none
    assert {row["job_id"] for row in answer["differing"]} == {history.job}


def test_harmless_upgrade_passes_and_its_versions_are_told(history, tmp_path, capsys):
    other = environment(tmp_path / "next", version="99.1")
    assert main(["--python", str(other / "bin" / "python"), "--model", "bayes@1", "--limit", "50"]) == 0
    printed = capsys.readouterr().out
    assert f"scikit-learn {sklearn.__version__} -> 99.1" in printed
    assert "50 stored rows" in printed
    assert "every score keeps its bits" in printed


def test_what_cannot_be_rehearsed_is_said_and_has_an_exit_code_of_its_own(history, tmp_path, capsys):
    assert main(["--python", str(tmp_path / "none"), "--model", "bayes"]) == 2
    assert "no interpreter" in capsys.readouterr().err
    assert main(["--python", sys.prefix, "--model", "nobody"]) == 2
    assert "There is no model 'nobody'" in capsys.readouterr().err
    broken = environment(tmp_path / "broken", version="1", patch="\nraise RuntimeError('it is broken')\n")
    assert main(["--python", str(broken), "--model", "bayes"]) == 2
    assert "it is broken" in capsys.readouterr().err
