"""The words of the command line."""

import argparse
from collections.abc import Callable

from guichet.command.terminal.outcomes import HELP
from guichet.connection import DEFAULT_URL
from guichet.version import __version__


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = shared.add_argument_group("the service")
    group.add_argument("--url", help=f"its address (default: GUICHET_URL, then {DEFAULT_URL})")
    group.add_argument("--api-key", help="your key (default: GUICHET_API_KEY, which other users cannot see)")
    group.add_argument("--timeout", type=_seconds, help="seconds that a request may go without an answer (default: 60)")
    group.add_argument("--retries", type=_whole, help="how often a request is sent again on trouble (default: 5)")

    # The parents' options hold before and after the word of the command.
    parser = argparse.ArgumentParser(
        prog="guichet",
        description="Score rows and CSV files with the models of a Guichet service.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.add_argument("--version", action="version", version=f"guichet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[shared],
        )

    predict = add("predict", "score one row, or a list of rows, from a JSON file")
    predict.add_argument(
        "file", help='JSON: the features of a row, alone or as {"features": ...}, or a list; - is stdin'
    )
    _add_model(predict)
    predict.add_argument("--async", action="store_true", dest="is_async", help="do not wait: print the job's id")
    _add_json(predict)

    csv = add("csv", "score a CSV file in the background and write its rows with their scores")
    csv.add_argument("file", nargs="?", help="the CSV file, gzip too, or an Excel workbook (.xlsx); - is stdin")
    csv.add_argument("-o", "--output", help="where to write the scored rows, in the order of the input; - is stdout")
    csv.add_argument("--errors", help="file for the faults of rows; - is stdout")
    csv.add_argument("--join", action="store_true", help="repeat the columns of the input in the output")
    csv.add_argument("--format", choices=("csv", "parquet"), help="of the output (default: by its name, else csv)")
    csv.add_argument("--job", metavar="ID", help="go on with this job instead of sending a file")
    _add_no_wait(csv)
    csv.add_argument("--partial", action="store_true", help="with --job: write the finished part")
    csv.add_argument("--validate", action="store_true", help="only check the file: nothing is scored or stored")
    _add_json(csv)
    how = csv.add_argument_group("how the file is written and scored (detected when left out)")
    _add_model(how)
    how.add_argument("--delimiter", help="comma, semicolon, tab, pipe, or the character")
    how.add_argument("--encoding", help="utf-8, utf-16, cp1252, latin-1")
    how.add_argument("--decimal", help="point, comma, or the character")
    how.add_argument("--thousands", help="comma, point, space, apostrophe, the character, or none")
    how.add_argument("--sheet", metavar="NAME", help="the sheet of an Excel workbook (default: its first visible one)")
    how.add_argument("--id-column", metavar="NAME", help="the column that identifies rows for you")
    how.add_argument("--strict", action="store_true", help="refuse columns that the model does not know")
    how.add_argument("--max-error-rate", type=_share, metavar="SHARE", help="fail when more rows have errors (0 to 1)")
    how.add_argument("--gzip", action="store_true", help="compress the upload, for slow networks")

    explain = add("explain", "explain the score of a row, or of every row of a job")
    explain.add_argument(
        "file", nargs="?", help='JSON: the features of a row, alone or as {"features": ...}; - is stdin'
    )
    explain.add_argument("--job", metavar="ID", help="explain rows of this job, or go on with one that explains")
    explain.add_argument("--row", type=_whole, metavar="N", help="with --job: only this row, from 0")
    explain.add_argument("-o", "--output", help="with --job: where to write a line for each row; - is stdout")
    explain.add_argument("--errors", help="with --job: where to write which row has no explanation; - is stdout")
    explain.add_argument("--format", choices=("csv", "parquet"), help="of the output (default: by its name, else csv)")
    explain.add_argument("--no-wait", action="store_true", help="with --job: do not wait, print the job's id")
    explain.set_defaults(join=False, partial=False)
    _add_model(explain)
    _add_json(explain)

    jobs = add("jobs", "list your jobs, newest first")
    jobs.add_argument("--status", choices=("queued", "running", "succeeded", "failed", "canceled", "expired"))
    jobs.add_argument("--model", metavar="NAME", help="only jobs of this model")
    jobs.add_argument("--limit", type=_whole, default=20, help="how many (default: 20)")
    _add_json(jobs)

    wait = add("wait", "wait until a job has ended and print its result")
    wait.add_argument("id", help="the job's id")
    wait.add_argument("--for", type=_seconds, dest="seconds", metavar="SECONDS", help="give up after this time")
    _add_json(wait)

    lineage = add("lineage", "show the history of a row's score: version, promotion, input, output, outcome")
    lineage.add_argument("id", help="the job's id")
    lineage.add_argument("row", nargs="?", type=_whole, default=0, metavar="ROW", help="which row of it, from 0")
    _add_json(lineage)

    reproduce = add(
        "reproduce", "score rows of a job again by the artefact that decided, and compare bit for bit (3: they differ)"
    )
    reproduce.add_argument("id", help="the job's id")
    reproduce.add_argument("row", nargs="?", type=_whole, metavar="ROW", help="only this row of it, from 0")
    _add_no_wait(reproduce)
    _add_json(reproduce)

    cancel = add("cancel", "cancel a job; rows that are done stay")
    cancel.add_argument("id", help="the job's id")
    _add_json(cancel)

    retry = add("retry", "retry the remaining rows of a failed or canceled CSV job")
    retry.add_argument("id", help="the job's id")
    _add_json(retry)

    erase = add("erase", "erase an ended job: its rows, scores, explanations and outcomes, and every copy of them")
    erase.add_argument("id", help="the job's id")
    _add_reason(erase, of="audit log")
    _add_json(erase)

    models = add("models", "list the models")
    _add_json(models)

    register = add("register", "add a model by upload, as the next version of its name")
    register.add_argument("file", metavar="FILE", help="a joblib or skops file, or a zip of the folder MLflow saved")
    register.add_argument("--name", required=True, help="the model's name")
    for option, text in (
        ("reference", "rows like those it was trained on: CSV, .xlsx, .parquet, .json"),
        ("contract", "part of a card that a client relies on: words, rules and limits"),
        ("card", "model.json; inferred from the reference rows when left out"),
        ("preprocessor", "joblib file of a fitted transformer that comes before the model"),
        ("code", "your own .py file that the model needs, or a zip of several"),
    ):
        register.add_argument(f"--{option}", metavar="FILE", help=text)
    register.add_argument("--target", metavar="COLUMN", help="column of the reference rows with the answer")
    register.add_argument("--labels", metavar="0=No,1=Yes|FILE", help="names of the classes, or a JSON file of them")
    register.add_argument("--threshold", metavar="P|FILE", help="lowest probability that is answered as 1")
    register.add_argument("--metrics", metavar="FILE", help="JSON file of the training's metrics")
    register.add_argument(
        "--task", choices=("binary", "multiclass", "regression"), help="inferred from the model by default"
    )
    register.add_argument("--probability", choices=("sigmoid",), help="make probabilities from decision_function")
    register.add_argument("--scores", metavar="COLUMN", help="column of the reference rows with the model's own scores")
    register.add_argument("--skip-bad", action="store_true", help="leave out reference rows that break the contract")
    register.add_argument("--trust", metavar="TYPE,TYPE", help="types in a skops file that you trust")
    register.add_argument("--as-version", type=_whole, metavar="N", help="version number (default: the next one)")
    for option in ("delimiter", "encoding", "decimal", "thousands"):
        register.add_argument(f"--{option}", help="of the reference rows (detected when left out)")
    _add_no_wait(register)
    _add_json(register)

    listing = add("list", "list the versions of all models, or of one")
    listing.add_argument("name", nargs="?", metavar="NAME[@VERSION|@ALIAS]", help="one model only, or one version")
    _add_json(listing)

    show = add("show", "show a version: its features, how it is scored, and a row to try")
    show.add_argument("model", metavar="NAME[@VERSION|@ALIAS]")
    _add_json(show)

    replay = add("replay", "score stored rows again with another version, and compare both")
    replay.add_argument("model", metavar="NAME@VERSION", help="the version that scores again, or NAME@ALIAS")
    _add_window(replay, of="only decisions of this version")
    replay.add_argument(
        "--where", action="append", default=[], metavar="FEATURE=VALUE", help="only rows with this value, or values"
    )
    replay.add_argument("-o", "--output", help="where to write both decisions of every row, as CSV")
    _add_no_wait(replay)
    _add_json(replay)

    train = add("train", "train a candidate version from a CSV file, or from the scored rows of a window")
    train.add_argument("file", nargs="?", help="the CSV file, with the answers in a column")
    train.add_argument("--target", metavar="COLUMN", help="the column with the answer")
    train.add_argument(
        "--name", metavar="MODEL", help="the model that gets the version (default: the name of the file)"
    )
    train.add_argument(
        "--task", choices=("binary", "multiclass", "regression"), help="inferred from the column by default"
    )
    train.add_argument("--positive", metavar="VALUE", help="the positive class of two")
    train.add_argument(
        "--leave-out", action="append", default=[], metavar="COLUMN", help="a column that is not a feature"
    )
    train.add_argument("--estimators", metavar="NAMES", help="linear,random_forest for example (default: all)")
    train.add_argument("--draws", type=_whole, metavar="N", help="combinations to try (default: 20)")
    train.add_argument("--seed", type=int, metavar="N", help="the same file and seed give the same model (default: 0)")
    train.add_argument("--cost-fp", type=_amount, metavar="COST", help="of a false positive (default: 1)")
    train.add_argument("--cost-fn", type=_amount, metavar="COST", help="of a false negative (default: 1)")
    train.add_argument("--target-recall", type=float, metavar="SHARE", help="for the threshold, instead of costs")
    train.add_argument("--again", metavar="MODEL", help="train on this model's reference rows and scored rows instead")
    train.add_argument("--from", dest="start", metavar="TIME", help="start of that window")
    train.add_argument("--to", dest="end", metavar="TIME", help="its end, exclusive (default: now)")
    _add_no_wait(train)
    _add_json(train)
    comparison = add("comparison", "compare the challenger of a model with the champion, on the same rows")
    comparison.add_argument("name", metavar="NAME", help="the model; NAME@VERSION: what this version scored")
    _add_window(comparison, of="decisions of this version (default: the champion)")
    _add_json(comparison)

    for name, text in (
        ("promote", "point an alias of a model to a version"),
        ("rollback", "point an alias back to its version before the last move"),
    ):
        moving = add(name, text)
        if name == "promote":
            moving.add_argument("model", metavar="NAME@VERSION")
            moving.add_argument("--force", action="store_true", help="in spite of PROMOTION_GATE; it is audited")
        else:
            moving.add_argument("name", metavar="NAME")
        moving.add_argument("--alias", default="champion", help="which alias (default: champion)")
        _add_reason(moving)
    removing = add("unalias", "take an alias away; the champion can only be moved")
    removing.add_argument("model", metavar="NAME@ALIAS")
    _add_reason(removing)
    for name, text in (
        ("archive", "archive a version of a model: it takes no rows until it is restored"),
        ("restore", "let an archived version serve again"),
        ("delete", "delete an archived version that never scored anything, with its files"),
    ):
        moving = add(name, text)
        moving.add_argument("model", metavar="NAME@VERSION")
        _add_reason(moving)

    history = add("history", "list how a model's aliases were moved: when, from, to, who, why")
    history.add_argument("name", metavar="NAME")
    _add_json(history)

    bench = add("bench", "measure how fast the service answers, one request after the other")
    bench.add_argument("--n", type=_whole, default=50, help="requests of each kind (default: 50)")
    bench.add_argument("--batch-size", type=_whole, default=200, help="rows in a batch (default: 200)")
    bench.add_argument("--row", metavar="FILE", help="JSON: the row to send (default: the model's own example)")
    bench.add_argument(
        "-o",
        "--output",
        default="outputs/perf/bench_latest.json",
        help="where to write the figures (default: outputs/perf/bench_latest.json)",
    )
    _add_model(bench)
    _add_json(bench)
    return parser


def _add_model(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--model", metavar="NAME[@VERSION]", help="the model (default: the service's default model)")


def _add_window(parser: argparse.ArgumentParser, *, of: str) -> None:
    parser.add_argument(
        "--from", dest="start", metavar="TIME", help="start, e.g. 2026-11-01T00:00:00Z (default: a week before)"
    )
    parser.add_argument("--to", dest="end", metavar="TIME", help="end, exclusive (default: now)")
    parser.add_argument("--of", type=_whole, metavar="VERSION", help=of)
    parser.add_argument("--cost-fp", type=_amount, metavar="COST", help="of a false positive (default: 1)")
    parser.add_argument("--cost-fn", type=_amount, metavar="COST", help="of a false negative (default: 1)")


def _add_reason(parser: argparse.ArgumentParser, *, of: str = "history") -> None:
    parser.add_argument("--reason", required=True, help=f"the reason, for readers of the {of}")


def _add_no_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="do not wait: print the job's id")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", dest="is_json", help="print JSON, for other programs")


def _seconds(text: str) -> float:
    return _number(text, float, 0.001, 1e9, "a number of seconds")


def _whole(text: str) -> int:
    return int(_number(text, int, 0, 10**9, "a whole number from 0 on"))


def _amount(text: str) -> float:
    return _number(text, float, 0, 1e12, "a number from 0 on")


def _share(text: str) -> float:
    return _number(text, float, 0, 1, "a share from 0 to 1, such as 0.05")


def _number(text: str, kind: Callable[[str], float], least: float, most: float, what: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = most + 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
