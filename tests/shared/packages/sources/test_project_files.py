"""Labels and thresholds in JSON files beside a model: read as people write them, or refused in one sentence."""

import json
import re

import pytest

from shared.errors import CardError
from shared.packages.sources.project_files import read_labels, read_threshold


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "beside.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [{"0": "No", "1": "Yes"}, {"No": 0, "Yes": 1}, {"Yes": 1, "No": 0}, ["No", "Yes"]],
)
def test_labels_are_read_either_way_round(written, content):
    assert read_labels(written(content)) == {"0": "No", "1": "Yes"}


@pytest.mark.parametrize("content", [{}, [], "{", 3, {"0": None}, {"No": 0, "Yes": 0}, {"0": True, "1": False}])
def test_labels_that_name_no_classes_are_refused(written, content):
    path = written(content)
    with pytest.raises(CardError, match=re.escape(str(path))):
        read_labels(path)


@pytest.mark.parametrize(
    "content",
    [
        0.37,
        {"threshold": 0.37},
        {"best_threshold": 0.37, "f1": 0.6},
        {"cost": {"cutoff": 0.37}},
        {"threshold": 0.37, "threshold_f1": 0.5},
    ],
)
def test_threshold_is_found_where_people_write_it(written, content):
    assert read_threshold(written(content)) == 0.37


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"f1": 0.6}, "no threshold (f1)"),
        ({"threshold_f1": 0.5, "threshold_cost": 0.2}, "several thresholds (threshold_f1, threshold_cost)"),
        ({"threshold": 37}, "from 0 to 1"),
        ({"threshold": "0.5"}, "no threshold"),
        (True, "from 0 to 1"),
        ("NaN", "from 0 to 1"),
        ("threshold: 0.5", "is not JSON"),
    ],
)
def test_what_is_no_threshold_is_refused_with_what_to_do(written, content, message):
    with pytest.raises(CardError, match=re.escape(message)):
        read_threshold(written(content))


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CardError, match=r"nothing\.json cannot be read"):
        read_labels(tmp_path / "nothing.json")
