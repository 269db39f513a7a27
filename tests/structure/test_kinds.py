"""A kind of job is known everywhere where jobs are told apart; what a new kind lacks is named with its file."""

from collections.abc import Iterable
from types import SimpleNamespace

import pytest
from guichet.flows.calls import _READERS

from api.jobs.serializers import RESULTS, result_form
from api.schemas.native import JobBody
from shared.broker.names import Lane
from shared.errors import Conflict
from shared.handlers.table import APART_HANDLERS, CHUNK_HANDLERS, GROUPS, HANDLERS
from shared.jobs.kinds import APART, CHUNKED, KINDS, UNKNOWN, kind_of, lane_of
from shared.tables import Job, JobKind

# What has to know every kind: where it is, and the kinds that it knows.
PLACES: dict[str, Iterable[str]] = {
    "KINDS in shared/jobs/kinds.py": KINDS,
    "one of the tables in shared/handlers/table.py": [*HANDLERS, *CHUNK_HANDLERS, *APART_HANDLERS],
    "RESULTS in api/jobs/serializers.py": RESULTS,
    "_READERS in client/src/guichet/flows/calls.py": _READERS,
    "JobBody.kind in api/schemas/native.py": JobBody.model_json_schema()["properties"]["kind"]["enum"],
}


@pytest.mark.parametrize("kind", JobKind)
def test_kind_is_known_in_every_place(kind):
    lacking = [place for place, kinds in PLACES.items() if kind.value not in kinds]
    assert not lacking, f"JobKind.{kind.name} ({kind.value!r}) is missing in: {'; '.join(lacking)}"


@pytest.mark.parametrize("place", PLACES)
def test_place_knows_no_kind_that_does_not_exist(place):
    strange = set(PLACES[place]) - {kind.value for kind in JobKind}
    assert not strange, f"{place} knows {sorted(strange)}, which JobKind in shared/tables/jobs.py does not"


def test_kind_fits_its_column():
    assert max(len(kind.value) for kind in JobKind) <= Job.__table__.c.kind.type.length


def test_kind_that_is_claimed_by_chunk_has_a_handler_of_chunks_and_no_other():
    assert set(CHUNKED) == set(CHUNK_HANDLERS)
    assert not set(CHUNKED) & set(HANDLERS)
    assert {KINDS[kind].lane for kind in CHUNKED} == {Lane.BULK}  # the lane in which workers look for chunks


def test_kind_of_no_version_has_a_handler_of_its_own_and_no_other():
    assert set(APART) == set(APART_HANDLERS)
    assert not set(APART) & {*HANDLERS, *CHUNK_HANDLERS}


def test_every_handled_kind_is_in_one_group():
    assert sorted(kind for _, _, kinds in GROUPS for kind in kinds) == sorted(HANDLERS)
    for handler, claiming, kinds in GROUPS:
        assert all(HANDLERS[kind] is handler and KINDS[kind].claiming == claiming for kind in kinds)


def test_job_queues_in_the_lane_of_its_kind_or_of_its_size():
    assert lane_of("csv", row_count=1, interactive_rows=50) == Lane.BULK
    assert [lane_of("batch", row_count=count, interactive_rows=50) for count in (50, 51)] == ["interactive", "bulk"]


def test_kind_of_a_newer_release_is_unknown_and_no_error():
    assert kind_of("of a newer release") is UNKNOWN


def test_result_of_a_kind_of_a_newer_release_is_refused_with_advice():
    with pytest.raises(Conflict, match="does not know jobs of the kind newer: ask the release that took it"):
        result_form(SimpleNamespace(kind="newer", id="0"))  # type: ignore[arg-type]
