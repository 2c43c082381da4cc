# Floating point, where the library computes otherwise than a CPU.
#
# The library has SSE and x87 in software. It records exceptions in a place of its own and never in MXCSR, raises none,
# chooses between two NaNs by the rule of x87 where SSE has another, and forgets DAZ in MIN and MAX; of x87 it rounds
# constants only to nearest, truncates to the nearest integer what fits into none, and loads a signaling NaN as it is.
# The CPU below has all of it right. So these are the guest's instructions, executed with the guest's rounding,
# flush-to-zero and denormals-are-zero, and every exception masked: what has happened is then in MXCSR, and what the
# guest does not mask becomes its #XM. Results are the same on every CPU: IEEE 754 defines them, and the manuals the rest.
# But of an overflow or underflow that becomes an #XM it says that it was inexact, too, which is not always so.
# ROUNDPS and its like, DPPS and DPPD are still the library's: not every host has them.
#
# Layout and calling convention are those of thunks.S. rdi = env, rsi = the destination, rdx = the source; what a C
# function may change, and [rsp - 16, rsp), is free.

        .intel_syntax noprefix
        .code64
        .text

        .equ    VECTOR_UD, 6
        .equ    VECTOR_XM, 19
        .equ    CONTROL_4, ENV_CR + 8 * 4
        .equ    CR4_OSXMMEXCPT, 1 << 10

        # MXCSR
        .equ    EXCEPTIONS, 0x3F
        .equ    MASK_OF_EXCEPTION, 7            # how far the mask of an exception is above it
        .equ    ALL_MASKED, EXCEPTIONS << MASK_OF_EXCEPTION
        .equ    MODES, 0xE040                   # FZ, RC, DAZ
        .equ    OF_OPERANDS, 7                  # invalid, denormal, divided by zero
        .equ    UNDERFLOW_MASKED, 1 << 11
        .equ    FZ_ABOVE_UNDERFLOW_MASKED, 4

        # The x87 control word
        .equ    X87_ROUNDING, 0xC00
        .equ    X87_DEFAULT, 0x37F

        .equ    QUIET_SINGLE, 1 << 22
        .equ    QUIET_DOUBLE_BIT, 51
        .equ    SIGN_DOUBLE_BIT, 63
        .equ    INFINITY_SINGLE, 0x7F800000
        .equ    INFINITY_DOUBLE, 0x7FF << 52

# ----------------------------------------------------------------------------------------------------------------------
# SSE
# ----------------------------------------------------------------------------------------------------------------------

# Loading MXCSR costs more than most operations, so first it is tried with that of C. Its exceptions are sticky: when there
# is none in it afterwards that the guest has not had before, nothing has happened that the guest could notice.
        .macro  TRY
        mov     r8d, [rdi + ENV_MXCSR]
        mov     r9d, r8d
        and     r9d, ~EXCEPTIONS
        cmp     r9d, ALL_MASKED
        jne     2f                              # it does not compute as C does
        .endm

        .macro  UNLESS_NEW
        stmxcsr [rsp - 12]
        not     r8d
        and     r8d, [rsp - 12]
        test    r8d, EXCEPTIONS
        jnz     2f
        .endm

# void helper_NAME(CPUX86State *env, Reg *destination, Reg *source): how much of either is there, and what to do.
        .macro  SSE name, destination, source, operation:vararg
helper_\name:
        mov\destination xmm0, [rsi]
        mov\source xmm1, [rdx]
        TRY
        \operation
        UNLESS_NEW
        mov\destination [rsi], xmm0
        ret
2:      call    begin
        mov\destination xmm0, [rsi]
        \operation
        call    finish
        mov\destination [rsi], xmm0
        ret
        .endm

        .macro  ARITHMETIC name
        SSE     \name\()ps, ups, ups, \name\()ps xmm0, xmm1
        SSE     \name\()pd, ups, ups, \name\()pd xmm0, xmm1
        SSE     \name\()ss, ss, ss, \name\()ss xmm0, xmm1
        SSE     \name\()sd, sd, sd, \name\()sd xmm0, xmm1
        .endm

        ARITHMETIC add
        ARITHMETIC sub
        ARITHMETIC mul
        ARITHMETIC div
        ARITHMETIC min
        ARITHMETIC max
        ARITHMETIC sqrt

        SSE     haddps, ups, ups, haddps xmm0, xmm1
        SSE     haddpd, ups, ups, haddpd xmm0, xmm1
        SSE     hsubps, ups, ups, hsubps xmm0, xmm1
        SSE     hsubpd, ups, ups, hsubpd xmm0, xmm1
        SSE     addsubps, ups, ups, addsubps xmm0, xmm1
        SSE     addsubpd, ups, ups, addsubpd xmm0, xmm1

        .macro  COMPARISON name, number
        SSE     \name\()ps, ups, ups, cmpps xmm0, xmm1, \number
        SSE     \name\()pd, ups, ups, cmppd xmm0, xmm1, \number
        SSE     \name\()ss, ss, ss, cmpss xmm0, xmm1, \number
        SSE     \name\()sd, sd, sd, cmpsd xmm0, xmm1, \number
        .endm

        COMPARISON cmpeq, 0
        COMPARISON cmplt, 1
        COMPARISON cmple, 2
        COMPARISON cmpunord, 3
        COMPARISON cmpneq, 4
        COMPARISON cmpnlt, 5
        COMPARISON cmpnle, 6
        COMPARISON cmpord, 7

        SSE     cvtps2pd, ups, sd, cvtps2pd xmm0, xmm1
        SSE     cvtpd2ps, ups, ups, cvtpd2ps xmm0, xmm1
        SSE     cvtss2sd, sd, ss, cvtss2sd xmm0, xmm1
        SSE     cvtsd2ss, ss, sd, cvtsd2ss xmm0, xmm1
        SSE     cvtdq2ps, ups, ups, cvtdq2ps xmm0, xmm1
        SSE     cvtps2dq, ups, ups, cvtps2dq xmm0, xmm1
        SSE     cvttps2dq, ups, ups, cvttps2dq xmm0, xmm1
        SSE     cvtpd2dq, ups, ups, cvtpd2dq xmm0, xmm1
        SSE     cvttpd2dq, ups, ups, cvttpd2dq xmm0, xmm1

# From and to MMX registers: the same, on half of a register.
        SSE     cvtpi2ps, sd, sd, cvtdq2ps xmm0, xmm1
        SSE     cvtps2pi, sd, sd, cvtps2dq xmm0, xmm1
        SSE     cvttps2pi, sd, sd, cvttps2dq xmm0, xmm1
        SSE     cvtpd2pi, sd, ups, cvtpd2dq xmm0, xmm1
        SSE     cvttpd2pi, sd, ups, cvttpd2dq xmm0, xmm1

# int helper_NAME(CPUX86State *env, Reg *source)
        .macro  TO_INTEGER name, result, operation
helper_\name:
        TRY
        \operation \result, [rsi]
        UNLESS_NEW
        ret
2:      call    begin
        \operation \result, [rsi]
        call    finish
        ret
        .endm

        TO_INTEGER cvtss2si, eax, cvtss2si
        TO_INTEGER cvtss2sq, rax, cvtss2si
        TO_INTEGER cvtsd2si, eax, cvtsd2si
        TO_INTEGER cvtsd2sq, rax, cvtsd2si
        TO_INTEGER cvttss2si, eax, cvttss2si
        TO_INTEGER cvttss2sq, rax, cvttss2si
        TO_INTEGER cvttsd2si, eax, cvttsd2si
        TO_INTEGER cvttsd2sq, rax, cvttsd2si

# void helper_NAME(CPUX86State *env, Reg *destination, int source)
        .macro  FROM_INTEGER name, size, source
helper_\name:
        TRY
        cvtsi2\size xmm0, \source
        UNLESS_NEW
        mov\size [rsi], xmm0
        ret
2:      call    begin
        cvtsi2\size xmm0, \source
        call    finish
        mov\size [rsi], xmm0
        ret
        .endm

        FROM_INTEGER cvtsi2ss, ss, edx
        FROM_INTEGER cvtsq2ss, ss, rdx
        FROM_INTEGER cvtsi2sd, sd, edx
        FROM_INTEGER cvtsq2sd, sd, rdx

# void helper_NAME(CPUX86State *env, Reg *first, Reg *second): the arithmetic flags
        .macro  TO_FLAGS name, size
helper_\name:
        mov\size xmm0, [rsi]
        TRY
        \name   xmm0, [rdx]
        pushfq
        pop     rsi
        UNLESS_NEW
        and     esi, CF | PF | ZF
        mov     [rdi + ENV_CC_SRC], rsi
        ret
2:      call    begin
        \name   xmm0, [rdx]
        pushfq
        pop     rsi
        call    finish
        and     esi, CF | PF | ZF
        mov     [rdi + ENV_CC_SRC], rsi
        ret
        .endm

        .equ    CF, 1 << 0
        .equ    PF, 1 << 2
        .equ    ZF, 1 << 6

        TO_FLAGS comiss, ss
        TO_FLAGS comisd, sd
        TO_FLAGS ucomiss, ss
        TO_FLAGS ucomisd, sd

# Compute as the guest does from now on. Masked, an underflow is one of a tiny result that is inexact; not masked, of any.
# With FZ a tiny result says so in either case, and its zero is never seen: it becomes an #XM. Changes eax and r9d; what C
# had is kept in [rsp - 16] of the caller.
begin:
        stmxcsr [rsp - 8]
        and     dword ptr [rsp - 8], ~EXCEPTIONS    # so that the next try need not fail
        mov     eax, [rdi + ENV_MXCSR]
        mov     r9d, eax
        not     r9d
        and     r9d, UNDERFLOW_MASKED
        shl     r9d, FZ_ABOVE_UNDERFLOW_MASKED
        and     eax, MODES
        or      eax, r9d
        or      eax, ALL_MASKED
        mov     [rsp - 4], eax
        ldmxcsr [rsp - 4]
        ret

# Compute as C does again; note what has happened, or raise it. Nothing of the guest's has been changed so far. Changes
# ecx, edx and r9d.
finish:
        stmxcsr [rsp - 4]
        ldmxcsr [rsp - 8]
        mov     ecx, [rsp - 4]
        and     ecx, EXCEPTIONS
        jz      1f
        mov     edx, [rdi + ENV_MXCSR]
        mov     r9d, edx
        shr     r9d, MASK_OF_EXCEPTION
        not     r9d
        and     r9d, ecx
        jnz     2f
        or      edx, ecx
        mov     [rdi + ENV_MXCSR], edx
1:      ret

# Raise what the guest does not mask, r9d. If it is the operands that are at fault, in any of the places, nothing is
# computed in the others.
2:      add     rsp, 8                          # as it was on entry
        mov     eax, ecx
        and     eax, OF_OPERANDS
        test    r9d, OF_OPERANDS
        cmovnz  ecx, eax
        or      edx, ecx
        mov     [rdi + ENV_MXCSR], edx
        mov     esi, VECTOR_XM
        mov     eax, VECTOR_UD
        test    dword ptr [rdi + CONTROL_4], CR4_OSXMMEXCPT
        cmovz   esi, eax
        xor     edx, edx
        mov     rcx, [rsp]                      # the place in generated code that knows the guest's EIP
        jmp     [rip + lib_raise_exception_err_ra]

# ----------------------------------------------------------------------------------------------------------------------
# x87
# ----------------------------------------------------------------------------------------------------------------------

# rcx = ST(0), from fpregs on.
        .macro  TOP_OF_STACK
        mov     ecx, [rdi + ENV_FPSTT]
        and     ecx, 7
        shl     ecx, 4
        .endm

# void helper_NAME_ST0(CPUX86State *env): there is a new ST(0) already.
        .macro  CONSTANT name
helper_\name\()_ST0:
        TOP_OF_STACK
        movzx   eax, word ptr [rdi + ENV_FPUC]
        and     eax, X87_ROUNDING
        or      eax, X87_DEFAULT
        mov     [rsp - 4], eax
        fnstcw  [rsp - 8]
        fldcw   [rsp - 4]
        \name
        fstp    tbyte ptr [rdi + rcx + ENV_FPREGS]
        fldcw   [rsp - 8]
        ret
        .endm

        CONSTANT fldl2t
        CONSTANT fldl2e
        CONSTANT fldpi
        CONSTANT fldlg2
        CONSTANT fldln2

# int32_t helper_fisttl_ST0(CPUX86State *env), int64_t helper_fisttll_ST0(CPUX86State *env)
helper_fisttl_ST0:
        TOP_OF_STACK
        fld     tbyte ptr [rdi + rcx + ENV_FPREGS]
        fisttp  dword ptr [rsp - 8]
        mov     eax, [rsp - 8]
        ret

helper_fisttll_ST0:
        TOP_OF_STACK
        fld     tbyte ptr [rdi + rcx + ENV_FPREGS]
        fisttp  qword ptr [rsp - 8]
        mov     rax, [rsp - 8]
        ret

# void helper_flds_ST0(CPUX86State *env, uint32_t number), void helper_fldl_ST0(CPUX86State *env, uint64_t number)
helper_flds_ST0:
        lea     eax, [rsi + rsi]                # without its sign
        cmp     eax, INFINITY_SINGLE * 2
        jbe     1f
        or      esi, QUIET_SINGLE
1:      jmp     [rip + lib_helper_flds_ST0]

helper_fldl_ST0:
        movabs  rcx, INFINITY_DOUBLE
        mov     rax, rsi
        btr     rax, SIGN_DOUBLE_BIT
        cmp     rax, rcx
        jbe     1f
        bts     rsi, QUIET_DOUBLE_BIT
1:      jmp     [rip + lib_helper_fldl_ST0]

        .balign 4096, 0xCC
# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------
cells:
lib_helper_fldl_ST0:    .quad 0
lib_helper_flds_ST0:    .quad 0
lib_raise_exception_err_ra: .quad 0
cells_end:
