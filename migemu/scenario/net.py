"""The settings of a node's real connections: [net], how they are used; [limits], what a peer may make this side hold;
[security], who may be a peer.

Rules as in `migemu.scenario.scenario`, which is where these sections are reached.
"""

from __future__ import annotations

import attrs

from migemu.scenario import fields


@attrs.frozen
class NetSettings:
    """[net] - the real connection under the emulated link."""

    connect_timeout: int = fields.time("10s", "how long the source tries to reach the destination", least="1ms")
    listen_timeout: int = fields.time("0", "how long the destination waits for a source; 0 is for ever")
    hello_timeout: int = fields.time(
        "5s", "how long a peer that connected may take to prove who it is and to say what it wants", least="1ms"
    )
    idle_timeout: int = fields.time(
        "10s", "how long a peer may stay silent in a migration before it counts as lost", least="10ms"
    )
    answer_timeout: int = fields.time(
        "30s", "how long a peer that is there may take for an answer, besides the time that its memory takes",
        least="10ms",
    )  # fmt: skip
    rate_min: int = fields.rate(
        "2kbit", "a peer that brings less for idle_timeout, in the middle of a message, counts as lost; 0 never"
    )
    write: int = fields.size("256K", "most bytes handed to the socket at once", least="4K")
    write_hot: int = fields.size("32K", "the same within 10 ms of an urgent message", least="4K")
    read: int = fields.size(
        "2M", "bytes received from one connection before the others get a turn; several migrations share it", least="4K"
    )
    read_hot: int = fields.size("64K", "the same within 10 ms of an urgent message", least="4K")
    high_water: int = fields.size("256K", "bytes queued at a socket before the background stream waits", least="4K")
    send_buffer: int = fields.size("0", "SO_SNDBUF; 0 leaves it to the system")
    receive_buffer: int = fields.size("0", "SO_RCVBUF; 0 leaves it to the system")
    busy_poll: int = fields.time(
        "200us",
        "how long a node goes on polling after an urgent message before it sleeps (as net.core.busy_poll); 0 never",
    )
    congestion: str = fields.text(
        "auto",
        "TCP congestion control; auto is cubic between addresses of one machine, else the system's",
        "name that the kernel knows (sysctl net.ipv4.tcp_available_congestion_control), or auto",
    )


@attrs.frozen
class LimitsSettings:
    """[limits] - what a peer may make this side hold."""

    frame_bytes_max: int = fields.size("64M", "largest payload of one frame", least="2M", most="1G")
    memory_max: int = fields.size("1T", "most memory that the destination accepts, over all migrations", least="64K")
    device_state_max: int = fields.size("1G", "largest device state blob that the destination accepts")
    migrations_max: int = fields.number(
        int,
        8,
        "migrations that the destination serves at once, where it serves several (--migrations)",
        1,
        256,
        "migrations",
    )
    connections_max: int = fields.number(
        int, 64, "connections that the destination holds at once; a migration has two, or more in recovery", 2, 4096,
        "connections",
    )  # fmt: skip
    queue_frames_max: int = fields.number(
        int, 100_000, "messages that wait for a peer to take them in before it counts as lost", 1000, 2**32, "messages"
    )
    written_words_max: int = fields.number(
        int, 4_000_000, "8-byte words that a guest may write in one run", 1, 2**32, "words of 8 bytes"
    )


@attrs.frozen
class SecuritySettings:
    """[security] - who may be a peer. Files in PEM format; a key of `psk_file` may be in MIGEMU_PSK instead."""

    certificate: str = fields.text(
        "", "this node's certificate and chain: every connection is TLS 1.3, both sides show one", "path of a file"
    )
    key: str = fields.text("", "its private key, without a passphrase; default: in the same file", "path of a file")
    authority: str = fields.text("", "certificates of those who may have signed the other side's", "path of a file")
    peer_name: str = fields.text(
        "", "name that the other side's certificate must carry (DNS name or address); default at the source: the host "
        "it connects to; at the destination: any that the authority signed",
        "DNS name or address",
    )  # fmt: skip
    psk_file: str = fields.text(
        "", "file with a key that both sides have: at least 32 random bytes, for its owner only", "path of a file"
    )
