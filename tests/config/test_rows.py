"""The configuration as it is shown: a row for each option."""

import pytest

from agentws.config.options import OPTIONS
from agentws.config.sources import load, rows
from tests.config.conftest import printed


def test_rows_hold_every_option_in_order() -> None:
    assert [key for key, _, _ in rows(load(environ={}))] == list(OPTIONS)


@pytest.mark.parametrize(
    ("variable", "text", "shown"),
    [
        ("AGENTWS_AGENT__NAME", "bot", "bot"),
        ("AGENTWS_AGENT__NAME", "Zoë", "Zoë"),
        ("AGENTWS_AGENT__NAME", "two\nlines\x1b[31m", r"'two\nlines\x1b[31m'"),
        ("AGENTWS_CONSOLE__ENABLED", "yes", "true"),
        ("AGENTWS_STORE__LEASE", "3", "3"),
        ("AGENTWS_STORE__LEASE", "0.5", "0.5"),
        ("AGENTWS_HTTP__CORS_ORIGINS", "https://a, https://b", "https://a,https://b"),
    ],
)
def test_a_row_is_one_line_as_a_variable_spells_it(variable: str, text: str, shown: str) -> None:
    key = next(key for key, option in OPTIONS.items() if option.variable == variable)
    assert printed({variable: text})[key] == shown


def test_none_is_shown_as_a_dash() -> None:
    shown = printed({})
    assert {shown[key] for key in ("handler.target", "auth.api_keys", "auth.jwks_url")} == {"-"}
