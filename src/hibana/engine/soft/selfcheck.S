# The guest of the start-up self-check: 64-bit code that meets everything the engine had to put back by itself.
#
# Where things are (identity-mapped, one page each): see selfcheck.py, which also reads the results. Each part ends in
# HLT with interrupts off; the host looks and goes on behind it. tools/assemble_thunks.py makes selfcheck_code.py of it.

        .intel_syntax noprefix
        .code64
        .text

        .equ    RESULTS, 0x9000
        .equ    TARGET, 0xA000                  # executable
        .equ    ALIAS, 0xB000                   # the same page, writable
        .equ    UNMAPPED, 0x40000000

        .equ    IA32_STAR, 0xC0000081
        .equ    IA32_LSTAR, 0xC0000082
        .equ    IA32_FMASK, 0xC0000084
        .equ    SELECTORS, 0x00180008           # SYSRET 0x18 + 8 and + 16, SYSCALL 0x08 and 0x10
        .equ    IF, 1 << 9

# Exceptions, a trip to user mode and back, an interrupt.
start:
        ud2
faulting:
        mov     al, [UNMAPPED]
behind_fault:
        int3
behind_breakpoint:
        mov     ecx, IA32_STAR
        xor     eax, eax
        mov     edx, SELECTORS
        wrmsr
        mov     ecx, IA32_LSTAR
        lea     rax, [rip + system_call]
        xor     edx, edx
        wrmsr
        mov     ecx, IA32_FMASK
        mov     eax, 1 << 10                    # DF
        wrmsr
        lea     rcx, [rip + user]
        mov     r11d, 2
        sysretq
user:
        mov     eax, cs
        mov     [RESULTS + 0x20], rax
        std
        stc
        syscall
behind_system_call:
        ud2
system_call:
        pushfq
        pop     rax
        mov     [RESULTS + 0x28], rax
        mov     [RESULTS + 0x30], rcx
        mov     [RESULTS + 0x38], r11
        mov     eax, cs
        mov     [RESULTS + 0x40], rax
        sti
        nop                                     # in the shadow of STI
        cli                                     # the interrupt comes before this
        hlt

# Count in memory and in a register, however often the host breaks in, until the host says stop.
count:
        xor     ecx, ecx
1:      add     qword ptr [RESULTS + 0x48], 1
        inc     rcx
        cmp     byte ptr [RESULTS + 0x60], 0
        je      1b
        hlt

# Code changed through another mapping of its page.
alias:
        mov     rdx, 0x00C300000001B8           # mov eax, 1; ret
        mov     [ALIAS], rdx
        mov     esi, TARGET
        call    rsi
        mov     ebx, eax
        mov     rdx, 0x00C300000002B8           # mov eax, 2; ret
        mov     [ALIAS], rdx
        call    rsi
        hlt

# Code changed by the host between two runs.
dma:
        mov     esi, TARGET
        call    rsi
        hlt

undefined_instruction:
        add     qword ptr [RESULTS], 1
        add     qword ptr [rsp], 2
        iretq
page_fault:
        pop     qword ptr [RESULTS + 0x08]
        mov     rax, cr2
        mov     [RESULTS + 0x10], rax
        lea     rax, [rip + behind_fault]
        xchg    rax, [rsp]
        mov     [RESULTS + 0x58], rax
        iretq
breakpoint:
        mov     rax, [rsp]
        mov     [RESULTS + 0x18], rax
        iretq
interrupt:
        add     qword ptr [RESULTS + 0x50], 1
        iretq
