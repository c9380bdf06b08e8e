"""`agentws invoke`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from agentws.cli.connecting import Reach, entered, payload_of, reaching
from agentws.cli.ending import run_to_exit
from agentws.cli.terminal import Stdout

if TYPE_CHECKING:
    from agentws.cli.screens import Screen
    from agentws.client import Client

_ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"session", "id", "background", "payload"}),
    "attach": frozenset({"starting_after", "answer", "payload"}),
    "cancel": frozenset(),
    "get": frozenset(),
    "list": frozenset({"session"}),
}
"""What may be given with each of the flags that say what is to be done, or without one."""

_ANYWHERE: Final = frozenset({"json", "frames"})


def _an_id(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    from agentws.protocol.identifiers import ID_RULE, is_id

    if given is not None and not is_id(given):
        raise click.BadParameter(f"an id has {ID_RULE}.")
    return given


_PAGE: Final = """\
Invoke the agent of a server, and print what comes as it comes.

URL is that of the server, http://host or https://host, or of its framed socket, ws:// or
wss://; localhost:8088 stands for http://localhost:8088. PAYLOAD is JSON; what is no JSON is
{"message": PAYLOAD}, nothing is {}, and - is what stdin has.

Texts are joined: chunks that are a string, or have one in a field token, text, delta or
content. All else is a line of JSON. When the connection is lost, it is made again and the
stream goes on where it was, which is said on stderr. When the agent asks, you are asked.
Ctrl-C cancels the invocation; a second one leaves it running.

\b
Talk to an agent:
    agentws invoke localhost:8088 "What is new?"
    agentws invoke https://agents.example '{"topic": "owls"}' --token-command get-token
    agentws invoke localhost:8088 - --session s1 <question.json

\b
Let it run, and come back:
    id=$(agentws invoke localhost:8088 "Write a book" --background)
    agentws invoke localhost:8088 --attach $id
    agentws invoke localhost:8088 --get $id
    agentws invoke localhost:8088 --cancel $id
    agentws invoke localhost:8088 --list

\b
Answer a question without a terminal:
    agentws invoke localhost:8088 --attach $id --answer REQUEST_ID true

\b
With --json, there is a line for each chunk and question, and one for the end:
    {"type": "chunk", "number": 1, "payload": {"token": "Owls"}}
    {"type": "question", "number": 2, "payload": "Go on?", "request_id": "…"}
    {"type": "end", "number": 4, "payload": null, "status": "completed", …}

Exit codes: 0 it completed, or was cancelled as --cancel asked; 1 it failed, was cancelled or
lost, or is left running; 2 bad usage, or no connection.
"""


@click.command(help=_PAGE, short_help="Invoke an agent, and print what comes.")
@reaching
@click.option("--session", metavar="ID", callback=_an_id, help="The session that it belongs to.")
@click.option("--id", metavar="ID", callback=_an_id, help="The invocation's id; else one is made.")
@click.option("--background", is_flag=True, help="Let it run, and print its id.")
@click.option("--attach", metavar="ID", callback=_an_id, help="Follow an invocation that there is.")
@click.option(
    "--starting-after",
    type=click.IntRange(min=0),
    metavar="N",
    help="With --attach: begin after the chunk of this number.",
)
@click.option(
    "--answer",
    metavar="REQUEST_ID",
    callback=_an_id,
    help="With --attach: answer this question with PAYLOAD first.",
)
@click.option("--cancel", metavar="ID", callback=_an_id, help="Cancel an invocation.")
@click.option("--get", metavar="ID", callback=_an_id, help="Print the record of an invocation.")
@click.option("--list", is_flag=True, help="Print your invocations, the newest first.")
@click.option("--json", is_flag=True, help="Print lines of JSON.")
@click.option("--frames", is_flag=True, help="Print the messages of the socket, both ways.")
def invoke(reach: Reach, payload: str | None, **flags: Any) -> None:
    """Do what the flags say; the process ends with its exit code."""
    wish = _checked({**flags, "payload": payload})
    needs_payload = wish["doing"] == "" or wish["answer"] is not None
    run_to_exit(_invoke(reach, wish, payload_of(payload) if needs_payload else None))


def _checked(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags, and what they say is to be done. Raises `click.UsageError`."""
    given = {name for name, value in flags.items() if value is not None and value is not False}
    doing = [name for name in _ALLOWED if name in given]
    if len(doing) > 1:
        raise click.UsageError(f"{_spelt(doing)} exclude one another.")
    if {"json", "frames"} <= given:
        raise click.UsageError("--json and --frames exclude one another.")
    what = doing[0] if doing else ""
    extra = sorted(given - _ALLOWED[what] - _ANYWHERE - {what})
    if extra and what:
        raise click.UsageError(f"{_spelt(extra)} cannot be given with --{what}.")
    if extra:
        raise click.UsageError(f"{_spelt(extra)} can only be given with --attach.")
    if what == "attach" and ("answer" in given) != ("payload" in given):
        raise click.UsageError("With --attach, --answer and PAYLOAD are given together.")
    return {**flags, "doing": what}


def _spelt(names: list[str]) -> str:
    shown = [_name(name) for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _name(name: str) -> str:
    return "PAYLOAD" if name == "payload" else f"--{name.replace('_', '-')}"


async def _invoke(reach: Reach, wish: Mapping[str, Any], payload: Any) -> int:
    from agentws.cli.screens import FrameScreen, JsonScreen, TextScreen

    stdout = Stdout()
    screen: Screen = JsonScreen(stdout) if wish["json"] else TextScreen(stdout)
    client = await reach.client()
    if wish["frames"]:
        screen = frames = FrameScreen(stdout)
        client.on_frame(frames.told)
    async with entered(client):
        if wish["doing"] in ("", "attach"):
            return await _converse(client, reach, wish, payload, screen)
        from agentws.cli.looking import look

        return await look(client, wish, screen)


async def _converse(
    client: Client, reach: Reach, wish: Mapping[str, Any], payload: Any, screen: Screen
) -> int:
    from agentws.cli.conversation import Conversation

    if is_attached := wish["doing"] == "attach":
        run = client.attach(wish["attach"], after=wish["starting_after"] or 0)
    else:
        run = client.invoke(
            payload, id=wish["id"], session_id=wish["session"], background=wish["background"]
        )
    conversation = Conversation(client, run, screen, reach, attached=is_attached)
    if wish["background"]:
        return await conversation.start()
    return await conversation.follow(None if wish["answer"] is None else (wish["answer"], payload))
