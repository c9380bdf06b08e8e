"""A reader of `/metrics`, by Prometheus's own parsers."""

from collections.abc import Iterator, Mapping

import aiohttp
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families
from prometheus_client.samples import Sample

OPEN_METRICS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""What a Prometheus server accepts."""


class Scrape:
    """All samples of one moment."""

    def __init__(self, text: str, *, open_metrics: bool) -> None:
        parse = open_metrics_families if open_metrics else text_families
        self.text = text
        self.samples: list[Sample] = [it for family in parse(text) for it in family.samples]

    @property
    def names(self) -> set[str]:
        """The names of all of them."""
        return {sample.name for sample in self.samples}

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of a name that have these labels; 0 where there is none."""
        return sum(value for found, value in self.of(name) if labels.items() <= found.items())

    def by(self, label: str, name: str) -> dict[str, float]:
        """Return the values of a name, by a label."""
        return {found[label]: value for found, value in self.of(name)}

    def of(self, name: str) -> Iterator[tuple[Mapping[str, str], float]]:
        """Yield labels and value of each sample of a name."""
        return ((it.labels, it.value) for it in self.samples if it.name == name)


async def scrape(port: int, accept: str = "*/*", **headers: str) -> Scrape:
    """Ask for metrics, and have them read as what they say they are."""
    url = f"http://127.0.0.1:{port}/metrics"
    session = aiohttp.ClientSession(headers={"Accept": accept, **headers})
    async with session, session.get(url) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.charset == "utf-8"
        is_open = answer.content_type == "application/openmetrics-text"
        assert is_open or answer.content_type == "text/plain"
        return Scrape(await answer.text(), open_metrics=is_open)
