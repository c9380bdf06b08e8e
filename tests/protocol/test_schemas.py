"""Named schemas: each keeps its name where it can, and what refers to it finds it."""

from typing import Any

import pytest

from agentws.protocol.schemas import (
    Components,
    changed_throughout,
    reference,
    standing_alone,
    with_references,
)

TEXT = {"title": "Part", "type": "string"}
NUMBER = {"title": "Part", "type": "number"}
WHOLE = {"type": "object", "properties": {"part": reference("Part")}}


def test_a_free_name_is_kept() -> None:
    components = Components()
    assert components.add({"Part": TEXT, "Whole": WHOLE}) == {"Part": "Part", "Whole": "Whole"}
    assert components.schemas == {"Part": TEXT, "Whole": WHOLE}


def test_what_comes_twice_is_one() -> None:
    components = Components()
    components.add({"Part": TEXT, "Whole": WHOLE})
    assert components.add({"Part": TEXT, "More": TEXT}) == {"Part": "Part", "More": "More"}
    assert set(components.schemas) == {"Part", "Whole", "More"}


def test_another_schema_gets_another_name_and_title() -> None:
    components = Components()
    components.add({"Part": TEXT})
    assert components.add({"Part": NUMBER}, "Agent") == {"Part": "AgentPart"}
    assert components.add({"Part": {"type": "null"}}, "Agent") == {"Part": "AgentPart2"}
    assert components.schemas["Part"] == TEXT
    assert components.schemas["AgentPart"] == {"title": "AgentPart", "type": "number"}


def test_what_refers_to_another_schema_is_another_one() -> None:
    components = Components()
    outer = {"items": reference("Whole")}
    components.add({"Part": TEXT, "Whole": WHOLE, "Outer": outer})
    names = components.add({"Part": NUMBER, "Whole": WHOLE, "Outer": outer}, "Agent")
    assert names == {"Part": "AgentPart", "Whole": "AgentWhole", "Outer": "AgentOuter"}
    assert components.schemas["Outer"] == outer
    assert components.schemas["AgentOuter"] == {"items": reference("AgentWhole")}


@pytest.mark.parametrize("name", ["PART", "par_t", "Pa-rt", "p.a.r.t"])
def test_names_that_generators_take_for_one_are_told_apart(name: str) -> None:
    components = Components(reserved=["Part"])
    assert components.add({name: NUMBER}, "Agent") == {name: f"Agent{name}"}


def test_references_are_led_wherever_schemas_are_and_nowhere_else() -> None:
    inner, moved = reference("Part"), reference("Moved")

    def schema(part: Any) -> Any:
        return {
            "properties": {"$ref": part, "default": part, "enum": {"items": part}},
            "prefixItems": [part, True],
            "anyOf": [{"not": part}],
            "additionalProperties": part,
            "$defs": {"const": part},
            "discriminator": {"propertyName": "kind", "mapping": {"a": part["$ref"]}},
            "default": inner,
            "enum": [inner],
            "examples": [inner],
        }

    assert with_references(schema(inner), {"Part": "Moved"}) == schema(moved)


def test_a_schema_that_stands_alone_has_all_in_itself() -> None:
    alone = standing_alone(reference("Whole"), {"Part": TEXT, "Whole": WHOLE})
    assert alone == {
        "$ref": "#/$defs/Whole",
        "$defs": {
            "Part": TEXT,
            "Whole": {"type": "object", "properties": {"part": {"$ref": "#/$defs/Part"}}},
        },
    }
    assert standing_alone(TEXT, {}) == TEXT


def test_a_change_leaves_what_it_was_made_from() -> None:
    def retitled(part: Any) -> Any:
        return {**part, "title": "changed"}

    schema = {"properties": {"a": {"items": {}}, "b": True}}
    changed = changed_throughout(schema, retitled)
    assert changed["properties"]["a"]["items"] == {"title": "changed"}
    assert changed["properties"]["b"] is True
    assert schema == {"properties": {"a": {"items": {}}, "b": True}}
