"""What an agent author writes: what is taken, what is refused and how, and how it is loaded."""

import functools
import importlib
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from agentws.agent.loading import LoadError, Served, is_loading, load
from agentws.protocol.errors import InvocationError

CONTEXT = InvocationContext("i", "s")


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


async def outcome_of(agent: Agent, payload: str) -> object:
    """Call the invoke handler as the daemon does."""
    assert agent.invoke is not None
    called = agent.invoke(payload, CONTEXT)
    if agent.streams:
        return [chunk async for chunk in cast(AsyncGenerator[Any, None], called)]
    return await cast(Awaitable[Any], called)


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


async def no_arguments() -> None: ...


async def one_argument(context: InvocationContext) -> None: ...


async def two_arguments(first: Any, second: Any) -> None: ...


ROLES: list[tuple[str, str, Callable[..., Any], str]] = [
    ("invoke_handler", "invoke", two_arguments, "(payload, context)"),
    ("get_invocation_handler", "get", one_argument, "(context)"),
    ("cancel_invocation_handler", "cancel", one_argument, "(context)"),
    ("ws_handler", "serve_socket", two_arguments, "(ws, context)"),
    ("startup_handler", "startup", no_arguments, "()"),
    ("shutdown_handler", "shutdown", no_arguments, "()"),
]


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


def not_async(*arguments: Any) -> None: ...


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


# Class style


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


# Loading


Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules to the folder that the daemon starts in; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(file: str, source: str) -> Path:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        importlib.invalidate_caches()
        return path

    yield write
    for name, module in list(sys.modules.items()):
        known = vars(module)  # a module may have its own idea of getattr
        places = [known.get("__file__") or "", *known.get("__path__", ())]
        if any(Path(place).is_relative_to(tmp_path) for place in places):
            del sys.modules[name]


def load_agent(target: str | None) -> Agent:
    served = load(target)
    assert isinstance(served, Agent)
    return served


def refusal(target: str) -> str:
    """Return why a target is not loaded, which must be one line and name the target."""
    with pytest.raises(LoadError) as caught:
        load(target)
    text = str(caught.value)
    assert repr(target) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("target", [None, ""])
async def test_without_a_target_the_agent_echoes(target: str | None) -> None:
    agent = load_agent(target)
    assert not agent.streams
    assert await outcome_of(agent, "hello") == "hello"


MODULE = """
import functools
from agentws import Agent, InvocationWebSocketHandler

agent = Agent()

@agent.invoke_handler
async def answer(payload, context):
    return payload

async def stream(payload, context):
    yield payload

class Answering:
    async def __call__(self, payload, context):
        return payload

    async def answer(self, payload, context):
        return payload

callable_object = Answering()
partial = functools.partial(answer)

class Nested:
    agent = Agent()

class Served(InvocationWebSocketHandler):
    async def handle_websocket(self, ws, context): ...

instance = Served()

class Abstract(InvocationWebSocketHandler): ...

class Failing(Served):
    def __init__(self):
        raise OSError("no\\nmodel")

class Demanding(Served):
    def __init__(self, model): ...

number = 5

def not_async(payload, context): ...

async def one_argument(payload): ...
"""


@pytest.mark.parametrize("name", ["answer", "callable_object", "callable_object.answer", "partial"])
async def test_a_function_becomes_an_agent_that_answers(write: Write, name: str) -> None:
    write("authors.py", MODULE)
    agent = load_agent(f"authors:{name}")
    assert not agent.streams
    assert await outcome_of(agent, "hello") == "hello"
    assert [role for _, role, *_ in ROLES if getattr(agent, role)] == ["invoke"]


async def test_a_generator_becomes_an_agent_that_streams(write: Write) -> None:
    write("authors.py", MODULE)
    agent = load_agent("authors:stream")
    assert agent.streams
    assert await outcome_of(agent, "hello") == ["hello"]


@pytest.mark.parametrize("name", ["agent", "Nested.agent", "instance"])
def test_what_can_be_served_is_returned_as_it_is(write: Write, name: str) -> None:
    write("authors.py", MODULE)
    served: object = load(f"authors:{name}")
    assert served is functools.reduce(getattr, name.split("."), importlib.import_module("authors"))


def test_of_a_class_an_instance_is_served(write: Write) -> None:
    write("authors.py", MODULE)
    served: Served = load("authors:Served")
    assert isinstance(served, InvocationWebSocketHandler)
    assert type(served).__name__ == "Served"


def test_a_module_in_a_package(write: Write) -> None:
    write("company/agents/__init__.py", "")
    write("company/agents/first.py", MODULE)
    assert load("company.agents.first:agent").daemon_settings == {}


def test_modules_import_each_other(write: Write) -> None:
    write("authors.py", MODULE)
    write("main.py", "from authors import agent")
    assert load("main:agent") is load("authors:agent")


def test_the_folder_comes_before_the_packages(write: Write) -> None:
    write("hypothetical_agent.py", MODULE)
    elsewhere = write("elsewhere/hypothetical_agent.py", "")
    sys.path.append(str(elsewhere.parent))
    load("hypothetical_agent:agent")


def test_a_module_knows_that_the_daemon_loads_it(write: Write) -> None:
    write(
        "asks.py",
        f"from agentws.agent.loading import is_loading\n{MODULE}\nfound = is_loading()",
    )
    write("breaks.py", "1 / 0")
    assert not is_loading()
    load("asks:agent")
    assert importlib.import_module("asks").found is True
    assert not is_loading()
    refusal("breaks:agent")
    assert not is_loading()


@pytest.mark.parametrize("target", ["authors", "authors:", ":agent", ":"])
def test_a_target_has_a_module_and_an_attribute(write: Write, target: str) -> None:
    write("authors.py", MODULE)
    assert "must look like package.module:attribute" in refusal(target)


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("nowhere:agent", "nowhere"),
        ("nowhere.agents:agent", "nowhere"),
        ("package.nowhere:agent", "package.nowhere"),
        ("package.nowhere.agents:agent", "package.nowhere"),
        ("an agent:agent", "an agent"),
        ("authors:agent:invoke", "authors:agent"),
    ],
)
def test_a_module_that_is_not_there(
    write: Write, tmp_path: Path, target: str, missing: str
) -> None:
    write("authors.py", MODULE)
    write("package/__init__.py", "")
    assert f"there is no module {missing!r} in {tmp_path}" in refusal(target)


@pytest.mark.parametrize(
    "path", ["authors.py", "./authors.py", "sub/../authors.py", "sub/linked.py", "{}/authors.py"]
)
def test_a_module_by_its_path(write: Write, tmp_path: Path, path: str) -> None:
    write("authors.py", MODULE)
    write("sub/other.py", "").with_name("linked.py").symlink_to(tmp_path / "authors.py")
    agent = load_agent(f"{path.format(tmp_path)}:agent")
    name = Path(path).stem
    assert agent is importlib.import_module(name).agent


@pytest.mark.parametrize("name", ["my-agent.py", "an agent.py", "é.py", "a:b/agent.py"])
def test_a_path_need_not_be_the_name_of_a_module(write: Write, name: str) -> None:
    write(name, MODULE)
    assert load_agent(f"./{name}:agent")


def test_the_folder_of_a_path_is_importable(write: Write) -> None:
    write("deep/down/main.py", "from beside import agent")
    write("deep/down/beside.py", MODULE)
    assert load_agent("deep/down/main.py:agent")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("./nowhere.py", "there is no file {}/nowhere.py"),
        ("{}/nowhere.py", "there is no file {}/nowhere.py"),
        ("./authors", "there is no file {}/authors"),
        ("package/", "there is no file {}/package"),
        ("./text.txt", "text.txt should be named like module.py"),
        ("./my.agent.py", "my.agent.py should be named like module.py"),
        ("./broken.py", "{}/broken.py, line 1: ZeroDivisionError"),
    ],
)
def test_a_path_that_leads_nowhere(write: Write, tmp_path: Path, path: str, problem: str) -> None:
    for name in ("authors.py", "text.txt", "my.agent.py", "package/__init__.py"):
        write(name, MODULE)
    write("broken.py", "1 / 0")
    assert problem.format(tmp_path) in refusal(f"{path.format(tmp_path)}:agent")


def test_a_path_whose_name_is_taken_is_told(write: Write) -> None:
    write("json.py", MODULE)
    assert f"the name 'json' belongs to another module ({json.__file__})" in refusal(
        "./json.py:agent"
    )
    write("sys.py", MODULE)
    assert "the name 'sys' belongs to another module (built-in)" in refusal("./sys.py:agent")


@pytest.mark.parametrize(
    "name", ["nothing", "answer.nothing", "nothing.answer", "Nested.", " agent"]
)
def test_an_attribute_that_is_not_there(write: Write, name: str) -> None:
    write("authors.py", MODULE)
    assert f"authors has no {name!r}" in refusal(f"authors:{name}")


@pytest.mark.parametrize(
    ("source", "line", "exception"),
    [
        ("x = 1\n1 / 0", 2, "ZeroDivisionError: division by zero"),
        ("def f():\n    raise OSError('no model')\nf()", 2, "OSError: no model"),
        ("raise ValueError('one\\ntwo\\n  three')", 1, "ValueError: one two three"),
        ("raise ValueError", 1, "ValueError: "),
        ("import sys\n\nsys.exit(3)", 3, "SystemExit: 3"),
        ("import os\nimport not_installed", 2, "ModuleNotFoundError: No module named"),
        ("import bro", 1, "ModuleNotFoundError: No module named 'bro'"),
        ("import broken.part", 1, "ModuleNotFoundError: No module named 'broken.part'"),
        ("from os import nothing", 1, "ImportError: cannot import name 'nothing'"),
        ("x = (\n", 1, "SyntaxError: "),
        ("x = 1\ny = = 1\n", 2, "SyntaxError: "),
        ("def f():\nx = 1\n", 2, "IndentationError: "),
        ("def f():\n    f()\nf()", 2, "RecursionError: "),
        ("assert False", 1, "AssertionError: "),
        (
            "from agentws import Agent\n@Agent().invoke_handler\ndef f(): ...",
            None,  # in a file of ours, because that is where it is raised
            "TypeError: The invoke handler must be",
        ),
    ],
)
def test_a_module_that_cannot_be_imported(
    write: Write, source: str, line: int | None, exception: str
) -> None:
    path = write("broken.py", source)
    text = refusal("broken:agent")
    assert exception in text
    if line is not None:
        assert f"{path}, line {line}: {exception}" in text


def test_a_module_that_imports_a_broken_one(write: Write) -> None:
    path = write("broken.py", "\n\n1 / 0")
    write("main.py", "import broken")
    assert f"{path}, line 3: ZeroDivisionError" in refusal("main:agent")


def test_a_module_in_another_encoding(write: Write) -> None:
    path = write("foreign.py", "")
    path.write_bytes(b"x = 1\ny = '\xff'\n")
    assert f"{path}, line 2: SyntaxError" in refusal("foreign:agent")


def test_the_exception_is_kept_for_its_traceback(write: Write) -> None:
    write("broken.py", "1 / 0")
    with pytest.raises(LoadError) as caught:
        load("broken:agent")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_module_is_imported_again_when_it_was_mended(write: Write) -> None:
    write("mended.py", "1 / 0")
    refusal("mended:agent")
    write("mended.py", MODULE)
    load("mended:agent")


@pytest.mark.parametrize(
    "error", ["GeneratorExit", "BaseExceptionGroup('g', [SystemExit(1)])", "SystemExit(3)"]
)
def test_whatever_ends_an_import_is_told(write: Write, error: str) -> None:
    path = write("ending.py", f"raise {error}")
    assert f"{path}, line 1: " in refusal("ending:agent")


def test_an_interrupt_is_no_error_of_the_module(write: Write) -> None:
    write("interrupted.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load("interrupted:agent")


def test_an_attribute_that_cannot_be_read(write: Write) -> None:
    path = write("lazy.py", "def __getattr__(name):\n    raise RuntimeError('no model')")
    assert f"{path}, line 2: RuntimeError: no model" in refusal("lazy:agent")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("number", "not a value of type int"),
        ("Answering", "not a class"),
        ("not_async", "async function or async generator taking (payload, context); not_async is"),
        ("one_argument", "one_argument cannot be called so"),
        ("Abstract", "handle_websocket"),
        ("Failing", "OSError: no model"),
        ("Demanding", "'model'"),
    ],
)
def test_an_attribute_that_cannot_be_served(write: Write, name: str, reason: str) -> None:
    write("authors.py", MODULE)
    assert reason in refusal(f"authors:{name}")
