"""CPUID and the time stamp counter: what the guest is told is true."""

import time
from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot, Guest

# (leaf, register of the answer EAX EBX ECX EDX, bit): what the set is called, and one instruction of it
ADVERTISED: Final = {
    "FPU": (1, 3, 0, "fninit; fld1; fstp st(0)"),
    "TSC": (1, 3, 4, "rdtsc"),
    "MSR": (1, 3, 5, "mov ecx, 0x277; rdmsr"),
    "CX8": (1, 3, 8, "lock cmpxchg8b [HEAP]"),
    "CMOV": (1, 3, 15, "cmovz eax, ebx"),
    "CLFLUSH": (1, 3, 19, "clflush [HEAP]"),
    "FXSR": (1, 3, 24, "fxsave [HEAP]"),
    "SSE": (1, 3, 25, "addps xmm0, xmm1"),
    "SSE2": (1, 3, 26, "paddq xmm0, xmm1"),
    "SSE3": (1, 2, 0, "haddps xmm0, xmm1"),
    "PCLMULQDQ": (1, 2, 1, "pclmulqdq xmm0, xmm1, 0"),
    "SSSE3": (1, 2, 9, "pshufb xmm0, xmm1"),
    "CX16": (1, 2, 13, "lock cmpxchg16b [HEAP]"),
    "SSE4.1": (1, 2, 19, "pmulld xmm0, xmm1"),
    "SSE4.2": (1, 2, 20, "crc32 eax, bl"),
    "MOVBE": (1, 2, 22, "movbe eax, [HEAP]"),
    "POPCNT": (1, 2, 23, "popcnt eax, ebx"),
    "AES": (1, 2, 25, "aesenc xmm0, xmm1"),
    "RDRAND": (1, 2, 30, "rdrand eax"),
    "FSGSBASE": (7, 1, 0, "mov rax, cr4; bts rax, 16; mov cr4, rax; rdfsbase rax; wrgsbase rax"),
    "BMI1": (7, 1, 3, "andn eax, ebx, ecx; tzcnt eax, ebx; blsr eax, ebx"),
    "BMI2": (7, 1, 8, "pext eax, ebx, ecx; mulx eax, ebx, ecx"),
    "INVPCID": (7, 1, 10, "mov eax, 2; invpcid rax, [HEAP]"),
    "RDSEED": (7, 1, 18, "rdseed eax"),
    "ADX": (7, 1, 19, "adcx eax, ebx; adox eax, ebx"),
    "SMAP": (7, 1, 20, "clac"),
    "CLFLUSHOPT": (7, 1, 23, "clflushopt [HEAP]"),
    "CLWB": (7, 1, 24, "clwb [HEAP]"),
    "SHA": (7, 1, 29, "sha256msg1 xmm0, xmm1"),
    "RDPID": (7, 2, 22, "rdpid rax"),
    "LAHF": (0x80000001, 2, 0, "sahf; lahf"),
    "LZCNT": (0x80000001, 2, 5, "lzcnt eax, ebx"),
    "SSE4A": (0x80000001, 2, 6, "extrq xmm0, 1, 1"),
    "PREFETCHW": (0x80000001, 2, 8, "prefetchw [HEAP]"),
    "SYSCALL": (0x80000001, 3, 11, ""),
    "RDTSCP": (0x80000001, 3, 27, "rdtscp"),
    "XSAVE": (1, 2, 26, "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xgetbv; xsetbv"),
    "PCID": (1, 2, 17, "mov rax, cr4; bts rax, 17; mov cr4, rax"),
    "SMEP": (7, 1, 7, "mov rax, cr4; bts rax, 20; mov cr4, rax"),
    "PGE": (1, 3, 13, "mov rax, cr4; bts rax, 7; mov cr4, rax"),
    "DE": (1, 3, 2, "mov rax, cr4; bts rax, 3; mov cr4, rax"),
    "UMIP": (7, 2, 2, "mov rax, cr4; bts rax, 11; mov cr4, rax"),
    "MTRR": (1, 3, 12, "mov ecx, 0xfe; rdmsr; mov ecx, 0x2ff; rdmsr; wrmsr"),
    "PAT": (1, 3, 16, "mov ecx, 0x277; rdmsr; wrmsr"),
}
CPUID_TABLE: Final = """
    start:
        mov esi, offset leaves
        mov edi, HEAP
    1:  lodsq
        cmp eax, -1
        je 2f
        mov rcx, rax
        shr rcx, 32
        cpuid
        stosd
        mov eax, ebx
        stosd
        mov eax, ecx
        stosd
        mov eax, edx
        stosd
        jmp 1b
    2:  END
    leaves:
"""


def _cpuid(guest: Guest, count: int) -> list[tuple[int, ...]]:
    return [tuple(guest.numbers(guests.HEAP + 16 * index, 4, 4)) for index in range(count)]


def _ask(boot: Boot, *leaves: int) -> list[tuple[int, ...]]:
    """Let a guest execute CPUID for each leaf (subleaf in the upper half)."""
    guest = boot(CPUID_TABLE + "".join(f".quad {leaf:#x}\n" for leaf in (*leaves, 0xFFFFFFFF)))
    guest.run()
    return _cpuid(guest, len(leaves))


def _text(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


def test_the_guest_knows_that_it_is_a_guest_on_a_64_bit_intel_or_amd(boot: Boot) -> None:
    zero, one, top, features = _ask(boot, 0, 1, 0x80000000, 0x80000001)
    assert _text(zero[1], zero[3], zero[2]) in (b"GenuineIntel", b"AuthenticAMD")
    assert zero[0] >= 7
    assert one[2] >> 31 & 1  # hypervisor
    assert top[0] >= 0x80000008
    assert features[3] >> 29 & 1 and features[3] >> 20 & 1 and features[3] >> 11 & 1  # LM, NX, SYSCALL


def test_the_brand_string_is_printable(boot: Boot) -> None:
    words = [word for answer in _ask(boot, 0x80000002, 0x80000003, 0x80000004) for word in answer]
    brand = _text(*words).rstrip(b"\0").decode("ascii")
    assert brand.isprintable() and brand.strip()


def test_the_physical_address_width_covers_all_memory(boot: Boot) -> None:
    ((eax, _, _, _),) = _ask(boot, 0x80000008)
    assert eax & 0xFF >= 36 and eax >> 8 & 0xFF >= 48


def test_cpuid_clears_the_upper_halves_of_its_registers(boot: Boot) -> None:
    guest = boot("""
    start:
        mov rax, 0xffffffff00000000
        mov rbx, rax
        mov rcx, rax
        mov rdx, rax
        cpuid
        shr rax, 32
        shr rbx, 32
        shr rcx, 32
        shr rdx, 32
        or eax, ebx
        or eax, ecx
        or eax, edx
        END eax
    """)
    assert guest.run() == 0


@pytest.mark.parametrize("name", ADVERTISED)
def test_an_advertised_instruction_set_executes(boot: Boot, name: str) -> None:
    leaf, register, bit, instruction = ADVERTISED[name]
    guest = boot(f"""
    start:
        CATCH wrong
        mov eax, {leaf}
        xor ecx, ecx
        cpuid
        bt {("eax", "ebx", "ecx", "edx")[register]}, {bit}
        jnc absent
        {instruction}
        END 1
    absent:
        END 2
    wrong:
        END 3
    """)
    result = guest.run()
    if result == 2:
        pytest.skip(f"the guest's CPUID does not offer {name}")
    assert result == 1, guest.traps()


def test_xsave_and_avx_are_offered_only_together(boot: Boot) -> None:
    """On soft neither is: the CPU "Hibana v1" saves its state with FXSAVE."""
    one, seven = _ask(boot, 1, 7)
    xsave, osxsave, avx, avx2 = one[2] >> 26 & 1, one[2] >> 27 & 1, one[2] >> 28 & 1, seven[1] >> 5 & 1
    assert not osxsave  # the guest has not set CR4.OSXSAVE
    assert xsave or not (avx or avx2)


def test_soft_offers_no_xsave(boot: Boot, request: pytest.FixtureRequest) -> None:
    guest = boot(CPUID_TABLE + ".quad 1, 0xd, 0xffffffff")
    if guest.engine.name != "soft":
        pytest.skip("only the soft engine has a CPU that is the same on every host")
    guest.run()
    one, state = _cpuid(guest, 2)
    assert one[2] >> 26 & 7 == 0
    assert state == (0, 0, 0, 0)


def test_the_apic_base_msr_names_the_bootstrap_processor(boot: Boot) -> None:
    guest = boot(
        """
    start:
        START_APS
        mov ecx, 0x1b
        rdmsr
        mov [got], eax
    1:  pause
        cmp dword ptr [got + 4], 0
        je 1b
        END
    ap_start:
        mov ecx, 0x1b
        rdmsr
        mov [got + 4], eax
        cli
    2:  hlt
        jmp 2b
    got: .long 0, 0
    """,
        vcpus=2,
    )
    guest.run()
    assert guest.numbers("got", 2, 4) == [0xFEE00900, 0xFEE00800]


def test_cache_instructions_do_nothing(boot: Boot) -> None:
    guest = boot(
        "start: mov dword ptr [HEAP], 5; wbinvd; invd; clflush [HEAP]; prefetcht0 [HEAP]; mov ecx, [HEAP]; END ecx"
    )
    assert guest.run() == 5


def test_every_cpu_finds_its_apic_id_in_cpuid(boot: Boot) -> None:
    guest = boot(
        """
    start:
        START_APS
        xor ebx, ebx
        call report
    1:  pause
        cmp dword ptr [done], 4
        jb 1b
        END
    ap_start:
        call report
        cli
    2:  hlt
        jmp 2b
    report:
        mov r15d, LAPIC
        mov edi, [r15 + 0x20]
        shr edi, 24
        shl edi, 4
        mov eax, 1
        cpuid
        shr ebx, 24
        mov [HEAP + rdi], ebx
        bt edx, 28                          # "more than one logical processor"
        setc [HEAP + rdi + 8]
        mov eax, 0xb
        xor ecx, ecx
        cpuid
        mov [HEAP + rdi + 4], edx
        mov [HEAP + rdi + 12], ebx
        lock inc dword ptr [done]
        ret
    done: .long 0
    """,
        vcpus=4,
    )
    guest.run()
    for cpu in range(4):
        initial, extended, many, threads = guest.numbers(guests.HEAP + 16 * cpu, 4, 4)
        assert (initial, many & 1) == (cpu, 1)
        assert threads == 0 or extended == cpu  # leaf 0xB may be absent


# --- time -------------------------------------------------------------------------------------------------------------


def test_the_time_stamp_counter_never_goes_back(boot: Boot) -> None:
    guest = boot("""
    start:
        mov ecx, 20000
        xor esi, esi
    1:  rdtsc
        shl rdx, 32
        or rax, rdx
        cmp rax, rsi
        jb wrong
        mov rsi, rax
        loop 1b
        END 1
    wrong:
        END 2
    """)
    assert guest.run() == 1


TURNS: Final = """
    .macro TURN mine, theirs                # neither CPU may be behind the latest value the other has seen
    1:  pause
        cmp dword ptr [turn], \\mine
        jne 1b
        lfence
        rdtsc
        shl rdx, 32
        or rax, rdx
        cmp rax, [latest]
        jb wrong
        mov [latest], rax
        mov dword ptr [turn], \\theirs
    .endm
    start:
        START_APS
        mov ecx, 300
    2:  TURN 0, 1
        dec ecx
        jnz 2b
        mov eax, 1
        STOP
        mov ecx, 300
    3:  TURN 0, 1
        dec ecx
        jnz 3b
        END 1
    wrong:
        END 2
    ap_start:
    4:  TURN 1, 0
        jmp 4b
    turn: .long 0
    latest: .quad 0
"""


def test_the_time_stamp_counters_of_two_cpus_agree(boot: Boot) -> None:
    """CPU 0's was loaded a little later than it was saved, as boot code does: that must not set it back."""
    guest = boot(TURNS, vcpus=2)
    assert guest.run() == 1


def test_the_time_stamp_counters_agree_in_a_new_vm(boot: Boot) -> None:
    guest = boot(TURNS, vcpus=2)
    assert guest.run() == 1
    guest.thaw()
    assert guest.run() == 1


def test_rdtscp_gives_the_number_the_kernel_left_for_this_cpu(boot: Boot) -> None:
    guest = boot("""
    start:
        mov eax, 0x80000001
        cpuid
        bt edx, 27
        jnc absent
        SET_MSR 0xc0000103, 0x1234
        rdtsc
        shl rdx, 32
        lea rsi, [rax + rdx]
        rdtscp
        shl rdx, 32
        add rax, rdx
        cmp rax, rsi
        jb absent
        END ecx
    absent:
        END 2
    """)
    result = guest.run()
    if result == 2:
        pytest.skip("the guest's CPUID does not offer RDTSCP")
    assert result == 0x1234


def test_the_time_stamp_counter_is_also_an_msr(boot: Boot) -> None:
    guest = boot("""
    .macro STAMP
        shl rdx, 32
        or rax, rdx
        stosq
    .endm
    start:
        mov edi, HEAP
        mov ecx, 0x10
        rdtsc
        STAMP
        rdmsr
        STAMP
        rdtsc
        STAMP
        xor eax, eax
        mov edx, 0x1000000
        wrmsr
        rdtsc
        STAMP
        END
    """)
    guest.run()
    first, middle, last, written = guest.numbers(guests.HEAP, 4)
    assert first <= middle <= last
    assert 0x1000000 << 32 <= written < 0x1000001 << 32


def test_time_passes_while_a_cpu_is_halted(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        ON 0x40, ignore
        APIC 0x3e0, 0xb
        APIC 0x320, 0x40
        rdtsc
        shl rdx, 32
        lea rsi, [rax + rdx]
        APIC 0x380, 2000000
        sti
        hlt
        cli
        rdtsc
        shl rdx, 32
        add rax, rdx
        sub rax, rsi
        mov [cycles], rax
        END
    ignore:
        EOI
        ret
    cycles: .quad 0
    """)
    guest.run()
    assert guest.number("cycles") > 500_000  # 2 ms at 1 GHz, or more where the timer is slower


def test_the_counter_runs_at_the_announced_frequency(boot: Boot) -> None:
    """Very loosely: within a factor of 1.5 over 0.2 s."""
    guest = boot(
        """
    start:
        call stamp
        ACT 0
        call stamp
        mov eax, 0
        cpuid
        END eax
    stamp:
        rdtsc
        mov [HEAP], eax
        mov [HEAP + 4], edx
        mov eax, 0x15
        xor ecx, ecx
        cpuid
        mov [HEAP + 8], eax
        mov [HEAP + 12], ebx
        mov [HEAP + 16], ecx
        ACT 1
        ret
    """
    )
    stamps: list[int] = []
    moments: list[float] = []

    def act(value: int) -> None:
        if value:
            stamps.append(guest.number(guests.HEAP))
            moments.append(time.monotonic())
        else:
            time.sleep(0.2)

    guest.bus.reactions[guests.PORT_ACT] = act
    highest = guest.run()
    denominator, numerator, crystal_hz = guest.numbers(guests.HEAP + 8, 3, 4)
    if highest < 0x15 or not denominator or not crystal_hz:
        pytest.skip("the guest's CPUID does not announce a frequency (leaf 0x15)")
    announced = crystal_hz * numerator / denominator
    measured = (stamps[1] - stamps[0]) / (moments[1] - moments[0])
    assert announced / 1.5 < measured < announced * 1.5
