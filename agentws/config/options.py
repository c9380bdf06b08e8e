"""The options by the names that they go by: in files, in variables, as flags."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast, get_origin

from pydantic.fields import FieldInfo

from agentws.config.settings import Section, Settings


@dataclass(frozen=True)
class Option:
    """One declared setting and the names it goes by."""

    section: str
    name: str
    field: FieldInfo
    flag: str
    platform: str
    redact: Callable[[Any], str] | None
    has_effect: bool
    """Whether what it sets is built; who sets it otherwise is warned."""

    @property
    def default(self) -> Any:
        """The value where nobody sets another."""
        return self.field.get_default(call_default_factory=True, validated_data={})

    @property
    def variable(self) -> str:
        """The environment variable, such as `AGENTWS_SERVER__PORT`."""
        return f"AGENTWS_{self.section}__{self.name}".upper()

    def parsed(self, text: str) -> object:
        """The value of a variable, split at its commas if this option is a list."""
        if get_origin(self.field.annotation) is not tuple:
            return text
        items = tuple(item.strip() for item in text.split(",") if item.strip())
        # Commas alone are no list: what looks as if it were set, and says nothing, is a mistake.
        return items or (("",) if text.strip() else ())

    def printed(self, value: object) -> str:
        """A value as one line without secrets, spelt as in a variable; `-` for none."""
        text = self.redact(value) if self.redact else _spelt(value)
        return (text if text.isprintable() else ascii(text)) or "-"


def _spelt(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return str(value).removesuffix(".0")
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


SECTIONS: Final[Mapping[str, type[Section]]] = MappingProxyType(
    {name: cast(type[Section], field.annotation) for name, field in Settings.model_fields.items()}
)

OPTIONS: Final[Mapping[str, Option]] = MappingProxyType(
    {
        f"{section}.{name}": Option(section, name, field, **cast(Any, field.json_schema_extra))
        for section, model in SECTIONS.items()
        for name, field in model.model_fields.items()
    }
)
