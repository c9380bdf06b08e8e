"""Agents in class style: which methods there are, and what they have to look like."""

from typing import Any

import pytest

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.protocol.errors import InvocationError
from tests.agent.conftest import no_arguments, not_async


class Minimal(InvocationWebSocketHandler):
    async def handle_websocket(self, ws: Any, context: Any) -> None: ...


METHODS: list[tuple[str, tuple[str, ...]]] = [
    ("handle_websocket", ("ws", "context")),
    ("handle", ("request", "context")),
    ("get", ("invocation_id", "request", "context")),
    ("cancel", ("invocation_id", "request", "context")),
    ("get_openapi", ("request",)),
]


@pytest.mark.parametrize(("method", "arguments"), METHODS[1:])
async def test_a_method_that_is_not_overridden_is_not_found(
    method: str, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(InvocationError) as caught:
        await getattr(Minimal(), method)(*arguments)
    assert (caught.value.code, caught.value.status) == ("not_found", 404)


def test_the_socket_has_to_be_served() -> None:
    class WithoutSocket(InvocationWebSocketHandler): ...

    with pytest.raises(TypeError, match="handle_websocket"):
        WithoutSocket()  # type: ignore[abstract]


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_a_method_that_is_not_async_is_refused_with_its_class(
    method: str, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(TypeError) as caught:
        type("Wrong", (Minimal,), {method: not_async})
    assert f"The {method} method must be an async function" in str(caught.value)
    assert f"taking (self, {', '.join(arguments)})" in str(caught.value)


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_a_method_that_takes_other_arguments_is_refused_with_its_class(
    method: str, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(TypeError, match="cannot be called so") as caught:
        type("Wrong", (Minimal,), {method: no_arguments})
    assert f"taking (self, {', '.join(arguments)})" in str(caught.value)


def test_methods_of_other_names_may_be_anything() -> None:
    class Served(Minimal):
        def helper(self) -> int:
            return 1

    assert Served().helper() == 1
