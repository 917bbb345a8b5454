"""The broker's state on the readiness page: no URL, however wrong, makes it an error."""

from __future__ import annotations

import pytest

from api.broker import BrokerProbe


@pytest.mark.parametrize(
    "url", ["foo://host", "no URL", "amqp://[half", "amqp://127.0.0.1:1//", "filesystem:///proc/x"]
)
def test_a_broker_that_cannot_be_reached_only_degrades(url: str) -> None:
    assert BrokerProbe(url).state() == "degraded"


def test_without_a_broker_doorbells_are_off() -> None:
    assert BrokerProbe("").state() == "off"
