"""The SQL views of a model: what a client's own SQL reads, whose they are, and what they stand in the way of."""

from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import String, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from examples.build import make_named_views
from shared.cards.card import Views
from shared.cards.features import Feature
from shared.commands.registry import main
from shared.database.engine import session_scope
from shared.errors import CardError, Conflict, NotFound
from shared.jobs.recording import insert_finished
from shared.jobs.transitions import Output
from shared.reference.load import load
from shared.registry.versions import resolve
from shared.views.views import drop_views, list_views, make_views, without_views
from tests.support.cards import PEOPLE, people, use
from tests.support.databases import FAULT, alembic_config, either_engine, good, settings_for, settings_of, submission

NAMES = {"inputs": "inputs", "predictions": "predictions", "reference": "employees_dataset"}
ROW = {"age": 41, "début": 20, "salaire": 2500.5, "poste": "Cadre", "ville": None, "télétravail": True}


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(request, session_postgres, tmp_path_factory):
    """A migrated database of each dialect."""
    with either_engine(request.param, "views", session_postgres, tmp_path_factory.mktemp("views")) as engine:
        yield engine


@pytest.fixture
def engine(database):
    """The database without views, jobs or reference data; its model `m` has the card of `people`."""
    use(database, people())
    yield database
    with database.begin() as connection:
        drop_views(connection)
        connection.exec_driver_sql("DELETE FROM jobs")
        connection.exec_driver_sql("DELETE FROM reference_sets")


def make(engine, model="m", **names):
    """Make the views; return what became of each."""
    with Session(engine) as session, session.begin():
        return [(made.view.name, made.how) for made in make_views(session, model, names)]


def ask(engine, sql):
    """Run a client's own SQL; return its rows."""
    with engine.connect() as connection:
        return connection.exec_driver_sql(sql).all()


def run(engine, sql):
    with engine.begin() as connection:
        connection.exec_driver_sql(sql)


def score(engine, *rows, outcomes=None, faults=None, version=1):
    """Store one job of these rows, scored."""
    job = submission(rows=rows, faults=faults or [None] * len(rows), model_version_id=version)
    with engine.begin() as connection:
        insert_finished(
            connection, [job], [outcomes or [good() for _ in rows]], attempts=[1], started_at=datetime.now(UTC)
        )


def columns(engine, view):
    return [column["name"] for column in inspect(engine).get_columns(view)]


# ── what a client reads ──────────────────────────────────────────────────────────────────────────────────────────


def test_stored_rows_and_scores_are_read_as_tables_of_typed_columns(engine):
    assert make(engine, **NAMES) == [(name, "made") for name in NAMES.values()]
    score(engine, ROW, ROW | {"age": 30, "télétravail": False}, outcomes=[good(0.75), good(0.25)])
    features = [feature.name for feature in PEOPLE]
    assert columns(engine, "inputs") == ["id", *features, "created_at"]
    predictions = ["id", "input_id", "prediction_label", "prediction_proba", "model_version", "created_at"]
    assert columns(engine, "predictions") == predictions
    read = ask(
        engine,
        'SELECT i.age, i."début", i.salaire, i.poste, i.ville, i."télétravail", p.prediction_proba, p.model_version '
        "FROM predictions p JOIN inputs i ON i.id = p.input_id WHERE i.salaire > 2500 ORDER BY i.age",
    )
    assert read == [(30, 20, 2500.5, "Cadre", None, False, 0.25, 1), (41, 20, 2500.5, "Cadre", None, True, 0.75, 1)]
    assert [type(cell) for cell in read[0]][:4] == [int, int, float, str]
    assert ask(engine, "SELECT count(*), min(created_at) = max(created_at) FROM inputs") == [(2, True)]


def test_rows_that_were_refused_or_failed_are_no_inputs(engine):
    make(engine, **NAMES)
    score(engine, {"age": "old"}, ROW, ROW, faults=[[FAULT], None, None], outcomes=[good(), FAULT])
    assert ask(engine, "SELECT count(*), max(age) FROM inputs") == [(1, 41)]
    assert ask(engine, "SELECT count(*) FROM predictions p JOIN inputs i ON i.id = p.input_id") == [(1,)]


def test_reference_data_are_read_with_their_target(engine, tmp_path):
    make(engine, **NAMES)
    file = tmp_path / "rows.csv"
    file.write_text(
        "age,début,salaire,poste,ville,télétravail,parti\n41,20,2500.5,Cadre,,1,Part\n30,19,1800,Chef,Lyon,,0\n"
    )
    load(engine, file, model="m", target="parti")
    assert columns(engine, "employees_dataset") == [*(feature.name for feature in PEOPLE), "target"]
    assert ask(engine, "SELECT * FROM employees_dataset ORDER BY age") == [
        (30, 19, 1800.0, "Chef", "Lyon", None, 0),
        (41, 20, 2500.5, "Cadre", None, True, 1),
    ]
    assert make(engine)[2] == ("employees_dataset", "replaced")  # now that the file's own name for it is known
    assert columns(engine, "employees_dataset")[-1] == "parti"
    use(engine, people(target="a_quitté"))
    make(engine)
    assert columns(engine, "employees_dataset")[-1] == "a_quitté"


def test_regression_has_a_number_for_its_prediction(engine):
    use(engine, people(task="regression", labels={}))
    make(engine, **NAMES)
    score(engine, ROW, outcomes=[Output("regression", 12.5, None, None, None, None)])
    assert columns(engine, "predictions") == ["id", "input_id", "prediction", "model_version", "created_at"]
    assert ask(engine, "SELECT prediction FROM predictions") == [(12.5,)]


def test_views_of_a_model_hold_that_model_only(engine):
    use(engine, people(), people(name="n"))
    make(engine, "m")
    make(engine, "n")
    score(engine, ROW, version=2)
    assert ask(engine, "SELECT count(*) FROM m_inputs") == ask(engine, "SELECT count(*) FROM m_predictions") == [(0,)]
    assert ask(engine, "SELECT count(*) FROM n_inputs") == ask(engine, "SELECT count(*) FROM n_predictions") == [(1,)]


def test_values_of_another_type_from_an_older_version_read_as_null(engine):
    score(engine, ROW | {"age": "forty", "salaire": True, "poste": 3, "télétravail": 1, "début": 1e300})
    score(engine, {"age": 7.0})
    make(engine, **NAMES)
    read = ask(engine, 'SELECT age, "début", salaire, poste, "télétravail" FROM inputs ORDER BY id')
    assert read == [(None,) * 5, (7, None, None, None, None)]


ODD = ['a "quoted" name', "50 % sûr", "l'âge", "a:b", "a/b~c\\d", "$.x", "1", "select", "{model}", " ", "😀", "%(x)s"]


def test_names_of_any_kind_are_columns(engine, tmp_path):
    kinds = ["integer", "number", "string", "boolean"]
    features = [Feature(name=name, type=kinds[place % 4]) for place, name in enumerate(ODD)]
    values = {"integer": 3, "number": 2.5, "string": "txt", "boolean": True}
    use(engine, people(features=features, rules=[]))
    make(engine, **NAMES)
    score(engine, {feature.name: values[feature.type] for feature in features})
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT * FROM inputs").mappings().one()
    assert {feature.name: values[feature.type] for feature in features}.items() <= dict(row).items()


# ── again, and with another card ─────────────────────────────────────────────────────────────────────────────────


def test_made_again_they_stay_and_follow_another_card(engine):
    make(engine, **NAMES)
    assert make(engine) == [(name, "unchanged") for name in NAMES.values()]  # the names are remembered
    use(engine, people(), people(version=2, features=PEOPLE[:-1]))
    assert make(engine) == [("inputs", "replaced"), ("predictions", "unchanged"), ("employees_dataset", "replaced")]
    assert "télétravail" not in columns(engine, "inputs")


def test_names_come_from_the_call_then_the_card_then_the_model(engine):
    use(engine, people(name="a-b", views=Views(inputs="asked")))
    made = make(engine, "a-b", predictions="answered")
    assert [name for name, _ in made] == ["asked", "answered", "a_b_reference"]
    assert make(engine, "a-b", inputs="demandes") == [
        ("demandes", "replaced"),
        ("answered", "unchanged"),
        ("a_b_reference", "unchanged"),
    ]
    with engine.connect() as connection:
        assert [view.name for view in list_views(connection)] == ["demandes", "answered", "a_b_reference"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_rights_that_were_granted_on_a_view_outlive_another_card(engine):
    make(engine, **NAMES)
    run(engine, 'CREATE ROLE "old client"')
    try:
        run(engine, 'GRANT SELECT ON inputs TO "old client", PUBLIC')
        use(engine, people(features=PEOPLE[:-1]))
        make(engine)
        with engine.begin() as connection, without_views(connection):
            pass
        with engine.connect() as connection:
            connection.exec_driver_sql('SET ROLE "old client"')
            assert connection.exec_driver_sql("SELECT count(*) FROM inputs").scalar() == 0
            with pytest.raises(DBAPIError, match="permission denied"):
                connection.exec_driver_sql("SELECT count(*) FROM model_inputs")
    finally:
        run(engine, 'DROP OWNED BY "old client"')
        run(engine, 'DROP ROLE "old client"')


# ── what is left alone ───────────────────────────────────────────────────────────────────────────────────────────


def test_tables_and_views_that_are_not_ours_are_left_alone(engine):
    run(engine, "CREATE VIEW inputs AS SELECT 1 AS x")
    try:
        for name in ("inputs", "jobs", "ix_jobs_ready"):
            with pytest.raises(Conflict, match=f"{name}.*left alone. Give another name with --inputs"):
                make(engine, inputs=name)
        assert ask(engine, "SELECT x FROM inputs") == [(1,)]
        with engine.begin() as connection:
            assert list_views(connection) == drop_views(connection) == []
        assert ask(engine, "SELECT x FROM inputs") == [(1,)]
    finally:
        run(engine, "DROP VIEW inputs")


def test_view_of_another_model_is_left_alone(engine):
    use(engine, people(), people(name="n"))
    make(engine, "n", **NAMES)
    with pytest.raises(Conflict, match="'inputs' belongs to n"):
        make(engine, "m", **NAMES)
    with engine.begin() as connection:
        assert drop_views(connection, "m") == []
        assert [view.model for view in drop_views(connection, "n")] == ["n"] * 3


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_view_that_others_are_made_of_is_not_dropped(engine):
    make(engine, **NAMES)
    run(engine, "CREATE VIEW old_people AS SELECT * FROM inputs WHERE age > 60")
    try:
        use(engine, people(features=PEOPLE[:-1]))
        with pytest.raises(Conflict, match="'inputs' cannot be dropped or replaced"):
            make(engine)
        with pytest.raises(Conflict, match="drop those first"), engine.begin() as connection:
            drop_views(connection)
        assert "télétravail" in columns(engine, "inputs")
    finally:
        run(engine, "DROP VIEW old_people")


@pytest.mark.parametrize(
    ("card", "names", "message"),
    [
        ({"features": [Feature(name="id", type="integer")], "rules": []}, {}, "two columns of one name .'id', 'id'."),
        ({"target": "age"}, {}, "The view reference of m would have two columns of one name .'age', 'age'."),
        ({}, {"inputs": "x", "predictions": "x"}, "Two views of m would be called 'x'"),
        ({}, {"inputs": "x" * 64}, "cannot have this name"),
        ({}, {"inputs": "a\nb"}, "cannot have this name"),
        ({}, {"inputs": "sqlite_x"}, "cannot have this name"),
        ({}, {"inputs": "pg_class"}, "cannot have this name"),
        ({}, {"reference": "PG_temp"}, "cannot have this name"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_is_made(engine, card, names, message):
    use(engine, people(**card))
    with pytest.raises(CardError, match=message):
        make(engine, **names)
    with engine.connect() as connection:
        assert list_views(connection) == []


def test_names_that_the_database_takes_for_one_are_refused(engine):
    twins = {"sqlite": ["Age", "age"], "postgresql": ["x" * 63 + "y", "x" * 63 + "z"]}
    use(engine, people(features=[Feature(name=name, type="integer") for name in twins[engine.dialect.name]], rules=[]))
    with pytest.raises(CardError, match="two columns of one name"):
        make(engine)


def test_card_with_more_features_than_a_view_has_columns_is_refused(engine):
    use(engine, people(features=[Feature(name=f"x{number}", type="number") for number in range(2000)], rules=[]))
    with pytest.raises(CardError, match="has too many features for a view"):
        make(engine)


def test_model_that_is_not_there_has_no_views(engine):
    with pytest.raises(NotFound, match="There is no model 'other'"):
        make(engine, "other")


# ── migrations ───────────────────────────────────────────────────────────────────────────────────────────────────


def widen(connection):
    """Change a column that the views are made of, as a migration does; it takes the view `lineage` away itself."""
    connection.exec_driver_sql("DROP VIEW lineage")
    operations = Operations(MigrationContext.configure(connection))
    with operations.batch_alter_table("model_outputs") as batch:
        batch.alter_column("label", type_=String(90))


def test_migration_that_changes_what_views_are_made_of_takes_them_aside(engine):
    make(engine, **NAMES)
    score(engine, ROW)
    refused = {"sqlite": "error in view", "postgresql": "used by a view"}[engine.dialect.name]
    with pytest.raises(DBAPIError, match=refused), engine.connect() as connection:
        widen(connection)
    with engine.connect() as connection, connection.begin() as transaction:
        with without_views(connection):
            assert list_views(connection) == []
            widen(connection)
        assert [view.name for view in list_views(connection)] == list(NAMES.values())
        assert connection.exec_driver_sql("SELECT prediction_label FROM predictions").scalar() == "Part"
        transaction.rollback()
    with engine.connect() as connection:
        assert [view.name for view in list_views(connection)] == list(NAMES.values())


def test_views_of_a_model_without_a_champion_do_not_end_a_migration(engine, caplog):
    make(engine, **NAMES)
    use(engine)
    with engine.begin() as connection, without_views(connection):
        pass
    assert "the views inputs, predictions, employees_dataset are gone" in caplog.text


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_views_do_not_stand_in_the_way_of_taking_migrations_back(dialect, session_postgres, tmp_path):
    with either_engine(dialect, "views_back", session_postgres, tmp_path) as engine:
        use(engine, people())
        make(engine, **NAMES)
        with settings_of(**settings_for(engine.url.render_as_string(hide_password=False))):
            command.downgrade(alembic_config(), "0002")
            assert inspect(engine).get_view_names() == []
            command.upgrade(alembic_config(), "head")


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_command_makes_and_drops_them_and_says_how_to_make_them_again(engine, capsys):
    with settings_of(**settings_for(engine.url.render_as_string(hide_password=False))):
        assert main(["views", "m", "--inputs", "in puts"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == "in puts: the inputs of m, made"
        assert main(["views", "--drop"]) == 0
        assert "views m --inputs 'in puts' --predictions m_predictions" in capsys.readouterr().out
        assert main(["views", "m", "--drop"]) == 0
        assert "There are no such views." in capsys.readouterr().err
        assert main(["views", "m", "--inputs", "jobs"]) == 1
        assert "already a table or a view 'jobs'" in capsys.readouterr().err
        for wrong in (["views"], ["views", "m", "--drop", "--inputs", "x"]):
            with pytest.raises(SystemExit):
                main(wrong)


def test_example_whose_card_names_its_views_has_them_unless_a_name_is_taken(engine, capsys):
    with settings_of(**settings_for(engine.url.render_as_string(hide_password=False))):
        for names, expected in ((None, []), (NAMES, list(NAMES.values())), ({"inputs": "jobs"}, list(NAMES.values()))):
            use(engine, people(views=names))
            with session_scope(engine, read_only=True) as session:
                row = resolve(session, "m")
            make_named_views(row)
            with engine.connect() as connection:
                assert [view.name for view in list_views(connection)] == expected
    assert capsys.readouterr().err.startswith("note: m has no SQL views: There is already a table or a view 'jobs'")


def test_name_like_the_mark_of_another_model_makes_it_nobody_elses(engine):
    name = "guichet view: inputs of x (0123456789ab)"
    assert (name, "made") in make(engine, inputs=name)
    with engine.connect() as connection:
        assert {view.model for view in list_views(connection)} == {"m"}
        assert list_views(connection, "x") == []
    assert (name, "unchanged") in make(engine, inputs=name)


def test_view_of_somebody_else_whose_text_holds_a_mark_is_left_alone(engine):
    mark = "guichet view: inputs of m (0123456789ab)"
    with engine.begin() as connection:
        connection.exec_driver_sql(f'CREATE VIEW "theirs" AS SELECT 1 AS "{mark}" /* {mark} */')
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"COMMENT ON VIEW theirs IS 'made beside {mark}'")
    with engine.begin() as connection:
        assert list_views(connection) == []
        drop_views(connection)
        assert connection.exec_driver_sql("SELECT count(*) FROM theirs").scalar() == 1
        connection.exec_driver_sql("DROP VIEW theirs")
