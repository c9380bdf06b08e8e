"""The routes of the console: its page, the files of it, and its state."""

from collections.abc import Collection, Mapping
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from agentws.config.settings import Settings
from agentws.console.files import INDEX, File, guarding_headers, read_files
from agentws.console.state import State
from agentws.transports.http.access_log import CONSOLE_STATE
from agentws.transports.http.answers import json_response

CONSOLE: Final = "/console"


class Console:
    """What answers under `/console`."""

    def __init__(self, settings: Settings, state: State, *, is_development: bool) -> None:
        """Read the files, and put into the page what it has to know of the settings."""
        self._state = state
        self._files = read_files(_meta(settings, is_development=is_development))

    @property
    def open_paths(self) -> Collection[str]:
        """The paths that need no credentials: a page could not send any for itself."""
        return {CONSOLE, *map(_path, self._files)}

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes that take a trailing slash, as all of ours do."""
        files = [web.get(_path(name), _answering(file)) for name, file in self._files.items()]
        return [*files, web.get(CONSOLE_STATE, self._answer_state)]

    @property
    def page_routes(self) -> list[web.RouteDef]:
        """Those for which the slash makes the difference: what the page names is beside it."""
        return [
            web.get(f"{CONSOLE}/", _answering(self._files[INDEX])),
            web.get(CONSOLE, _redirect),
        ]

    async def attend(self, _app: web.Application) -> None:
        """Begin to measure rates; a signal of the application's start."""
        self._state.rates.open()

    async def leave(self, _app: web.Application) -> None:
        """Measure no more; a signal of its end."""
        self._state.rates.close()

    async def _answer_state(self, request: web.Request) -> web.Response:
        response = json_response(self._state.describe())
        response.headers.update(guarding_headers(request))
        return response


def _path(name: str) -> str:
    return f"{CONSOLE}/{name}"


def _answering(file: File) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return file.answer(request)

    return answer


async def _redirect(request: web.Request) -> web.Response:
    query = f"?{request.query_string}" if request.query_string else ""
    headers = {**guarding_headers(request), hdrs.LOCATION: f"{CONSOLE}/{query}"}
    return web.Response(status=308, headers=headers)


def _meta(settings: Settings, *, is_development: bool) -> Mapping[str, str]:
    meta = {
        "agentws-auth": "required" if settings.auth.is_on else "none",
        "agentws-query-parameter": settings.auth.query_parameter,
    }
    return {**meta, "agentws-dev": "1"} if is_development else meta
