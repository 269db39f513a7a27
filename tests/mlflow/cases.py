"""Requests to MLflow's scoring server: to the real one, whose answers are kept, and to this service."""

import json
from collections.abc import Iterator

CITIES = ("Brest", "Lyon", "Paris")


def requests() -> Iterator[tuple[str, str, str, str]]:
    """Yield (model, what it is, content type, body); those that MLflow bends into shape, and we refuse, begin so."""
    one = {"age": 35, "basket": 61.5, "city": "Lyon", "member": True}
    two = {"age": 71, "basket": 12.25, "city": "Brest", "member": False}
    rows, names = [one, two], list(one)
    data = [list(row.values()) for row in rows]
    columns = {name: [row[name] for row in rows] for name in names}
    split = {"columns": names, "data": data}
    bodies = {
        "split": {"dataframe_split": split},
        "split with an index": {"dataframe_split": {**split, "index": ["a", "b"]}},
        "split in another order": {"dataframe_split": {"columns": names[::-1], "data": [row[::-1] for row in data]}},
        "split with a further column": {
            "dataframe_split": {"columns": [*names, "id"], "data": [[*row, 9] for row in data]}
        },
        "records": {"dataframe_records": rows},
        "one record": {"dataframe_records": [one]},
        "a null in an optional column": {"dataframe_records": [one, two | {"basket": None}]},
        "NaN in an optional column": {"dataframe_records": [one, two | {"basket": float("nan")}]},
        "an integer for a double": {"dataframe_records": [one | {"basket": 61}]},
        "an integral float for a long": {"dataframe_records": [one | {"age": 35.0}]},
        "a category that is not known": {"dataframe_records": [one | {"city": "Nice"}]},
        "inputs by column": {"inputs": columns},
        "inputs by record": {"inputs": rows},
        "inputs of one row": {"inputs": one},
        "instances by record": {"instances": rows},
        "instances by column": {"instances": columns},
        "a further field": {"inputs": rows, "trace": 1},
        "null for params": {"inputs": rows, "params": None},
        "two forms": {"inputs": rows, "instances": rows},
        "no form": {"features": one},
        "a list": rows,
        "no rows": {"dataframe_records": []},
        "split without rows": {"dataframe_split": {"columns": names, "data": []}},
        "bent: a ragged row": {"dataframe_split": {"columns": names, "data": [data[0], data[1][:3]]}},
        "split with a name twice": {
            "dataframe_split": {"columns": [*names, "age"], "data": [[*row, 1] for row in data]}
        },
        "split without a required column": {
            "dataframe_split": {"columns": names[1:], "data": [row[1:] for row in data]}
        },
        "split with a short index": {"dataframe_split": {**split, "index": [1]}},
        "split with a further key": {"dataframe_split": {**split, "dtypes": []}},
        "split that is a list": {"dataframe_split": data},
        "records that are an object": {"dataframe_records": one},
        "columns of different lengths": {"inputs": columns | {"age": [35]}},
        "a matrix where names are needed": {"inputs": data},
        "split where names are needed": {"dataframe_split": {"data": data}},
        "null in a required column": {"dataframe_records": [one | {"age": None}]},
        "bent: a fraction for a long": {"dataframe_records": [one | {"age": 35.7}]},
        "bent: text for a long": {"dataframe_records": [one | {"age": "35"}]},
        "bent: null for a boolean": {"dataframe_records": [one | {"member": None}]},
    }
    several = [
        {"age": 16 + 7 * i % 60, "basket": round(13.7 * i % 150, 2), "city": CITIES[i % 3], "member": i % 4 == 0}
        for i in range(40)
    ]
    bodies["forty records"] = {"dataframe_records": several}
    for name, body in bodies.items():
        yield "visitors", name, "application/json", json.dumps(body)
    text = "age,basket,city,member\n35,61.5,Lyon,True\n71,,Brest,False\n"
    yield "visitors", "CSV", "text/csv", text
    yield "visitors", "CSV that says UTF-8", "text/csv; charset=utf-8", text
    yield (
        "visitors",
        "CSV with pandas' index",
        "text/csv",
        ",age,basket,city,member\n0,35,61.5,Lyon,True\n1,71,12.25,Brest,False\n",
    )
    yield "visitors", "CSV in another encoding", "text/csv; charset=latin-1", text
    yield "visitors", "CSV without rows", "text/csv", "age,basket,city,member\n"
    yield "visitors", "CSV without a required column", "text/csv", "age,basket,city\n35,61.5,Lyon\n"
    yield "visitors", "an empty body", "text/csv", ""
    yield "visitors", "no JSON", "application/json", "{"
    yield "visitors", "the forms before MLflow 2", "application/json; format=pandas-split", json.dumps(split)
    yield "visitors", "another type", "application/xml", "<rows/>"
    matrix = [[3.5, 1.25, 0.5], [8, 2, 1]]
    for name, body in {
        "a matrix as inputs": {"inputs": matrix},
        "a matrix as instances": {"instances": matrix},
        "split without names": {"dataframe_split": {"data": matrix}},
        "split with pandas' numbers for names": {"dataframe_split": {"columns": [0, 1, 2], "data": matrix}},
        "a matrix that is too narrow": {"inputs": [row[:2] for row in matrix]},
        "a ragged matrix": {"inputs": [matrix[0], matrix[1][:2]]},
        "one row that is no matrix": {"inputs": matrix[0]},
    }.items():
        yield "tariff", name, "application/json", json.dumps(body)
