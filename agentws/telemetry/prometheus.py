"""What a Prometheus server reads: the instruments, the agent's own among them, and the process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

from agentws.telemetry.export_queue import as_exporter


class Scrapes:
    """Answers scrapes through OpenTelemetry's own exporter, in a thread of its own.

    The agent's callbacks are called there, which may take their time. One thread, because the
    exporter is for one scrape at a time.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(registry=registry)
        """What is to be given to a meter provider."""
        ProcessCollector(registry=registry)
        self._render = make_wsgi_app(registry, disable_compression=True)
        self._thread = ThreadPoolExecutor(1, "agentws-scrape")

    async def page(self, accept: str) -> tuple[bytes, str]:
        """Return all values of this moment, in the form that `accept` wishes, and its type."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._scrape, accept)

    def close(self) -> None:
        """Answer no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _scrape(self, accept: str) -> tuple[bytes, str]:
        headers: dict[str, str] = {}
        request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "HTTP_ACCEPT": accept}
        with as_exporter():
            parts = self._render(request, lambda _status, told: headers.update(told))
        return b"".join(parts), headers["Content-Type"]
