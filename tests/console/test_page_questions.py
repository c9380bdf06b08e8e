"""What an agent asks is a form, which goes when it is answered, here or elsewhere."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from playwright.async_api import expect

from agentws import InvocationContext
from tests.conftest import Serve
from tests.support.agents import agent_of
from tests.support.browser import IN_A_BROWSER, OpenConsole

pytestmark = IN_A_BROWSER


class Approval(Struct):
    """Whether to go on."""

    approve: bool
    files: Annotated[int, Meta(ge=1)]


async def asks(payload: Any, context: InvocationContext) -> Any:
    """Ask for an approval, and tell of it."""
    approval = await context.ask({"text": "Delete 3 files?"}, type=Approval)
    return f"{approval.approve} {approval.files}"


async def test_a_form_from_the_schema_is_filled(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(asks)))
    await console.run("{}")
    question = console.page.get_by_role("form", name="Question: Delete 3 files?")
    await expect(console.page.get_by_role("article")).to_contain_text("input required")
    await question.get_by_role("button", name="Answer").click()
    await expect(question.get_by_role("alert")).to_have_text("files is missing")

    await question.get_by_label("approve").check()
    await question.get_by_label("files").fill("3")
    await question.get_by_role("button", name="Answer").click()
    await expect(question).to_be_hidden()
    await expect(console.page.get_by_label("Result")).to_have_text("True 3")
    await expect(console.page.get_by_role("article")).to_contain_text("Question answered here")


async def test_a_form_goes_when_the_question_is_answered_elsewhere(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    server = await serve_console(agent_of(asks))
    console = await open_console(server)
    await console.run("{}")
    question = console.page.get_by_role("form", name="Question: Delete 3 files?")
    await expect(question).to_be_visible()

    async with server.connect() as other:
        listed = await other.ask(action="list_invocations", status="input_required")
        (record,) = listed["invocations"]
        await other.send(
            action="send_input",
            invocation_id=record["invocation_id"],
            request_id=record["awaiting"][0]["request_id"],
            payload={"approve": False, "files": 1},
        )
        await expect(question).to_be_hidden()
    await expect(console.page.get_by_role("article")).to_contain_text("Question answered elsewhere")


class Node(Struct):
    """What holds others of its kind."""

    name: str
    children: list["Node"] = []


class Plan(Struct):
    """What to do."""

    kind: Literal["soft", "hard"]
    root: Node
    backup: Node | None = None


async def test_types_in_types_are_asked_for(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    async def asks_for_a_plan(payload: Any, context: InvocationContext) -> str:
        return repr(await context.ask("Which plan?", type=Plan))

    console = await open_console(await serve_console(agent_of(asks_for_a_plan)))
    await console.run("{}")
    question = console.page.get_by_role("form", name="Question: Which plan?")
    await question.get_by_label("kind").select_option("hard")
    root = question.get_by_role("group", name="root")
    await root.get_by_label("name").fill("top")
    await root.get_by_label("children").fill('[{"name": "leaf"}]')
    await question.get_by_role("button", name="Answer").click()
    await expect(console.page.get_by_label("Result")).to_have_text(
        "Plan(kind='hard', root=Node(name='top', children=[Node(name='leaf', children=[])]),"
        " backup=None)"
    )


async def test_a_question_without_schema_is_answered_in_json(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    async def asks_anything(payload: Any, context: InvocationContext) -> Any:
        return {"heard": await context.ask({"options": [1, 2]})}

    console = await open_console(await serve_console(agent_of(asks_anything)))
    await console.run("{}")
    question = console.page.get_by_role("form", name="Question: The agent asks")
    await expect(question).to_contain_text('"options"')
    await question.get_by_label("Answer as JSON").fill("{")
    await question.get_by_role("button", name="Answer").click()
    await expect(question.get_by_role("alert")).to_contain_text("Line 1, column 2")
    await question.get_by_label("Answer as JSON").fill("[2]")
    await question.get_by_role("button", name="Answer").click()
    await expect(console.page.get_by_label("Result")).to_contain_text('"heard"')
