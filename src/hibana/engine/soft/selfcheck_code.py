"""The machine code of the self-check's guest, and its labels.

Written by tools/assemble_thunks.py out of selfcheck.S; do not edit.
"""

from typing import Final

CODE: Final = bytes.fromhex(
    "0f0b8a042500000040ccb9810000c031c0ba080018000f30b9820000c0488d05"
    "3000000031d20f30b9840000c0b8000400000f30488d0d0900000041bb020000"
    "00480f078cc84889042520900000fdf90f050f0b9c5848890425289000004889"
    "0c25309000004c891c25389000008cc84889042540900000fb90faf431c94883"
    "0425489000000148ffc1803c25609000000074eaf448bab801000000c3000048"
    "89142500b00000be00a00000ffd689c348bab802000000c300004889142500b0"
    "0000ffd6f4be00a00000ffd6f4488304250090000001488304240248cf8f0425"
    "089000000f20d04889042510900000488d0513ffffff48870424488904255890"
    "000048cf488b0424488904251890000048cf48830425509000000148cf"
)

LABELS: Final = {
    "start": 0,
    "faulting": 2,
    "behind_fault": 9,
    "behind_breakpoint": 10,
    "user": 68,
    "behind_system_call": 82,
    "system_call": 84,
    "count": 124,
    "alias": 149,
    "dma": 197,
    "undefined_instruction": 205,
    "page_fault": 221,
    "breakpoint": 260,
    "interrupt": 274,
}
