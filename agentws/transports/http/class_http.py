"""HTTP for an agent that writes its own answers (`InvocationWebSocketHandler`)."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, ParamSpec

from aiohttp import web

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.context import InvocationContext
from agentws.agent.conversation import Draining
from agentws.agent.own_task import is_destroyed, run_apart
from agentws.invocations.caller import Caller
from agentws.protocol.errors import InvocationError, shutting_down
from agentws.protocol.identifiers import new_id
from agentws.telemetry.operations import OperationName, Telemetry
from agentws.transports.draining import drain_tasks
from agentws.transports.http.answers import AgentAnswer
from agentws.transports.http.begun_answers import BEGUN, finish
from agentws.transports.http.bodies import ask_for_body
from agentws.transports.http.sse_comments import SilenceBreaker, needs_comments
from agentws.transports.request_fields import (
    INVOCATION_ID,
    REQUEST_ID,
    SESSION_ID,
    header_invocation_id,
    path_invocation_id,
    read_caller,
)
from agentws.transports.session_ids import http_session

Arguments = ParamSpec("Arguments")

_BREAKER: Final = web.RequestKey("breaker", SilenceBreaker)


class ClassHttp:
    """Answers the routes of invocations, each by a method of the agent's class."""

    def __init__(
        self,
        agent: InvocationWebSocketHandler,
        telemetry: Telemetry,
        draining: Draining,
        *,
        session_id: str,
        keep_alive: float,
    ) -> None:
        """Make the routes; `session_id` is the configuration's, or empty.

        Event streams get a comment after `keep_alive` seconds of silence, 0 for never.
        """
        self._agent = agent
        self._telemetry = telemetry
        self._draining = draining
        self._session_id = session_id
        self._keep_alive = keep_alive
        self._under_way: set[asyncio.Task[Any]] = set()

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """Let the agent answer an invoke. Raises `shutting_down` during a drain."""
        if self._draining.begun:
            raise shutting_down()
        request[INVOCATION_ID] = header_invocation_id(request) or new_id()
        caller, context = self._read(request, request[INVOCATION_ID])
        request[SESSION_ID] = context.session_id
        answer = self._answer(request, self._agent.handle, request, context)
        return await self._observe("invoke_agent", context, caller, answer)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Let the agent answer a poll."""
        caller, context = self._read(request, path_invocation_id(request))
        answer = self._answer(request, self._agent.get, context.invocation_id, request, context)
        return await self._observe("get_invocation", context, caller, answer)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Let the agent answer a cancel."""
        caller, context = self._read(request, path_invocation_id(request))
        answer = self._answer(request, self._agent.cancel, context.invocation_id, request, context)
        return await self._observe("cancel_invocation", context, caller, answer)

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        """Let the agent answer with its document."""
        return await self._answer(request, self._agent.get_openapi, request)

    async def asyncapi(self, request: web.Request) -> web.StreamResponse:
        """Let the agent answer with its document."""
        return await self._answer(request, self._agent.get_asyncapi, request)

    async def listing(self, _request: web.Request) -> web.StreamResponse:
        """Raise `not_implemented`: what there is to list, only the agent knows."""
        raise InvocationError("not_implemented", "This agent's invocations are not listed")

    async def inputs(self, request: web.Request) -> web.StreamResponse:
        """Raise `not_implemented`: what is said to what runs, is said on the agent's socket."""
        path_invocation_id(request)
        raise InvocationError("not_implemented", "This agent's invocations take no inputs")

    async def drain(self, grace: float, patience: float) -> bool:
        """Wait for what is under way, and tell whether all has ended."""
        return not await drain_tasks(self._under_way, grace, patience)

    async def keep_alive(self, request: web.Request, response: web.StreamResponse) -> None:
        """Break the silences of an event stream; to be called before its head is written."""
        if self._keep_alive and needs_comments(request, response):
            request[_BREAKER] = SilenceBreaker(request.writer, self._keep_alive)

    def _read(self, request: web.Request, invocation_id: str) -> tuple[Caller, InvocationContext]:
        caller = read_caller(request, "http", request[REQUEST_ID])
        session_id = http_session(request, self._session_id)
        return caller, caller.context(invocation_id, session_id, self._draining)

    async def _observe(
        self,
        action: OperationName,
        context: InvocationContext,
        caller: Caller,
        answer: Coroutine[Any, Any, web.StreamResponse],
    ) -> web.StreamResponse:
        """Await an answer; one that is a `web.HTTPException` is an answer like any other."""
        with self._telemetry.begin(action, context, caller.trace) as operation:
            try:
                return await answer
            except AgentAnswer:
                operation.succeed()
                raise

    async def _answer(
        self,
        request: web.Request,
        method: Callable[Arguments, Awaitable[web.StreamResponse]],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> web.StreamResponse:
        """Await what a method of the agent answers, and write it out.

        Raises `AgentAnswer` for a `web.HTTPException` before that has begun, and `TypeError` for
        what is no response.
        """
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            await ask_for_body(request)
            response = await run_apart(method(*arguments, **options))
            if not isinstance(response, web.StreamResponse):
                raise TypeError(f"The agent answered with a {type(response).__name__}")
            await finish(request, response)
            return response
        except web.HTTPException as error:
            if BEGUN in request:
                raise
            raise AgentAnswer(error) from None
        except (Exception, asyncio.CancelledError):  # of the latter, only the client is the cause
            raise
        except BaseException as error:
            if is_destroyed(error):
                raise
            raise RuntimeError("The agent's method raised what ends a program") from error
        finally:
            self._under_way.discard(task)
            if (breaker := request.get(_BREAKER)) is not None:
                breaker.stop()
