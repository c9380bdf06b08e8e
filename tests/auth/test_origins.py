"""From where browsers may call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentws.auth.origins import Origins

HOST = "app.example"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://app.example", "app.example"),
        ("http://app.example", "app.example"),
        ("https://APP.example", "app.EXAMPLE"),
        ("https://app.example:443", "app.example"),
        ("https://app.example", "app.example:443"),
        ("http://app.example", "app.example:80"),
        ("https://app.example", "app.example:80"),  # TLS ended at the gateway
        ("http://localhost:8088", "localhost:8088"),
        ("http://[::1]:8088", "[::1]:8088"),
        ("http://127.0.0.1:8088", "127.0.0.1:8088"),
    ],
)
def test_the_servers_own_origin_is_let_in(origin: str, host: str) -> None:
    assert Origins(()).admit(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "app.example"),
        ("", "app.example"),
        ("", ""),
        ("null", ""),
        ("app.example", "app.example"),
        ("https://other.example", "app.example"),
        ("https://app.example.evil", "app.example"),
        ("https://sub.app.example", "app.example"),
        ("https://app.example:8443", "app.example"),
        ("https://app.example", "app.example:8443"),
        ("http://localhost:3000", "localhost:8088"),
        ("http://127.0.0.1:8088", "localhost:8088"),
        ("https://app.example:99999", "app.example"),
        ("https://app.example:x", "app.example"),
        ("http://[::1", "[::1"),
        ("https://", ""),
    ],
)
def test_a_foreign_origin_is_not(origin: str, host: str) -> None:
    assert not Origins(()).admit(origin, host)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("https://App.Example", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("https://*.example.com", "https://a.example.com"),
        ("https://*.example.com", "https://a.b-c.example.com"),
        ("https://*.example.com:8443", "https://a.example.com:8443"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("*", "https://anywhere.example"),
        ("*", "null"),
    ],
)
def test_an_allowed_origin_is_let_in(allowed: str, origin: str) -> None:
    assert Origins(["https://first.example", allowed]).admit(origin, "server.example")


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://app.example", "http://app.example"),
        ("https://app.example", "https://app.example:8443"),
        ("https://app.example", "https://app.example.evil"),
        ("https://app.example", "https://appxexample"),
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://.example.com"),
        ("https://*.example.com", "http://a.example.com"),
        ("https://*.example.com", "https://a.example.com.evil"),
        ("https://*.example.com", "https://evil/.example.com"),
        ("https://*.example.com", "https://evil?.example.com"),
        ("https://*.example.com", "https://evil:80.example.com"),
        ("https://*.example.com", "https://a@.example.com"),
        ("https://*.example.com", "https://evilexample.com"),
        ("https://*.example.com", "https://a.example.com:8443"),
        ("https://*.example.com", "https://a.example.com\n"),
        ("*", "https://a.example\n"),
        ("*", "https://\udcff.example"),
    ],
)
def test_what_only_looks_like_it_is_not(allowed: str, origin: str) -> None:
    assert not Origins([allowed]).admit(origin, "server.example")


@given(st.text(), st.text())
def test_whatever_is_sent_gets_an_answer(origin: str, host: str) -> None:
    Origins(["https://*.example.com"]).admit(origin, host)
