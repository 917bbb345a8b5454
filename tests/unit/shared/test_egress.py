"""What is never asked: every way that is known to write an address that is not public."""

from __future__ import annotations

import ipaddress

import pytest

from shared.egress import may_connect, parse_allowed, parse_target
from shared.egress.addresses import is_public
from shared.errors import UrlNotAllowed
from tests.unit.shared.egress_urls import PUBLIC_URLS, REFUSED_URLS

NOBODY = parse_allowed("")


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_urls_that_are_never_asked_are_refused_as_they_are_written(url: str) -> None:
    with pytest.raises(UrlNotAllowed) as error:
        parse_target(url, NOBODY, param="webhook.url")
    assert error.value.code == "url_not_allowed"
    assert error.value.param == "webhook.url"


def test_the_list_is_long_and_has_no_repeats() -> None:
    assert len(set(REFUSED_URLS)) == len(REFUSED_URLS) >= 60


@pytest.mark.parametrize("url", PUBLIC_URLS)
def test_public_urls_pass(url: str) -> None:
    target = parse_target(url, NOBODY)
    assert target.scheme == "https"
    assert target.path.startswith("/")
    assert not target.allowed


def test_a_url_is_read_into_its_parts() -> None:
    target = parse_target("HTTPS://Hooks.Example.COM:8443/a/b?c=d&e=%20", NOBODY)
    assert (target.host, target.port) == ("hooks.example.com", 8443)
    assert target.path == "/a/b?c=d&e=%20"
    assert target.authority == "hooks.example.com:8443"
    assert target.origin == "https://hooks.example.com:8443"
    bare = parse_target("https://hooks.example.com?x=1", NOBODY)
    assert (bare.path, bare.authority) == ("/?x=1", "hooks.example.com")
    six = parse_target("https://[2606:4700::1111]/", NOBODY)
    assert (six.host, six.authority) == ("2606:4700::1111", "[2606:4700::1111]")


def test_hosts_that_an_operator_names_may_be_private_and_plain() -> None:
    allowed = parse_allowed("crm.internal, 10.0.0.5:8080,[fd12::5]:9000")
    assert parse_target("http://crm.internal/x", allowed).allowed
    assert parse_target("https://CRM.internal/x", allowed).port == 443
    assert parse_target("http://10.0.0.5:8080/", allowed).allowed
    assert parse_target("http://[fd12::5]:9000/", allowed).host == "fd12::5"
    for other in ("http://crm.internal:6379/", "http://10.0.0.5/", "http://a.crm.internal/"):
        with pytest.raises(UrlNotAllowed):
            parse_target(other, allowed)


@pytest.mark.parametrize("text", ["http://a", "a/b", "a b", "ä", "a:0", "user@a", "a:99999999"])
def test_what_is_no_host_is_named_to_the_operator(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        parse_allowed(text)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1",  # noqa: S104
        "127.255.255.254", "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255",
        "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
        "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1",
        "255.255.255.255", "100.100.100.200",
        "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:7f00:1",
        "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:20::1", "2001:db8::1",
        "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254",
        "fe80::1", "fec0::1", "ff02::1", "4000::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_public_internet(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not may_connect(address, allowed=False)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::8a"]
)
def test_public_addresses(address: str) -> None:
    assert may_connect(address, allowed=False)
    assert may_connect(address, allowed=True)


def test_an_operators_list_opens_private_addresses_and_no_others() -> None:
    for private in ("127.0.0.1", "10.0.0.5", "192.168.1.1", "fd12::5", "::1", "100.64.1.1"):
        assert may_connect(private, allowed=True)
    for never in (
        "0.0.0.0", "169.254.169.254", "fd00:ec2::254", "168.63.129.16", "224.0.0.1", "::",  # noqa: S104
        "fe80::1", "fe80::1%eth0", "::ffff:127.0.0.1", "64:ff9b::a00:5", "2002:a00:5::", "nonsense",
    ):  # fmt: skip
        assert not may_connect(never, allowed=True), never
