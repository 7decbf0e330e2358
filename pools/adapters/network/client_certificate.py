"""The certificate with which this project's clients go to brokers on a network: the setting `cert` of BROKER_TLS."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from snakepit.pools import conf
from snakepit.pools.adapters.network.certificate_file import CertificateFile, read_certificate

EXPIRES = "snakepit_client_certificate_expires_timestamp_seconds"
ISSUED = "snakepit_client_certificate_issued_timestamp_seconds"
NAMES = frozenset({EXPIRES, ISSUED})


def client_certificate() -> CertificateFile | None:
    """Read the file. None: the settings name none."""
    path = conf.current().broker_tls.get("cert", "")
    return read_certificate(path) if path else None


def metrics_text() -> str:
    """Begin and end as Prometheus text; empty: there is none, or it cannot be read.

    A web process adds it to the broker's metrics, because its clients use the file.
    """
    found = client_certificate()
    if found is None or found.trouble:
        return ""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CertificateDates(found))
    return generate_latest(registry).decode()


class CertificateDates(Collector):
    def __init__(self, found: CertificateFile) -> None:
        self._found = found

    def collect(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(EXPIRES, "End of BROKER_TLS's cert.", self._found.expires),
            GaugeMetricFamily(ISSUED, "Begin of that certificate.", self._found.issued),
        ]
