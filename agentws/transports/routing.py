"""Which handler answers a path."""

from collections.abc import Sequence

from aiohttp import web


class Elsewhere(web.PlainResource):
    """Where no other resource is.

    aiohttp's own answer to that would look at `Expect` before any middleware.
    """

    def __init__(self) -> None:
        super().__init__("/")

    async def resolve(
        self,
        request: web.Request,  # noqa: ARG002 - the signature is given
    ) -> tuple[web.UrlMappingMatchInfo, set[str]]:
        """Match whatever came, `OPTIONS *` included."""
        (route,) = self
        return web.UrlMappingMatchInfo({}, route), set()

    async def refuse(self, request: web.Request) -> web.StreamResponse:
        """Say that there is no such route, or that it has no such method."""
        allowed: set[str] = set()
        for resource in request.app.router.resources():
            if resource is not self:
                allowed |= (await resource.resolve(request))[1]
        if allowed:
            raise web.HTTPMethodNotAllowed(request.method, allowed)
        raise web.HTTPNotFound


def serve_routes(
    app: web.Application, routes: Sequence[web.RouteDef], exact: Sequence[web.RouteDef] = ()
) -> list[web.AbstractRoute]:
    """Let an application answer routes, and whatever is none of them; return those named.

    With a trailing slash a route is the same one (§1), unless it is among those that are `exact`.
    """
    named = app.add_routes([_taking(route, route.path) for route in (*routes, *exact)])
    app.add_routes([_taking(route, route.path + "/") for route in routes])
    elsewhere = Elsewhere()
    app.router.register_resource(elsewhere)
    elsewhere.add_route("*", elsewhere.refuse, expect_handler=expectation_waits)
    return named


def plain_path(request: web.BaseRequest) -> str:
    """Return the path of a request, without a trailing slash."""
    return request.path.removesuffix("/")


def _taking(route: web.RouteDef, path: str) -> web.RouteDef:
    options = {**route.kwargs, "expect_handler": expectation_waits}
    return web.RouteDef(route.method, path, route.handler, options)


def leads_nowhere(request: web.Request) -> bool:
    """Tell whether no route was found for a request."""
    match = request.match_info
    return match.http_exception is not None or isinstance(match.route.resource, Elsewhere)


async def expectation_waits(_: web.Request) -> None:
    """Leave `Expect` to whoever reads the body: aiohttp asks before a request is admitted."""
