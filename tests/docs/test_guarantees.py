"""The picture of an invocation's life shows all its ends."""

import re
from typing import get_args

from agentws.protocol.records import Status
from tests.docs.conftest import page


def test_the_picture_shows_the_life_of_an_invocation() -> None:
    (picture,) = re.findall(r"```mermaid\n(.*?)```", page("guarantees.md"), re.S)
    assert picture.startswith("stateDiagram-v2")
    assert set(re.findall(r"running --> (\w+)", picture)) == set(get_args(Status)) - {"running"}
