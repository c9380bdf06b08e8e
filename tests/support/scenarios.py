"""Reads what `tests/client/README.md` describes: the scenarios, their messages, their names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "client" / "scenarios.json"

Scenario = dict[str, Any]
Fields = Mapping[str, Any]


def load_scenarios() -> dict[str, Scenario]:
    """Return all scenarios by name; one that is played for each of some values is several."""
    written: list[Scenario] = json.loads(FILE.read_text())["scenarios"]
    scenarios = [scenario for each in written for scenario in _variants(each)]
    return {scenario["name"]: scenario for scenario in scenarios}


def _variants(scenario: Scenario) -> list[Scenario]:
    if "each" not in scenario:
        return [scenario]
    return [
        {**put_in(scenario, {"$each": value}), "name": f"{scenario['name']}-{index}"}
        for index, value in enumerate(scenario["each"])
    ]


def put_in(value: Any, names: Fields) -> Any:
    """Return `value` with each name, wherever it stands, replaced by what it stands for."""
    match value:
        case str():
            return names.get(value, value)
        case list():
            return [put_in(each, names) for each in value]
        case dict():
            return {key: put_in(each, names) for key, each in value.items()}
        case _:
            return value


def numbers_of(value: Any) -> list[Any]:
    """Return a list of payloads, which may be told by its first and last number."""
    if isinstance(value, dict):
        return list(range(value["from"], value["to"] + 1))
    return list(value)


def fits(expected: Any, found: Any, names: dict[str, Any]) -> bool:
    """Tell whether a value is as expected; names that have no value yet get theirs."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            fits(value, found.get(key), names) for key, value in expected.items()
        )
    if isinstance(expected, str) and expected == "*":
        return found is not None
    if isinstance(expected, str) and expected.startswith("$"):
        return found is not None and bool(names.setdefault(expected, found) == found)
    return bool(expected == found)


def fit_all(
    expected: list[Fields], found: list[Fields], names: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the names with which messages are as expected, in any order; None if they are not."""
    if not expected:
        return names
    for index, message in enumerate(found):
        tried = dict(names)
        if fits(expected[0], message, tried):
            rest = found[:index] + found[index + 1 :]
            if (named := fit_all(expected[1:], rest, tried)) is not None:
                return named
    return None
