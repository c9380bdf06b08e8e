"""The protocol is told as it is spoken."""

import re
from typing import Any, get_args

import msgspec
import pytest

from agentws.protocol.errors import STATUS
from agentws.protocol.frames import ClientFrame, ServerFrame
from tests.conftest import Serve
from tests.docs.conftest import names, page, rows, section
from tests.support.agents import agent_of, echo
from tests.support.processes import ROOT
from tests.support.snippets import is_there

PROTOCOL = page("protocol.md")

HEADINGS = re.findall(r"^## .*$", PROTOCOL, re.M)


def part(number: int) -> str:
    """Return the text of a section."""
    return section(PROTOCOL, HEADINGS[number - 1])


def test_the_sections_are_those_that_the_code_cites() -> None:
    numbers = [int(re.findall(r"\d+", heading)[0]) for heading in HEADINGS]
    assert numbers == list(range(1, 11))
    for file in (ROOT / "agentws").rglob("*.py"):
        text = re.sub(r"RFC \d+ §[\d.]+", "", file.read_text())
        for cited in re.findall(r"§(\d+)", text):
            assert int(cited) in numbers, file


def documented(text: str) -> dict[str, set[str]]:
    """Return the fields of each frame that a table tells of; rows of one name are put together."""
    frames: dict[str, set[str]] = {}
    for name, fields, *_ in rows(text):
        for frame in names(name)[:1]:
            told = {each for each in names(fields) if not each.startswith(('"', "{"))}
            frames.setdefault(frame, set()).update(told)
    return frames


def fields_of(frame: type[msgspec.Struct]) -> set[str]:
    """Return the fields of a frame, those that may be absent with a question mark."""
    return {
        field.name if field.required else f"{field.name}?"
        for field in msgspec.structs.fields(frame)
    }


@pytest.mark.parametrize("frame", get_args(ClientFrame))
def test_what_clients_send_is_told_with_all_fields(frame: Any) -> None:
    tables = documented(part(3).partition("| field | value |")[0])
    name = frame.__struct_config__.tag
    assert tables[name] == fields_of(frame) - {"query_id?"}, name


def test_no_other_actions_are_told() -> None:
    table = documented(part(3).partition("| field | value |")[0])
    table.pop("action")
    assert table.keys() == {frame.__struct_config__.tag for frame in get_args(ClientFrame)}


def test_what_the_server_sends_is_told_with_all_fields() -> None:
    table = documented(part(4).partition("An `error` with")[0])
    table.pop("type")
    frames: dict[str, set[str]] = {}
    for frame in get_args(ServerFrame):  # of which two are results
        sent = {field.rstrip("?") for field in fields_of(frame)}
        frames.setdefault(frame.__struct_config__.tag, set()).update(sent)
    assert {name: {it.rstrip("?") for it in told} for name, told in table.items()} == frames


def test_all_codes_are_told_with_their_status() -> None:
    told = {names(code)[0]: status for code, status, *_ in rows(part(7)) if names(code)}
    if not is_there("agentws dev"):
        told.pop("import_failed")
    assert told == {code: str(status) for code, status in STATUS.items()}


async def test_all_routes_are_told(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    served = {
        f"{route.method} {re.sub(':[^}]+', '', route.resource.canonical)}"
        for route in server.server.routes
        if route.resource is not None and route.method != "HEAD"
    }
    told = {name for cell, *_ in rows(part(1)) for name in names(cell)}
    routes = {name for name in told if name.startswith(("GET ", "POST "))}
    assert routes - {"GET /metrics", "GET /console/"} == served  # as these two are switched on
