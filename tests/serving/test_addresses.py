"""Whom an address stands for."""

from __future__ import annotations

import pytest

from serving.visitors.addresses import network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_stands_for_a_household(address, network):
    assert network_of(address) == network
