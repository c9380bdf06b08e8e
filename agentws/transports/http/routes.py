"""The routes of invocations, whoever answers them (§1)."""

from typing import Protocol

from aiohttp import web


class InvocationRoutes(Protocol):
    """What answers the routes: the table's verbs, or the methods of an agent in class style."""

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """Begin an invocation."""

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer a poll."""

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """Answer a page of the caller's invocations."""

    async def inputs(self, request: web.Request) -> web.StreamResponse:
        """Say something to a running invocation."""

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel an invocation."""

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        """Answer the description of what is invoked."""

    async def asyncapi(self, request: web.Request) -> web.StreamResponse:
        """Answer the description of the sockets."""


def invocation_routes(api: InvocationRoutes) -> list[web.RouteDef]:
    """Return the routes, for an application's router."""
    return [
        web.post("/invocations", api.invoke),
        web.get("/invocations/docs/openapi.json", api.openapi),
        web.get("/invocations_ws/docs/openapi.json", api.openapi),
        web.get("/invocations/docs/asyncapi.json", api.asyncapi),
        web.get("/invocations_ws/docs/asyncapi.json", api.asyncapi),
        web.get("/invocations", api.listing),
        web.get("/invocations/{id:[^/]+}", api.get),
        web.post("/invocations/{id:[^/]+}/inputs", api.inputs),
        web.post("/invocations/{id:[^/]+}/cancel", api.cancel),
    ]
