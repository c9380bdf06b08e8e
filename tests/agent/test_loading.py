"""How the agent that a target names is loaded, and why it is not."""

import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.handlers import Agent
from agentws.agent.loading import LoadError, Served, is_loading, load
from tests.agent.conftest import ROLES, outcome_of

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
        ("def agent(payload, context): ...", 1, "TypeError: The invoke handler must be"),
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
            2,
            "TypeError: The invoke handler must be",
        ),
    ],
)
def test_a_module_that_cannot_be_imported(
    write: Write, source: str, line: int, exception: str
) -> None:
    path = write("broken.py", source)
    text = refusal("broken:agent")
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
