"""What authors can write is told whole."""

import msgspec

from agentws import Agent, InvocationContext, InvocationWebSocketHandler
from tests.docs.conftest import names, page, rows, section
from tests.support.processes import ROOT

HANDLERS = page("handlers.md")


def told(heading: str) -> set[str]:
    """Return what the first cells of a section's tables name, arguments left out."""
    cells = [row[0] for row in rows(section(HANDLERS, heading))]
    return {name.partition("(")[0] for cell in cells for name in names(cell)}


def test_all_decorators_are_told() -> None:
    decorators = {name for name in vars(Agent.__mro__[1]) if name.endswith("_handler")}
    assert told("## Handlers") - {"Agent"} == decorators


def test_all_of_the_context_is_told() -> None:
    fields = {field.name for field in msgspec.structs.fields(InvocationContext)}
    public = {name for name in {*fields, *dir(InvocationContext)} if not name.startswith("_")}
    verbs = {"ask", "drained", "inputs", "receive", "report"}  # which sections of their own tell
    assert told("## The context") == public - verbs
    for verb in verbs:
        assert f"context.{verb}" in HANDLERS


def test_all_methods_of_the_class_style_are_told() -> None:
    methods = {name for name in vars(InvocationWebSocketHandler) if not name.startswith("_")}
    assert told("## Class style") == methods - {"daemon_settings", "subprotocols"}


def test_all_examples_are_told() -> None:
    for example in (ROOT / "examples").glob("[a-z]*.py"):
        assert f"(../examples/{example.name})" in HANDLERS
