# The check at the start of every block, emitted as two instructions. inline_exit.py says why, and what makes it correct.
#
# Conventions as in thunks.S. These thunks run while a block is translated, not while it runs.

        .intel_syntax noprefix
        .code64
        .text

        .equ    OP_SET_LABEL, 1                 # TCGOpcode
        .equ    OP_LD_I32, 13
        .equ    TYPE_I32, 0                     # TCGType
        .equ    COND_LT, 2                      # TCGCond
        .equ    EXIT_REQUESTED, 3               # "left before its first instruction": the library restores EIP
        .equ    LABEL_PRESENT, 1                # in the first byte of a TCGLabel
        .equ    KICK_WORD, CPU_ICOUNT_DECR - CPU_ENV

# ----------------------------------------------------------------------------------------------------------------------
# void tcg_func_start(TCGContext *ctx)
#
# A block begins, and its labels with it. The one before may have been given up in the middle.
# ----------------------------------------------------------------------------------------------------------------------
tcg_func_start:
        mov     qword ptr [rip + label], 0
        jmp     [rip + lib_tcg_func_start]

# ----------------------------------------------------------------------------------------------------------------------
# void tcg_gen_callN(TCGContext *ctx, void *function, TCGTemp *result, int count, TCGTemp **arguments)
#
# Instead of the block's first call of helper_check_exit_request: if (kick word < 0) goto label.
# ----------------------------------------------------------------------------------------------------------------------
tcg_gen_callN:
        cmp     rsi, [rip + lib_helper_check_exit_request]
        jne     1f
        cmp     qword ptr [rip + label], 0
        jne     1f
        push    rbx
        push    r12
        sub     rsp, 8
        mov     rbx, rdi
        call    [rip + lib_gen_new_label]
        mov     [rip + label], rax
        mov     rdi, rbx
        mov     esi, TYPE_I32
        xor     edx, edx                        # not beyond the next branch
        call    [rip + lib_tcg_temp_new_internal]
        mov     r12, rax
        mov     rdi, rbx
        mov     esi, OP_LD_I32
        mov     rdx, r12
        mov     rcx, [rbx + TCG_CPU_ENV]        # the operand for the CPUX86State, relative to the context
        add     rcx, rbx
        mov     r8, KICK_WORD
        call    [rip + lib_tcg_gen_op3]
        mov     rdi, rbx
        mov     esi, COND_LT
        mov     rdx, r12
        sub     rdx, rbx                        # this one is wanted relative to the context
        xor     ecx, ecx
        mov     r8, [rip + label]
        call    [rip + lib_tcg_gen_brcondi_i32]
        mov     rdi, rbx
        mov     rsi, r12
        add     rsp, 8
        pop     r12
        pop     rbx
        jmp     [rip + lib_tcg_temp_free_internal]
1:      jmp     [rip + plain_tcg_gen_callN]

# ----------------------------------------------------------------------------------------------------------------------
# void tcg_gen_exit_tb(TCGContext *ctx, TranslationBlock *block, unsigned how)
#
# The library ends each block with an exit of the kind that is wanted, which nothing leads to. Put the label there.
# ----------------------------------------------------------------------------------------------------------------------
tcg_gen_exit_tb:
        cmp     edx, EXIT_REQUESTED
        jne     1f
        mov     rax, [rip + label]
        test    rax, rax
        jz      1f
        push    rdi
        push    rsi
        sub     rsp, 8
        mov     qword ptr [rip + label], 0
        or      byte ptr [rax], LABEL_PRESENT
        mov     esi, OP_SET_LABEL
        mov     rdx, rax
        call    [rip + lib_tcg_gen_op1]
        add     rsp, 8
        pop     rsi
        pop     rdi
        mov     edx, EXIT_REQUESTED
1:      jmp     [rip + lib_tcg_gen_exit_tb]

        .balign 4096, 0xCC
# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------
cells:
label:                  .quad 0                 # of the block being translated, until it is put somewhere

lib_gen_new_label:      .quad 0
lib_helper_check_exit_request: .quad 0
lib_tcg_func_start:     .quad 0
lib_tcg_gen_brcondi_i32: .quad 0
lib_tcg_gen_exit_tb:    .quad 0
lib_tcg_gen_op1:        .quad 0
lib_tcg_gen_op3:        .quad 0
lib_tcg_temp_free_internal: .quad 0
lib_tcg_temp_new_internal: .quad 0
plain_tcg_gen_callN:    .quad 0
cells_end:
