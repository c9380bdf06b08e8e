"""The pages of the clients tell all that these have."""

import inspect
import re

import agentws.client
from agentws.client import Client, connect
from tests.docs.conftest import names, page, rows, section
from tests.support.node import JAVASCRIPT

PYTHON = page("clients/python.md")
IN_JAVASCRIPT = page("clients/javascript.md")
TYPES = (JAVASCRIPT / "agentws.d.ts").read_text()


def fields_of(interface: str) -> set[str]:
    """Return the optional fields of one of the types of the client in JavaScript."""
    found = re.search(rf"^export interface {interface} .*?^}}$", TYPES, re.M | re.S)
    assert found is not None
    return set(re.findall(r"^  (\w+)\?:", found[0], re.M))


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


def test_all_options_of_javascripts_connect_are_told_with_their_defaults() -> None:
    table = rows(section(IN_JAVASCRIPT, "## connect"))
    told = {name: row[1] for row in table for name in names(row[0])}
    assert told.keys() == fields_of("ConnectOptions")
    code = (JAVASCRIPT / "agentws.js").read_text()
    for name, default in re.findall(r"^  (\w+): (\d+),$", code, re.M):
        assert told[name] == default, name


def test_all_options_of_javascripts_invoke_are_told() -> None:
    (told,) = [row[0] for row in rows(IN_JAVASCRIPT) if row[0].startswith("`client.invoke(")]
    options = fields_of("InvokeOptions") | fields_of("FollowOptions")
    assert options == set(re.findall(r"\w+", told.partition("{")[2]))


def test_all_classes_of_javascript_are_told() -> None:
    classes = re.findall(r"^export class (\w+)", TYPES, re.M)
    assert set(classes) <= set(re.findall(r"\w+", IN_JAVASCRIPT))
