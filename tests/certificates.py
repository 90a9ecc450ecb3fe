"""Certificates and keys for tests, made anew in each run: a small world of authorities and of those they vouch for."""

from __future__ import annotations

import atexit
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

import trustme

from migemu.scenario.net import SecuritySettings
from migemu.transport.security.credentials import Credentials, load

_FOLDER: Final = tempfile.TemporaryDirectory(prefix="migemu-certificates-")
atexit.register(_FOLDER.cleanup)
KEY: Final = "1f0e5a" * 10 + "2b3c"
NODE: Final = "127.0.0.1"


@cache
def authority(name: str = "ours") -> trustme.CA:
    """An authority; another name is another one."""
    made = trustme.CA(organization_name=name)
    made.cert_pem.write_to_path(str(Path(_FOLDER.name) / f"{name}.pem"))
    return made


def authority_file(name: str = "ours") -> str:
    """Its certificate."""
    authority(name)
    return str(Path(_FOLDER.name) / f"{name}.pem")


@cache
def certificate(name: str = NODE, of: str = "ours", *, expired: bool = False) -> tuple[str, str]:
    """The files of a node's certificate for `name`, and of its key."""
    until = datetime.now(UTC) - timedelta(days=1) if expired else None
    made = authority(of).issue_cert(name, not_after=until)
    stem = f"{Path(_FOLDER.name)}/{of}-{name}{'-expired' if expired else ''}"
    made.cert_chain_pems[0].write_to_path(f"{stem}.pem")
    made.private_key_pem.write_to_path(f"{stem}.key")
    Path(f"{stem}.key").chmod(0o600)
    return f"{stem}.pem", f"{stem}.key"


def security(name: str = NODE, of: str = "ours", trusts: str = "ours", *, expired: bool = False) -> dict[str, str]:
    """[security] of a node with TLS."""
    chain, key = certificate(name, of, expired=expired)
    return {"certificate": chain, "key": key, "authority": authority_file(trusts)}


def credentials(psk: str = "", **settings: str) -> Credentials:
    """What a node of these settings has."""
    return load(SecuritySettings(**settings), {"MIGEMU_PSK": psk} if psk else {})[0]


TLS: Final = credentials(**security())
PSK: Final = credentials(KEY)
