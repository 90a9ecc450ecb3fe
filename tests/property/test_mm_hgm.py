"""Long random histories of every call on the sizes of real machines, against the naive model."""

from __future__ import annotations

from migemu.mm import ARM64_4K, TINY, X86_64, Level
from tests.property.mm_machine import MmMachine, histories


class X86Machine(MmMachine):
    geometry = X86_64


class X86With2MHugepages(MmMachine):
    geometry = X86_64
    hstate = Level.PMD


class Arm64Machine(MmMachine):
    geometry = ARM64_4K


class Arm64With2MHugepages(MmMachine):
    geometry = ARM64_4K
    hstate = Level.PMD


class TinyMachine(MmMachine):
    """Where everything meets everything."""

    geometry = TINY


TestX86 = X86Machine.TestCase
TestX86With2MHugepages = X86With2MHugepages.TestCase
TestArm64 = Arm64Machine.TestCase
TestArm64With2MHugepages = Arm64With2MHugepages.TestCase
TestTiny = TinyMachine.TestCase
TestX86.settings = TestArm64.settings = histories(25)
TestX86With2MHugepages.settings = TestArm64With2MHugepages.settings = histories(50)
TestTiny.settings = histories(250)
