"""The page of the Python client tells all that it has."""

import inspect
import re

import agentws.client
from agentws.client import Client, connect
from tests.docs.conftest import names, page, rows, section

PYTHON = page("clients/python.md")


def test_all_arguments_of_connect_are_told_with_their_defaults() -> None:
    told = {name: row[1] for row in rows(section(PYTHON, "## connect")) for name in names(row[0])}
    parameters = dict(inspect.signature(connect).parameters)
    parameters.pop("url")
    assert told.keys() == parameters.keys()
    for name, parameter in parameters.items():
        default = "none" if parameter.default is None else str(parameter.default)
        assert told[name].strip("`") == default, name


def test_all_arguments_of_invoke_are_told() -> None:
    parameters = inspect.signature(Client.invoke).parameters
    (told,) = [row[0] for row in rows(PYTHON) if row[0].startswith("`client.invoke(")]
    assert all(name in told for name in parameters if name != "self")


def test_all_names_are_told() -> None:
    text = PYTHON.replace("`", " ")
    assert set(agentws.client.__all__) <= set(re.findall(r"\w+", text))
