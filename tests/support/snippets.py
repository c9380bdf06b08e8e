"""The snippets of a document, tried as the comments before them say.

Who reads the document does not see these comments:

    <!-- file: my_agent.py -->       the block is that file
    <!-- agent: my_agent:agent -->   from here on there is a daemon of that agent, at the port that
                                     the document calls 8088; settings may follow: log_level=debug
    <!-- run -->                     the block is run: a program, or the lines of a shell
    <!-- prints -->                  the block is what the one before it prints
    <!-- talk -->                    the block is said on a framed socket: → is sent, ← is received,
                                     and after -- the socket is another one
    <!-- client -->, <!-- server --> the block holds frames that either side sends
    <!-- needs: agentws.client -->   it is tried only where that is there, see `is_there`

In what is printed or received, … stands for anything. Whatever the comments say, Python compiles,
JSON parses, and TOML configures a daemon.
"""

import ast
import asyncio
import contextlib
import json
import os
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import click
import msgspec

from agentws.cli.main import main
from agentws.config.options import OPTIONS, SECTIONS
from agentws.config.sources import load
from agentws.protocol.decoding import decode_frame
from agentws.protocol.encoding import encode
from agentws.protocol.frames import ServerFrame
from tests.conftest import Client
from tests.support.processes import PATIENCE, ROOT, Daemon, running

PORT: Final = "8088"
"""What documents call the port of the daemon."""

PROGRAMS: Final[Mapping[str, Sequence[str]]] = {
    "js": ("node", "--input-type=module", "--eval"),
    "python": (sys.executable, "-c"),
    "sh": ("bash", "-euc"),
}
"""What runs a text in each language."""

_BLOCK: Final = re.compile(
    r"(?P<marks>(?:^ *<!-- [^\n]* -->\n+)*)^(?P<indent> *)```(?P<language>\w*)[^\n]*\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)
_MARK: Final = re.compile(r"<!-- (\w+)(?:: ([^\n]*))? -->")


class Snippet(NamedTuple):
    """A fenced block, and what is to be done with it."""

    line: int
    language: str
    text: str
    marks: Mapping[str, str]


def snippets(document: Path) -> Iterator[Snippet]:
    """Yield the blocks of a document in their order."""
    text = document.read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        marks = dict(_MARK.findall(match["marks"]))
        yield Snippet(line, match["language"], textwrap.dedent(match["text"]), marks)


def is_there(name: str) -> bool:
    """Tell whether something is built.

    That is a path in the repository, a setting, a command such as `agentws serve` with options or
    without, or a name of ours in Python.
    """
    if "/" in name:
        return (ROOT / name).exists()
    if name.partition(".")[0] in SECTIONS:
        return name in OPTIONS
    if name.startswith("agentws "):
        _, command, *options = name.split()
        return command in main.commands and set(options) <= _options(main.commands[command])
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return getattr(found, "__file__", "") is not None  # a folder without code has none


def _options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


async def try_snippets(document: Path, folder: Path) -> None:
    """Try all snippets of a document in their order, with `folder` for its files."""
    async with AsyncExitStack() as daemons:
        attempt = _Attempt(folder, daemons)
        for snippet in snippets(document):
            try:
                await attempt.take(snippet)
            except BaseException as error:
                error.add_note(f"{document}, line {snippet.line}")
                raise


class _Attempt:
    """One document, as far as it was tried."""

    def __init__(self, folder: Path, daemons: AsyncExitStack) -> None:
        self._folder = folder
        self._daemons = daemons
        self._daemon: Daemon | None = None
        self._printed = ""

    async def take(self, snippet: Snippet) -> None:
        """Try the next snippet."""
        check(snippet)
        if "needs" in snippet.marks and not is_there(snippet.marks["needs"]):
            return
        if snippet.language == "toml":
            self._configure(snippet.text)
        if "agent" in snippet.marks:
            await self._serve(snippet.marks["agent"])
        if "file" in snippet.marks:
            (self._folder / snippet.marks["file"]).write_text(snippet.text)
        elif "run" in snippet.marks:
            self._printed = await self._run(snippet)
        elif "prints" in snippet.marks:
            pattern = _pattern(snippet.text.rstrip())
            assert re.fullmatch(pattern, self._printed.rstrip(), re.S), self._printed
        elif "talk" in snippet.marks:
            await self._talk(snippet.text)

    def _configure(self, text: str) -> None:
        file = self._folder / "config.toml"
        file.write_text(text)
        load(file, environ={})

    async def _serve(self, agent: str) -> None:
        """Serve an agent with settings, in place of the one before."""
        target, *settings = agent.split()
        await self._daemons.aclose()
        self._daemon = await self._daemons.enter_async_context(
            running(
                *("-m", "agentws", "serve", "--handler", target, "--port", "0"),
                folder=ROOT if target.startswith("examples.") else self._folder,
                **dict(setting.split("=", 1) for setting in settings),
            )
        )

    async def _run(self, snippet: Snippet) -> str:
        text = snippet.text
        if self._daemon is not None:
            text = text.replace(PORT, str(self._daemon.port))
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        process = await asyncio.create_subprocess_exec(
            *PROGRAMS[snippet.language],
            text,
            cwd=self._folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(self._folder)},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(2 * PATIENCE):
            printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()
        return printed.decode()

    async def _talk(self, text: str) -> None:
        assert self._daemon is not None
        for part in re.split(r"^--.*\n", text, flags=re.M):
            async with self._daemon.connect() as client:
                for line in part.splitlines():
                    await _exchange(client, line[0], json.loads(line[1:]))


async def _exchange(client: Client, direction: str, message: Any) -> None:
    if direction == "→":
        await client.send(**message)
    else:
        assert direction == "←"
        frame = await client.receive()
        assert _is_like(message, frame), frame


def check(snippet: Snippet) -> None:
    """Raise an error for a block that is not what its language and its comments say."""
    match snippet.language:
        case "python":
            compile(snippet.text, "snippet", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        case "json":
            for value in _values(snippet.text):
                if "client" in snippet.marks:
                    decode_frame(json.dumps(value))
                if "server" in snippet.marks:
                    assert _is_from_the_server(value), value


def _is_from_the_server(value: Any) -> bool:
    """Tell whether a value is a frame, with no field besides those of that frame."""
    kinds = [kind for kind in get_args(ServerFrame) if kind.__struct_config__.tag == value["type"]]
    for kind in kinds:  # there are two kinds of results
        with contextlib.suppress(msgspec.ValidationError):
            frame = msgspec.json.decode(json.dumps(value), type=kind)
            if json.loads(encode(frame)) == value:
                return True
    return False


def _values(text: str) -> Iterator[Any]:
    """Yield the JSON values of a text, one after the other."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def _pattern(sample: str) -> str:
    return re.escape(sample).replace("…", ".*?")


def _is_like(sample: Any, value: Any) -> bool:
    """Tell whether a value is what a sample shows; a field "…" stands for any others."""
    match sample:
        case dict():
            wanted = {name: each for name, each in sample.items() if name != "…"}
            return (
                isinstance(value, dict)
                and (
                    wanted.keys() <= value.keys()
                    if "…" in sample
                    else wanted.keys() == value.keys()
                )
                and all(_is_like(each, value[name]) for name, each in wanted.items())
            )
        case list():
            return (
                isinstance(value, list)
                and len(sample) == len(value)
                and all(map(_is_like, sample, value))
            )
        case str():
            text = value if isinstance(value, str) else json.dumps(value)
            return re.fullmatch(_pattern(sample), text, re.S) is not None
        case _:
            return bool(sample == value)
