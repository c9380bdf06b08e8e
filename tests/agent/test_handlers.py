"""What an agent author registers: what is taken, what is refused, and how that is told."""

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from tests.agent.conftest import CONTEXT, ROLES, not_async, one_argument, outcome_of, two_arguments

# Handlers of every kind


async def answer(payload: Any, context: InvocationContext) -> Any:
    return payload


async def stream(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    yield payload


async def answer_prefixed(prefix: str, payload: Any, context: InvocationContext) -> Any:
    return prefix + payload


async def stream_prefixed(
    prefix: str, payload: Any, context: InvocationContext
) -> AsyncGenerator[Any, None]:
    yield prefix + payload


async def with_defaults(
    payload: Any, context: Any = None, more: int = 0, *, log: Any = None
) -> Any:
    return payload


async def with_any_arguments(*arguments: Any, **options: Any) -> Any:
    return arguments[0]


class Answering:
    async def __call__(self, payload: Any, _context: InvocationContext) -> Any:
        return payload

    async def answer(self, payload: Any, _context: InvocationContext) -> Any:
        return payload

    @classmethod
    async def answer_as_class(cls, payload: Any, _context: InvocationContext) -> Any:
        return payload

    @staticmethod
    async def answer_alone(payload: Any, _context: InvocationContext) -> Any:
        return payload


class Streaming:
    async def __call__(
        self, payload: Any, _context: InvocationContext
    ) -> AsyncGenerator[Any, None]:
        yield payload

    async def stream(self, payload: Any, _context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield payload


ANSWERING: dict[str, Callable[..., Any]] = {
    "function": answer,
    "defaults": with_defaults,
    "any arguments": with_any_arguments,
    "callable object": Answering(),
    "bound method": Answering().answer,
    "class method": Answering.answer_as_class,
    "static method": Answering.answer_alone,
    "partial": functools.partial(answer_prefixed, ""),
    "partial of a partial": functools.partial(functools.partial(answer_prefixed, "")),
    "partial of a callable object": functools.partial(Answering()),
    "partial of a bound method": functools.partial(Answering().answer),
}
STREAMING: dict[str, Callable[..., Any]] = {
    "generator": stream,
    "callable object": Streaming(),
    "bound method": Streaming().stream,
    "partial": functools.partial(stream_prefixed, ""),
    "partial of a callable object": functools.partial(Streaming()),
}


@pytest.mark.parametrize("function", ANSWERING.values(), ids=ANSWERING.keys())
async def test_what_answers(function: Callable[..., Any]) -> None:
    agent = Agent()
    assert agent.invoke_handler(function) is function
    assert not agent.streams
    assert await outcome_of(agent, "hello") == "hello"


@pytest.mark.parametrize("function", STREAMING.values(), ids=STREAMING.keys())
async def test_what_streams(function: Callable[..., Any]) -> None:
    agent = Agent()
    assert agent.invoke_handler(function) is function
    assert agent.streams
    assert await outcome_of(agent, "hello") == ["hello"]


def test_an_agent_without_an_invoke_handler_streams_nothing() -> None:
    agent = Agent()
    assert agent.invoke is None
    assert not agent.streams


@pytest.mark.parametrize(("decorator", "role", "function", "arguments"), ROLES)
def test_a_decorator_registers_and_returns_the_function_unchanged(
    decorator: str, role: str, function: Callable[..., Any], arguments: str
) -> None:
    agent = Agent()
    assert getattr(agent, decorator)(function) is function
    assert getattr(agent, role) is function
    assert not [other for _, other, *_ in ROLES if other != role and getattr(agent, other)]


@pytest.mark.parametrize(("decorator", "role", "function", "arguments"), ROLES)
def test_registering_twice_warns_and_the_last_wins(
    decorator: str, role: str, function: Callable[..., Any], arguments: str
) -> None:
    agent = Agent()
    getattr(agent, decorator)(with_any_arguments)
    with pytest.warns(UserWarning, match="replaced") as caught:
        getattr(agent, decorator)(function)
    assert getattr(agent, role) is function
    assert [warning.filename for warning in caught] == [__file__]  # where the agent's author looks


# Refusals


def generator(*arguments: Any) -> Iterator[None]:
    yield


async def too_few_arguments() -> None: ...


async def too_many_arguments(a: Any, b: Any, c: Any) -> None: ...


async def needs_a_keyword(*arguments: Any, log: Any) -> None: ...


async def keywords_only(*, payload: Any, context: Any) -> None: ...


async def streams(*arguments: Any) -> AsyncGenerator[None, None]:
    yield


class NotAsync:
    def __call__(self, *arguments: Any) -> None: ...

    def answer(self, *arguments: Any) -> None: ...


@functools.wraps(answer)
def wraps_an_async_function(*arguments: Any) -> Awaitable[Any]:
    return answer(*arguments)


NEVER_ASYNC: dict[str, object] = {
    "function": not_async,
    "generator": generator,
    "lambda": lambda *_: None,
    "built-in": print,
    "class": Answering,
    "callable object": NotAsync(),
    "bound method": NotAsync().answer,
    "partial": functools.partial(not_async, 1),
    "partial of a callable object": functools.partial(NotAsync()),
    "wrapper that is not async itself": wraps_an_async_function,
    "coroutine function's name": "answer",
    "nothing": None,
}


@pytest.mark.parametrize("function", NEVER_ASYNC.values(), ids=NEVER_ASYNC.keys())
@pytest.mark.parametrize(("decorator", "role", "_", "arguments"), ROLES)
def test_what_is_not_async_is_refused_and_told_what_is_expected(
    decorator: str, role: str, _: object, arguments: str, function: object
) -> None:
    agent = Agent()
    with pytest.raises(TypeError) as caught:
        getattr(agent, decorator)(function)
    name = getattr(function, "__qualname__", repr(function))
    kinds = "async function or async generator" if role == "invoke" else "async function"
    assert f"must be an {kinds} taking {arguments}; {name} is not" in str(caught.value)
    assert getattr(agent, role) is None


@pytest.mark.parametrize(("decorator", "role", "_", "arguments"), ROLES[1:])
def test_only_an_invoke_handler_may_stream(
    decorator: str, role: str, _: object, arguments: str
) -> None:
    agent = Agent()
    with pytest.raises(TypeError, match="must be an async function taking"):
        getattr(agent, decorator)(streams)
    assert getattr(agent, role) is None


MISFITS = [
    *((decorator, needs_a_keyword) for decorator, *_ in ROLES),
    *((decorator, keywords_only) for decorator, *_ in ROLES),
    *((decorator, too_many_arguments) for decorator, *_ in ROLES),
    *((decorator, too_few_arguments) for decorator, *_ in ROLES[:4]),
    ("invoke_handler", one_argument),
    ("invoke_handler", answer_prefixed),
    ("invoke_handler", functools.partial(answer, "payload")),
    ("invoke_handler", stream_prefixed),
    ("invoke_handler", Answering.answer),  # not bound
    ("get_invocation_handler", two_arguments),
    ("get_invocation_handler", Answering()),
    ("cancel_invocation_handler", two_arguments),
    ("ws_handler", one_argument),
    ("startup_handler", one_argument),
    ("shutdown_handler", one_argument),
    ("readiness_handler", one_argument),
]


@pytest.mark.parametrize(("decorator", "function"), MISFITS)
def test_what_takes_other_arguments_is_refused_and_told_what_is_expected(
    decorator: str, function: Callable[..., Any]
) -> None:
    _, role, _, arguments = next(row for row in ROLES if row[0] == decorator)
    agent = Agent()
    with pytest.raises(TypeError, match="cannot be called so") as caught:
        getattr(agent, decorator)(function)
    assert f"taking {arguments}" in str(caught.value)
    assert getattr(agent, role) is None


def test_a_refused_handler_does_not_replace_a_good_one() -> None:
    agent = Agent()
    agent.invoke_handler(answer)
    with pytest.raises(TypeError):
        agent.invoke_handler(not_async)
    assert agent.invoke is answer


# What else an agent has


def test_documents_are_kept() -> None:
    document = {"openapi": "3.1.0"}
    assert Agent(openapi=document).openapi is document
    assert Agent(asyncapi=document).asyncapi is document
    assert Agent().openapi is None
    assert Agent().asyncapi is None


@pytest.mark.parametrize("document", ["{}", ["openapi"], 3])
def test_a_document_is_a_dict(document: Any) -> None:
    with pytest.raises(TypeError, match=f"asyncapi must be a dict, not {type(document).__name__}"):
        Agent(asyncapi=document)
    with pytest.raises(TypeError, match=f"openapi must be a dict, not {type(document).__name__}"):
        Agent(openapi=document)


NO_SUBPROTOCOLS = ["chat.v1", ["a b"], [""], ["é"], ["a,b"], [1], None, 5]


@pytest.mark.parametrize("names", NO_SUBPROTOCOLS)
def test_what_are_no_names_of_subprotocols_is_refused(names: Any) -> None:
    with pytest.raises(TypeError):
        Agent(subprotocols=names)
    with pytest.raises(TypeError):

        class Own(InvocationWebSocketHandler):
            subprotocols = names


def test_subprotocols_are_kept_in_their_order() -> None:
    assert Agent(subprotocols=["b.v1", "a+json"]).subprotocols == ("b.v1", "a+json")
    assert Agent().subprotocols == InvocationWebSocketHandler.subprotocols == ()


@pytest.mark.parametrize("field", ["invocation_id", "user_id", "anything_else"])
def test_a_context_cannot_be_changed(field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(CONTEXT, field, "other")
