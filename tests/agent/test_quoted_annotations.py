"""Annotations that are all in quotes: the import below makes them so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from agentws.agent.handlers import Agent

if TYPE_CHECKING:
    from agentws.agent.context import InvocationContext


class Question(Struct):
    message: str


class Token(Struct):
    token: str


async def reply(payload: Question, context: InvocationContext) -> Token:
    return Token(payload.message)


def test_a_type_is_found_whatever_the_other_names_lead_to() -> None:
    agent = Agent()
    agent.invoke_handler(reply)
    assert agent.convert({"message": "hi"}) == Question("hi")
    assert agent.contract.answer == {"$ref": "#/components/schemas/Token"}
