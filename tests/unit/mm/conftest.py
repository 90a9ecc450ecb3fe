"""Fixtures: a guest, and a way to make another one."""

from __future__ import annotations

import pytest

from tests.unit.mm.guest import Guest, MakeGuest


@pytest.fixture
def make_guest() -> MakeGuest:
    return Guest


@pytest.fixture
def guest() -> Guest:
    return Guest()
