"""Addresses as users write them: what they mean, what they are called in messages, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.address import TcpAddress, UnixAddress, parse_address
from migemu.errors import InputError


@pytest.mark.parametrize(
    ("text", "meant", "called"),
    [
        ("there:4444", TcpAddress("there", 4444), "there:4444"),
        ("127.0.0.1:0", TcpAddress("127.0.0.1", 0), "127.0.0.1:0"),
        (":4444", TcpAddress("127.0.0.1", 4444), "127.0.0.1:4444"),
        ("tcp:there:4444", TcpAddress("there", 4444), "there:4444"),
        ("tcp::4444", TcpAddress("127.0.0.1", 4444), "127.0.0.1:4444"),
        ("tcp:[::1]:4444", TcpAddress("::1", 4444), "[::1]:4444"),
        ("[::]:65535", TcpAddress("::", 65535), "[::]:65535"),
        ("[fe80::1%eth0]:00080", TcpAddress("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        ("tcp:tcp:4444", TcpAddress("tcp", 4444), "tcp:4444"),
        ("unix:/run/a b:c,d.sock", UnixAddress("/run/a b:c,d.sock"), "unix:/run/a b:c,d.sock"),
        ("unix:migration.sock", UnixAddress("migration.sock"), "unix:migration.sock"),
        ("unix:unix:x", UnixAddress("unix:x"), "unix:unix:x"),
    ],
)
def test_an_address_is_what_it_means_and_is_called_as_it_is_written(
    text: str, meant: TcpAddress | UnixAddress, called: str
) -> None:
    assert parse_address(text) == meant
    assert str(meant) == called


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "give HOST:PORT"),
        ("4444", "give HOST:PORT"),
        ("there", "give HOST:PORT"),
        ("there:", "give HOST:PORT"),
        ("there:port", "give HOST:PORT"),
        ("there:65536", "give HOST:PORT"),
        ("there:-1", "give HOST:PORT"),
        ("there:+1", "give HOST:PORT"),
        ("there: 1", "give HOST:PORT"),
        ("there:1_0", "give HOST:PORT"),
        ("localhost:²", "give HOST:PORT"),  # str.isdigit takes it for one, int() does not
        ("localhost:٤", "give HOST:PORT"),  # int() takes it for a 4
        ("there:" + "9" * 5000, "give HOST:PORT"),  # more digits than int() reads
        ("a" * 5000 + ":1", "give HOST:PORT"),
        ("tcp:4444", "give HOST:PORT"),
        ("::1:4444", "put an IPv6 address in brackets"),
        ("fe80::1%eth0:4444", "put an IPv6 address in brackets"),
        ("[]:4444", "no IPv6 address"),
        ("[there]:4444", "no IPv6 address"),
        ("[127.0.0.1]:4444", "no IPv6 address"),
        ("[fe80::1%]:4444", "no IPv6 address"),
        ("[::1:4444", "put an IPv6 address in brackets"),
        ("there]:4444", "no name of a host"),
        ("two words:4444", "no name of a host"),
        ("new\nline:4444", "no name of a host"),
        ("unix:", "give unix:PATH"),
        ("unix:a\0b", "give unix:PATH"),
        ("unix:a\nb", "give unix:PATH"),
        ("unix:\ud800", "give unix:PATH"),
        ("unix:" + "é" * 3000, "at most 4095 bytes"),
    ],
)
def test_what_is_no_address_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        parse_address(text)
    line = str(error.value)
    assert "is not an address: " in line
    assert told in line
    assert line.isprintable()
    assert len(line) < 300


@given(st.text(max_size=30) | st.text(alphabet="tcp:unix[]0123456789%.", max_size=30))
def test_whatever_is_written_is_an_address_that_is_read_again_or_is_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except InputError:
        return
    again = parse_address(str(address) if isinstance(address, UnixAddress) else f"tcp:{address}")
    assert again == address
