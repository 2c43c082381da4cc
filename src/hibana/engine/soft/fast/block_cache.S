# Finding the translation of the next block. block_cache.py says why, and what makes it correct.
#
# Conventions as in thunks.S. `blocks` is 0 while there is no VM: the library then finds everything by itself.

        .intel_syntax noprefix
        .code64
        .text

        .equ    FLAGS_IN_EFLAGS, 0x73100        # TF IOPL RF VM AC: the part of a block's flags that is in RFLAGS
        .equ    CPL, 3
        .equ    AC, 1 << 18
        .equ    SMAP, 1 << 23
        .equ    CFLAGS_COMPARED, 0xFF0EFFFF     # all that a lookup can ask for, and "no longer valid"
        .equ    NO_CLUSTER, 0xFF000000          # part of what blocks are looked up by: all are in cluster -1
        .equ    JUMP_CACHE, CPU_TB_JMP_CACHE - CPU_ENV
        .equ    MMU_USER, 1
        .equ    MMU_KERNEL, 2
        .equ    PAGE, 4096

# ----------------------------------------------------------------------------------------------------------------------
# void *helper_lookup_tb_ptr(CPUX86State *env)
#
# Between two blocks: where is the code of the next one? The library's own cache first, then ours.
# ----------------------------------------------------------------------------------------------------------------------
helper_lookup_tb_ptr:
        mov     rdx, [rdi + ENV_SEGS + SEGMENT_SIZE + SEGMENT_BASE]
        mov     rsi, [rdi + ENV_EIP]
        mov     ecx, [rdi + ENV_EFLAGS]
        add     rsi, rdx
        and     ecx, FLAGS_IN_EFLAGS
        or      ecx, [rdi + ENV_HFLAGS]
        mov     rax, rsi                        # the library's hash: twelve bits out of the page and within it
        shr     rax, 6
        xor     rax, rsi
        mov     r10d, eax
        shr     rax, 6
        and     r10d, 0x3F
        and     eax, 0xFC0
        or      r10d, eax
        mov     r9, [rdi + 8 * r10 + JUMP_CACHE]
        test    r9, r9
        jz      1f
        cmp     rsi, [r9 + TB_PC]
        jne     1f
        cmp     rdx, [r9 + TB_CS_BASE]
        jne     1f
        cmp     ecx, [r9 + TB_FLAGS]
        jne     1f
        mov     eax, [r9 + TB_CFLAGS]
        and     eax, CFLAGS_COMPARED
        cmp     eax, NO_CLUSTER
        jne     1f
        mov     rax, [r9 + TB_CODE]
        ret
1:      mov     r8d, NO_CLUSTER
        call    find
        test    r9, r9
        jz      2f
        mov     [rdi + 8 * r10 + JUMP_CACHE], r9
        mov     rax, [r9 + TB_CODE]
        ret
2:      mov     rax, [rdi + ENV_UC]             # leave: the loop around translated code looks in the hash table
        mov     rax, [rax + UC_TCG_CTX]
        mov     rax, [rax + TCG_EPILOGUE]
        ret

# ----------------------------------------------------------------------------------------------------------------------
# TranslationBlock *tb_htable_lookup(CPUState *cpu, uint64_t pc, uint64_t cs_base, uint32_t flags, uint32_t cf_mask)
#
# The library's own cache does not have it.
# ----------------------------------------------------------------------------------------------------------------------
tb_htable_lookup:
        add     rdi, CPU_ENV
        call    find
        mov     rax, r9
        test    rax, rax
        jnz     2f
        sub     rdi, CPU_ENV
        push    r11
        call    [rip + lib_tb_htable_lookup]
        pop     r11
        test    rax, rax
        jz      2f
        cmp     qword ptr [rip + blocks], 0
        je      2f
        mov     rcx, [r11]                      # what was there may still be found in the second place
        mov     [r11 + 8], rcx
        mov     [r11], rax
2:      ret

# Look into our cache: rdi = env, rsi = pc, rdx = cs_base, ecx = flags, r8d = cflags. r9 = the block or 0, r11 = the
# first of its two places; rax is changed.
find:
        mov     rax, rsi
        shr     rax, 11
        xor     rax, rsi
        and     eax, [rip + last_pair]
        mov     r11, [rip + blocks]
        test    r11, r11
        jz      4f
        add     eax, eax
        lea     r11, [r11 + 8 * rax]
        mov     r9, [r11]
        test    r9, r9
        jz      4f
        cmp     rsi, [r9 + TB_PC]
        jne     5f
        cmp     ecx, [r9 + TB_FLAGS]
        je      6f
5:      mov     r9, [r11 + 8]
        test    r9, r9
        jz      4f
        cmp     rsi, [r9 + TB_PC]
        jne     4f
        cmp     ecx, [r9 + TB_FLAGS]
        jne     4f
6:      cmp     rdx, [r9 + TB_CS_BASE]
        jne     4f
        mov     eax, [r9 + TB_CFLAGS]
        and     eax, CFLAGS_COMPARED
        cmp     eax, r8d
        jne     4f
        cmp     qword ptr [r9 + TB_PAGE_ADDR + 8], -1
        jne     4f                              # it spans two pages

        push    r10                             # now: is this still the page it was translated from?
        mov     r10d, TLB_FAST_SIZE * MMU_USER
        mov     eax, ecx
        and     eax, CPL
        cmp     eax, CPL
        je      1f
        mov     r10d, TLB_FAST_SIZE * MMU_KERNEL
        test    ecx, SMAP
        jz      1f
        test    ecx, AC
        jnz     1f
        xor     r10d, r10d
1:      mov     rax, rsi
        shr     rax, 6
        and     rax, [rdi + r10 + TLB_MASK]
        add     rax, [rdi + r10 + TLB_TABLE]
        mov     r10, rsi
        and     r10, -PAGE
        cmp     r10, [rax + TLBE_ADDR_CODE]
        jne     3f
        add     r10, [rax + TLBE_ADDEND]
        sub     r10, [rip + ram]
        cmp     r10, [r9 + TB_PAGE_ADDR]
        jne     3f
        pop     r10
        ret
3:      pop     r10
4:      xor     r9d, r9d
        ret

# ----------------------------------------------------------------------------------------------------------------------
# void tb_flush(CPUState *cpu)
#
# The translation buffer is full and starts anew: what is in the cache will be something else.
# ----------------------------------------------------------------------------------------------------------------------
tb_flush:
        mov     rdx, rdi
        mov     rdi, [rip + blocks]
        test    rdi, rdi
        jz      1f
        mov     ecx, [rip + last_pair]
        lea     ecx, [2 * rcx + 2]
        xor     eax, eax
        rep stosq
1:      mov     rdi, rdx
        jmp     [rip + lib_tb_flush]

        .balign 4096, 0xCC
# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------
cells:
blocks:                 .quad 0                 # the cache: pairs of pointers to blocks, or 0
last_pair:              .quad 0                 # its highest index: a power of two, less one
ram:                    .quad 0                 # where guest RAM begins in this process

lib_tb_flush:           .quad 0
lib_tb_htable_lookup:   .quad 0
cells_end:
