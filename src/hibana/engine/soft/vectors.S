# Vectors of integers and strings, where the library computes otherwise than a CPU.
#
# Layout and calling convention are those of thunks.S. rdi = env, rsi = the destination or first operand, rdx = the source
# or second operand.

        .intel_syntax noprefix
        .code64
        .text

# ----------------------------------------------------------------------------------------------------------------------
# void helper_NAME_{xmm,mmx}(CPUX86State *env, Reg *destination, Reg *source)              PHADDW and its like
#
# The library changes the destination while it still reads the source, which are often the same. So the source becomes a
# copy.
# ----------------------------------------------------------------------------------------------------------------------
        .macro  HORIZONTAL name, load
helper_\name:
        cmp     rsi, rdx
        je      1f
        jmp     [rip + lib_helper_\name]
1:      \load   xmm0, [rdx]
        sub     rsp, 24
        movups  [rsp], xmm0
        mov     rdx, rsp
        call    [rip + lib_helper_\name]
        add     rsp, 24
        ret
        .endm

        .irp    name, phaddw, phaddd, phaddsw, phsubw, phsubd, phsubsw
        HORIZONTAL \name\()_xmm, movups
        HORIZONTAL \name\()_mmx, movq
        .endr

# ----------------------------------------------------------------------------------------------------------------------
# void helper_pcmp{e,i}str{i,m}_xmm(CPUX86State *env, Reg *first, Reg *second, uint32_t control)
#
# The library misses a substring that begins in the register and may go on behind it. And of the lowest length, -2^31 or
# -2^63, there is no absolute value: with it the library reads wherever that leads, outside the guest.
#
# A CPU that knows one of the four instructions knows PCMPESTRM, and the others follow from it: an implicit length ends at
# the first 0, and the index is that of a bit of the mask. The control byte is part of the instruction; so there is one of
# them for each, in a table. On a host without SSE4.2 the library stays in charge, with lengths that it can stand.
#
# Lengths: in EAX and EDX, or, with a bit above those of the control byte, in RAX and RDX; 16 and more are all there is.
# ----------------------------------------------------------------------------------------------------------------------
        .equ    RAX_OF_GUEST, ENV_REGS
        .equ    RCX_OF_GUEST, ENV_REGS + 1 * 8
        .equ    RDX_OF_GUEST, ENV_REGS + 2 * 8

        # The control byte
        .equ    WORDS, 1 << 0
        .equ    UNIT_OR_HIGHEST, 1 << 6         # of a mask: whole elements; of an index: the last one
        .equ    CONTROLS, 1 << 7

        .equ    LONGEST, 16
        .equ    ARITHMETIC, 0x8C1               # OF SF ZF CF; AF and PF are 0

        .equ    HOST_UNKNOWN, 0
        .equ    HOST_WITHOUT, 1
        .equ    HOST_WITH, 2
        .equ    CPUID_SSE42, 20                 # leaf 1, ECX

        .macro  ON_A_HOST_WITHOUT place
        cmp     byte ptr [rip + host], HOST_WITH
        je      1f
        call    ask_host
        cmp     byte ptr [rip + host], HOST_WITH
        jne     \place
1:
        .endm

# Make a length of 64 bits one of 32. r9 = LONGEST, r11 = -LONGEST
        .macro  CLAMP register
        cmp     \register, r9
        cmovg   \register, r9
        cmp     \register, r11
        cmovl   \register, r11
        .endm

        .macro  EXPLICIT_LENGTHS
        mov     rax, [rdi + RAX_OF_GUEST]
        mov     rdx, [rdi + RDX_OF_GUEST]
        test    ecx, ~0xFF
        jnz     1f
        movsxd  rax, eax
        movsxd  rdx, edx
1:      mov     r9d, LONGEST
        mov     r11, -LONGEST
        CLAMP   rax
        CLAMP   rdx
        .endm

# How many elements come before the first that is 0, in `length`. ecx = control
        .macro  IMPLICIT_LENGTH operand, length
        pxor    xmm0, xmm0
        test    ecx, WORDS
        jnz     1f
        pcmpeqb xmm0, \operand
        pmovmskb \length, xmm0
        bts     \length, LONGEST
        bsf     \length, \length
        jmp     2f
1:      pcmpeqw xmm0, \operand
        pmovmskb \length, xmm0
        bts     \length, LONGEST
        bsf     \length, \length
        shr     \length
2:
        .endm

# xmm0 = the mask for xmm1 with length eax and xmm2 with length edx; ecx = control, as a number of the table
        .macro  COMPARE
        lea     r9, [rip + compare]
        lea     r9, [r9 + 8 * rcx]
        call    r9
        pushfq
        pop     rax
        and     eax, ARITHMETIC
        mov     [rdi + ENV_CC_SRC], rax
        .endm

        .macro  GIVE_MASK
        and     ecx, CONTROLS - 1
        COMPARE
        movups  [rdi + ENV_XMM_REGS], xmm0
        ret
        .endm

        .macro  GIVE_INDEX
        mov     r8d, ecx
        and     ecx, UNIT_OR_HIGHEST - 1
        COMPARE
        movd    ecx, xmm0
        test    ecx, ecx
        jz      2f
        bsf     eax, ecx
        test    r8d, UNIT_OR_HIGHEST
        jz      1f
        bsr     eax, ecx
1:      mov     [rdi + RCX_OF_GUEST], rax
        ret
2:      mov     eax, LONGEST
        mov     ecx, r8d
        and     ecx, WORDS
        shr     eax, cl
        mov     [rdi + RCX_OF_GUEST], rax
        ret
        .endm

        .macro  STRINGS result, give
helper_pcmpestr\result\()_xmm:
        ON_A_HOST_WITHOUT library_pcmpestr\result
        movups  xmm1, [rsi]
        movups  xmm2, [rdx]
        EXPLICIT_LENGTHS
        \give
helper_pcmpistr\result\()_xmm:
        ON_A_HOST_WITHOUT library_pcmpistr\result
        movups  xmm1, [rsi]
        movups  xmm2, [rdx]
        IMPLICIT_LENGTH xmm1, eax
        IMPLICIT_LENGTH xmm2, edx
        \give
library_pcmpestr\result:
        push    rbx
        push    [rdi + RAX_OF_GUEST]
        push    [rdi + RDX_OF_GUEST]
        mov     rbx, rdi
        mov     r8, rdx
        EXPLICIT_LENGTHS
        mov     [rdi + RAX_OF_GUEST], rax
        mov     [rdi + RDX_OF_GUEST], rdx
        mov     rdx, r8
        call    [rip + lib_helper_pcmpestr\result\()_xmm]
        pop     [rbx + RDX_OF_GUEST]
        pop     [rbx + RAX_OF_GUEST]
        pop     rbx
        ret
library_pcmpistr\result:
        jmp     [rip + lib_helper_pcmpistr\result\()_xmm]
        .endm

        STRINGS m, GIVE_MASK
        STRINGS i, GIVE_INDEX

# Find out whether the host knows these instructions, unless that is known. Changes rax, r8 to r10.
ask_host:
        cmp     byte ptr [rip + host], HOST_UNKNOWN
        jne     1f
        mov     r8, rbx
        mov     r9, rcx
        mov     r10, rdx
        mov     eax, 1
        xor     ecx, ecx
        cpuid
        bt      ecx, CPUID_SSE42
        mov     eax, HOST_WITHOUT
        adc     eax, 0
        mov     [rip + host], al
        mov     rbx, r8
        mov     rcx, r9
        mov     rdx, r10
1:      ret

        .balign 8
compare:
        .set    control, 0
        .rept   CONTROLS
        pcmpestrm xmm1, xmm2, control
        ret
        .balign 8
        .set    control, control + 1
        .endr

        .balign 4096, 0xCC
# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------
cells:
host:                   .quad HOST_UNKNOWN      # what it knows

lib_helper_phaddw_xmm:  .quad 0
lib_helper_phaddw_mmx:  .quad 0
lib_helper_phaddd_xmm:  .quad 0
lib_helper_phaddd_mmx:  .quad 0
lib_helper_phaddsw_xmm: .quad 0
lib_helper_phaddsw_mmx: .quad 0
lib_helper_phsubw_xmm:  .quad 0
lib_helper_phsubw_mmx:  .quad 0
lib_helper_phsubd_xmm:  .quad 0
lib_helper_phsubd_mmx:  .quad 0
lib_helper_phsubsw_xmm: .quad 0
lib_helper_phsubsw_mmx: .quad 0
lib_helper_pcmpestri_xmm: .quad 0
lib_helper_pcmpestrm_xmm: .quad 0
lib_helper_pcmpistri_xmm: .quad 0
lib_helper_pcmpistrm_xmm: .quad 0
cells_end:
