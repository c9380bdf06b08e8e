"""Where a connection string leads."""

import pytest

from agentws.telemetry.reaching import ingestion_endpoint


@pytest.mark.parametrize(
    ("connection_string", "url"),
    [
        ("InstrumentationKey=k", "https://dc.services.visualstudio.com"),
        ("InstrumentationKey=k;IngestionEndpoint=https://in.example/", "https://in.example"),
        ("instrumentationkey=k; ingestionendpoint = https://in.example", "https://in.example"),
        ("InstrumentationKey=k;EndpointSuffix=ai.example", "https://dc.ai.example"),
        ("InstrumentationKey=k;EndpointSuffix=ai.example;Location=eu", "https://eu.dc.ai.example"),
    ],
)
def test_the_ingestion_endpoint_of_a_connection_string(connection_string: str, url: str) -> None:
    assert ingestion_endpoint(connection_string) == url
