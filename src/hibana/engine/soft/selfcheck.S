# The guest of the start-up self-check: 64-bit code that meets everything the engine had to put back by itself.
#
# Where things are (identity-mapped, one page each): see selfcheck.py, which also reads the results. Each part ends in
# HLT with interrupts off; the host looks and goes on behind it. tools/assemble_thunks.py makes selfcheck_code.py of it.

        .intel_syntax noprefix
        .code64
        .text

        .equ    RESULTS, 0x9000
        .equ    PAIR, RESULTS + 0x80
        .equ    TARGET, 0xA000                  # executable, and so is the page behind it
        .equ    ALIAS, 0xC000                   # the same page, writable and not executable
        .equ    FRAMES, 0xD000                  # two pages whose first bytes are 1 and 2
        .equ    LOW_PAGE_TABLE, 0x4000
        .equ    HIGH_PAGE_TABLE, 0x5000
        .equ    LOW_WINDOWS, 0x100000           # pages that may be mapped at will, in the lower half
        .equ    HIGH_WINDOW, 0xFFFFFFFFFFE00000 # and in the upper one
        .equ    UNMAPPED, 0x40000000
        .equ    ROUNDS, 100

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

# Flags that outlive a loop which ends at once, and a comparison of pairs. RAX and RBX hold them; RFLAGS is clear before.
flags:
        push    2
        popfq
        jmp     1f
1:      mov     ecx, 1
        mov     esi, 0x3100                     # as flags, IOPL and TF
        mov     edi, 0x3300
        cmp     esi, edi
        loopne  2f
2:      pushfq
        pop     r8
        push    2
        popfq
        jmp     3f
3:      xor     eax, eax
        xor     edx, edx
        mov     [PAIR], rax
        mov     [PAIR + 8], rax
        cmp     esi, edi
        cmpxchg16b [PAIR]
        pushfq
        pop     rbx
        mov     rax, r8
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

# Code rewritten again and again: through its own address, through another one while the page holds other functions,
# and across the end of its page with only the second page written. RBX counts rounds, RBP wrong results.
rewrite:
        xor     ebp, ebp
        xor     ebx, ebx
        mov     byte ptr [TARGET], 0xB8         # three times mov eax, 0; ret
        mov     byte ptr [TARGET + 5], 0xC3
        mov     byte ptr [TARGET + 0x800], 0xB8
        mov     dword ptr [TARGET + 0x801], 0
        mov     byte ptr [TARGET + 0x805], 0xC3
        mov     dword ptr [TARGET + 0xFFD], 0x0000B8
        mov     word ptr [TARGET + 0x1001], 0xC300
1:      inc     ebx
        mov     [TARGET + 1], ebx
        mov     esi, TARGET
        call    rsi
        cmp     eax, ebx
        setne   al
        movzx   eax, al
        add     ebp, eax
        mov     edx, ebx                        # the first store lets the page's other function be
        not     edx
        mov     [ALIAS + 1], edx
        mov     [ALIAS + 0x801], ebx
        mov     esi, TARGET + 0x800
        call    rsi
        cmp     eax, ebx
        setne   al
        movzx   eax, al
        add     ebp, eax
        mov     [TARGET + 0x1000], bl           # bits 16-23
        mov     esi, TARGET + 0xFFD
        call    rsi
        shr     eax, 16
        cmp     eax, ebx
        setne   al
        movzx   eax, al
        add     ebp, eax
        cmp     ebx, ROUNDS
        jne     1b
        hlt

# Pages that change with a write of CR3: more of them than are remembered one by one, and one above that is not global.
# RBP counts what is wrong.
address_spaces:
        mov     rax, cr4
        or      eax, 1 << 7                     # PGE
        mov     cr4, rax
        xor     ebp, ebp
        xor     ebx, ebx
1:      mov     ecx, FRAMES | 3                 # map frame (round & 1) at all windows
        mov     eax, ebx
        and     eax, 1
        shl     eax, 12
        add     ecx, eax
        xor     edx, edx
2:      mov     [LOW_PAGE_TABLE + 8 * (LOW_WINDOWS >> 12) + 8 * rdx], rcx
        inc     edx
        cmp     edx, 80
        jne     2b
        mov     [HIGH_PAGE_TABLE], rcx
        mov     rax, cr3
        mov     cr3, rax
        mov     r8d, ebx
        and     r8d, 1
        inc     r8d                             # the first byte of that frame
        mov     edx, 80                         # all windows in two rounds, a few in the next two
        test    ebx, 2
        jz      3f
        mov     edx, 3
3:      mov     esi, edx
        shl     esi, 12
        movzx   eax, byte ptr [LOW_WINDOWS + rsi - 0x1000]
        cmp     eax, r8d
        setne   al
        movzx   eax, al
        add     ebp, eax
        dec     edx
        jnz     3b
        test    ebx, 4                          # in the second half the one above, too
        jz      4f
        movzx   eax, byte ptr [HIGH_WINDOW]
        cmp     eax, r8d
        setne   al
        movzx   eax, al
        add     ebp, eax
4:      inc     ebx
        cmp     ebx, 8
        jne     1b
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
