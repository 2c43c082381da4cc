"""The machine code of fast/global_pages.S, and its labels.

Written by tools/assemble_thunks.py; do not edit.
"""

from typing import Final

from hibana.engine.soft.assembled import Assembled

THUNKS: Final = Assembled(
    code=bytes.fromhex(
        "803df90f0000000f85dc0000004885f6784f4183f901743d488b05e90f000048"
        "3b05f20f00000f83b60000004989f24981e200f0ffff4c8b1dd30f00004d8914"
        "c348ffc0488905bd0f000041f6c0040f8494000000c605a50f000001e9880000"
        "00514c8b97108c0000b92700000048b800f0ffffffff0f004921c24c3b15a60f"
        "000073094c0315950f0000eb1d48b800000000010000004929c24c3b15970f00"
        "00733e4c0315860f00004889f048d3e825ff0100004d8b14c241f7c201000000"
        "741f83f90c740e41f7c280000000750583e909eb9941f7c200010000740359eb"
        "0859c605170f000001ff25690f0000803d0a0f0000000f855c010000f787a801"
        "0000000000800f844c0100008b87c801000025800002003d800000000f853601"
        "00004889b7c0010000488b0dd80e00004885c90f84fc00000048c705c40e0000"
        "000000004c8b05c50e00004d8b4cc8f849c1e9064d89ca4c2357c04c0357c849"
        "8b02492342084923421048ffc0742849c702ffffffff49c74208ffffffff49c7"
        "4210ffffffff4883bfb0f7ffff00740748ff8fb0f7ffff4d89ca4c2357e04c03"
        "57e8498b02492342084923421048ffc0742849c702ffffffff49c74208ffffff"
        "ff49c74210ffffffff4883bf20fdffff00740748ff8f20fdffff48ffc90f8568"
        "ffffffb9c001000048c7840fc0f7ffffffffffff48c7840fc8f7ffffffffffff"
        "48c7840fd0f7ffffffffffff48c7840f30fdffffffffffff48c7840f38fdffff"
        "ffffffff48c7840f40fdffffffffffff83e94079b3803dc50d0000007419c605"
        "bc0d0000004881ef508a0000be02000000ff25f90d0000c3c605a10d000000c6"
        "059b0d00000048c705970d000000000000ff25c90d0000c605820d000000c605"
        "7c0d00000048c705780d000000000000ff25b20d0000"
    ),
    entries={
        "tlb_set_page_with_attrs": 0,
        "cpu_x86_update_cr3": 239,
        "tlb_flush": 631,
    },
    cells={
        "everything": 0,
        "user": 1,
        "listed": 8,
        "list": 16,
        "list_length": 24,
        "low_ram": 32,
        "low_ram_size": 40,
        "high_ram": 48,
        "high_ram_size": 56,
        "lib_cpu_x86_update_cr3": 64,
        "lib_tlb_flush": 72,
        "lib_tlb_flush_by_mmuidx": 80,
        "lib_tlb_set_page_with_attrs": 88,
    },
    cells_size=96,
    cells_at=4096,
)
