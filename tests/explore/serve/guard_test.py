"""A server answers only to its own names and addresses."""

import socket

import pytest

from jumprelu.explore.serve import guard


@pytest.mark.parametrize(
    ('host', 'value'),
    [
        ('127.0.0.1', '127.0.0.1:8080'),
        ('127.0.0.1', 'localhost:8080'),
        ('localhost', '127.0.0.1:8080'),
        ('::1', '[::1]:8080'),
        ('10.1.2.3', '10.1.2.3:8080'),
        ('gpu7', 'GPU7:8080'),
        ('0.0.0.0', '10.1.2.3:8080'),
        ('0.0.0.0', 'localhost:8080'),
        ('::', '[fe80::1]:8080'),
        ('0.0.0.0', f'{socket.gethostname()}:8080'),
    ],
)
def test_own_names_are_allowed(host, value):
  assert guard.hosts(host, 8080).allow(value)


@pytest.mark.parametrize(
    ('host', 'value'),
    [
        ('127.0.0.1', '127.0.0.1:8081'),
        ('127.0.0.1', '127.0.0.1'),
        ('127.0.0.1', '127.0.0.1:8080.evil.example'),
        ('127.0.0.1', 'evil.example:8080'),
        ('127.0.0.1', '127.0.0.1@evil.example:8080'),
        ('127.0.0.1', 'localhost:8080/'),
        ('127.0.0.1', ' localhost:8080'),
        ('127.0.0.1', 'localhost:08080x'),
        ('127.0.0.1', '10.1.2.3:8080'),
        ('10.1.2.3', '127.0.0.1:8080'),
        ('0.0.0.0', 'evil.example:8080'),
        ('0.0.0.0', '[evil]:8080'),
        ('127.0.0.1', ''),
    ],
)
def test_other_names_are_not(host, value):
  assert not guard.hosts(host, 8080).allow(value)


def test_port_80_may_be_left_out():
  assert guard.hosts('127.0.0.1', 80).allow('localhost')


@pytest.mark.parametrize('host', ['127.0.0.1', '127.9.9.9', '::1', 'localhost'])
def test_loopback_addresses_are_known(host):
  assert guard.is_loopback(host)


@pytest.mark.parametrize('host', ['0.0.0.0', '::', '10.1.2.3', 'gpu7'])
def test_addresses_for_other_computers_are_known(host):
  assert not guard.is_loopback(host)
