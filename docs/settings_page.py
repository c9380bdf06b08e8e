"""Writes the tables of docs/configuration.md from the settings: `python -m docs.settings_page`."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentws.config.options import OPTIONS, SECTIONS, Option

PAGE: Final = Path(__file__).with_name("configuration.md")

_BEGIN: Final = "<!-- from here on written by python -m docs.settings_page -->"
_END: Final = "<!-- up to here -->"


def with_tables(page: str) -> str:
    """Return the page with the tables that the settings make."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{tables()}\n{_END}{after}"


def tables() -> str:
    """Return a section with a table for each section of the configuration."""
    return "\n".join(line for section in SECTIONS for line in _section(section))


def _section(section: str) -> Iterator[str]:
    yield f"### {section}"
    yield ""
    yield inspect.getdoc(SECTIONS[section]) or ""
    yield ""
    yield "| key | default | what it is | also set by |"
    yield "|---|---|---|---|"
    for key, option in OPTIONS.items():
        if option.section == section:
            yield f"| `{key}` | {_default(option)} | {_what(option)} | {_also(option)} |"
    yield ""


def _default(option: Option) -> str:
    if option.name == "log_format":  # which depends on where it is asked for
        return "`json`, on a terminal `text`"
    text = option.printed(option.default)
    return "none" if text == "-" else f"`{text}`"


def _what(option: Option) -> str:
    """Return the description, in which what is a value stands as such."""
    description = option.field.description or ""
    text = re.sub(r"\w+://HOST|memory://|file:PATH", lambda match: f"`{match[0]}`", description)
    return text if option.has_effect else f"{text} *It has no effect yet.*"


def _also(option: Option) -> str:
    names = [name for name in (option.flag, option.platform) if name]
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
