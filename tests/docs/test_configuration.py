"""The page of the settings is the one that the settings make."""

from agentws.config.options import OPTIONS
from docs.settings_page import PAGE, with_tables


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page), "python -m docs.settings_page writes it anew"


def test_it_names_every_key_with_its_default_and_what_else_sets_it() -> None:
    page = PAGE.read_text()
    for key, option in OPTIONS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        assert option.flag in row
        assert option.platform in row
