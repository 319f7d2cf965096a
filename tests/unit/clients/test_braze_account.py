from __future__ import annotations

import pytest

from airflow_provider_heapbraze.clients.braze import BrazeKeys, instance_host
from airflow_provider_heapbraze.clients.errors import ConfigurationError

HOSTS = {
    "US-01": "https://rest.iad-01.braze.com",
    "US-02": "https://rest.iad-02.braze.com",
    "US-03": "https://rest.iad-03.braze.com",
    "US-04": "https://rest.iad-04.braze.com",
    "US-05": "https://rest.iad-05.braze.com",
    "US-06": "https://rest.iad-06.braze.com",
    "US-07": "https://rest.iad-07.braze.com",
    "US-08": "https://rest.iad-08.braze.com",
    "US-10": "https://rest.us-10.braze.com",
    "EU-01": "https://rest.fra-01.braze.eu",
    "EU-02": "https://rest.fra-02.braze.eu",
    "AU-01": "https://rest.au-01.braze.com",
    "ID-01": "https://rest.id-01.braze.com",
    "JP-01": "https://rest.jp-01.braze.com",
    "KR-01": "https://rest.kr-01.braze.com",
}


@pytest.mark.parametrize(("instance", "host"), HOSTS.items())
def test_every_instance_has_its_host(instance, host):
    assert instance_host(instance) == host
    assert instance_host(f" {instance.lower()} ") == host


@pytest.mark.parametrize("instance", ["US-09", "US-00", "US-1", "EU-03", "AU-02", "iad-01", ""])
def test_an_unknown_instance_asks_for_the_host(instance):
    with pytest.raises(ConfigurationError, match="give the host itself"):
        instance_host(instance)


@pytest.mark.parametrize("name", ["rest_api_key", "partner_api_key", "data_import_key"])
@pytest.mark.parametrize("damage", [" ", "\n", "\r\nX-Injected: yes", "\u2026", "\x00"])
def test_a_damaged_key_is_found_and_not_shown(name, damage):
    with pytest.raises(ConfigurationError, match=name) as caught:
        BrazeKeys(**{name: f"damaged-key-123456{damage}"})
    assert "damaged-key-123456" not in repr(caught.value)


@pytest.mark.parametrize("partner_name", ["", "heap/../users", "heap?x=1", "he ap", "héap"])
def test_a_partner_name_stays_one_part_of_the_path(partner_name):
    with pytest.raises(ConfigurationError, match="partner_name"):
        BrazeKeys(partner_name=partner_name)
