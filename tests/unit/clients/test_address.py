from __future__ import annotations

import pytest

from airflow_provider_heapbraze.clients.address import normalise_base_url
from airflow_provider_heapbraze.clients.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://rest.iad-01.braze.com", "https://rest.iad-01.braze.com"),
        ("https://rest.iad-01.braze.com/", "https://rest.iad-01.braze.com"),
        ("  HTTPS://Rest.IAD-01.braze.com:443/ ", "https://rest.iad-01.braze.com"),
        ("rest.fra-01.braze.eu", "https://rest.fra-01.braze.eu"),
        ("rest.example.com:8443", "https://rest.example.com:8443"),
        ("https://proxy.example.com/braze/", "https://proxy.example.com/braze"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://127.8.9.1:8000", "http://127.8.9.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_has_one_form(given, normal):
    assert normalise_base_url(given) == normal
    assert normalise_base_url(normal) == normal


@pytest.mark.parametrize(
    "address",
    [
        "http://rest.iad-01.braze.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://[2001:db8::1]",
        "http://0.0.0.0:8000",
        "ftp://rest.iad-01.braze.com",
        "file:///etc/passwd",
        "https://",
        "",
        "https://rest.iad-01.braze.com:port",
        "https://[::1",
        "https://rest iad-01.braze.com",
        "https://rest.iad-01.braze.com?x=1",
        "https://rest.iad-01.braze.com#x",
    ],
)
def test_other_addresses_are_refused(address):
    with pytest.raises(ConfigurationError):
        normalise_base_url(address)


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
@pytest.mark.parametrize("host", ["rest.iad-01.braze.com", "127.0.0.1:port", "[::1", "a\u2100b"])
def test_a_refused_address_does_not_show_its_password(scheme, host):
    with pytest.raises(ConfigurationError) as caught:
        normalise_base_url(f"{scheme}://name:address-password-1234@{host}/")
    assert "address-password-1234" not in repr(caught.value)
    assert caught.value.__context__ is None
