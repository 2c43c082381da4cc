# Stores that ask learn from a table whether they change code. dirty.py says why, and what makes it correct.
#
# Conventions as in thunks.S, whose `tlb_unprotect_code` and `tlb_set_dirty` go on to serve the same table. `ram_size`
# is 0 while there is no VM: everything then goes the library's own way.

        .intel_syntax noprefix
        .code64
        .text

        .equ    PAGE_SHIFT, 12
        .equ    PAGE, 1 << PAGE_SHIFT
        .equ    MMU_INDEX, 15                   # in the descriptor of a memory access (TCGMemOpIdx)
        .equ    ALIGNMENT, 7                    # bits 8-10 of it: the instruction insists on an alignment

# ----------------------------------------------------------------------------------------------------------------------
# void tlb_protect_code(struct uc_struct *uc, uint64_t ram_addr)
#
# A page gets its first translation: note it, and let the next store to it through any address ask.
# ----------------------------------------------------------------------------------------------------------------------
tlb_protect_code:
        cmp     rsi, [rip + ram_size]
        jae     1f
        mov     rax, rsi
        shr     rax, PAGE_SHIFT
        add     rax, [rip + holds_code]
        mov     byte ptr [rax], 1
        mov     rdi, [rdi + UC_CPU]
        add     rsi, [rip + ram]
        mov     edx, PAGE
        jmp     [rip + lib_tlb_reset_dirty]
1:      ret

# ----------------------------------------------------------------------------------------------------------------------
# void tlb_reset_dirty_by_vaddr(CPUState *cpu, uint64_t addr, uint64_t size)
#
# Something was translated. If it was the first on its page, tlb_protect_code does what there is to do.
# ----------------------------------------------------------------------------------------------------------------------
tlb_reset_dirty_by_vaddr:
        ret

# ----------------------------------------------------------------------------------------------------------------------
# void tb_invalidate_phys_page_fast(struct uc_struct *uc, void *pages, uint64_t ram_addr, int size, uintptr_t return)
#
# Something is about to be stored within one page: drop what was translated from there.
# ----------------------------------------------------------------------------------------------------------------------
tb_invalidate_phys_page_fast:
        cmp     rdx, [rip + ram_size]
        jae     1f
        mov     rax, rdx
        shr     rax, PAGE_SHIFT
        add     rax, [rip + holds_code]
        cmp     byte ptr [rax], 0
        jne     1f
        ret
1:      jmp     [rip + lib_tb_invalidate_phys_page_fast]

# ----------------------------------------------------------------------------------------------------------------------
# void helper_{ret_stb,le_stw,le_stl,le_stq}_mmu(CPUX86State *env, uint64_t addr, value, uint32_t access, uintptr_t return)
#
# A store that cannot be done inline. When the only reason is that it has to ask, and the page holds no code, do it
# here, and the next ones inline. Everything else is the library's: rdi, rsi, rdx, rcx and r8 stay as they are.
# ----------------------------------------------------------------------------------------------------------------------
        .macro  STORE name, size, value
\name:
        mov     eax, ecx
        and     eax, MMU_INDEX
        shl     eax, 4                          # * TLB_FAST_SIZE
        mov     r10, rsi
        shr     r10, 6
        and     r10, [rdi + rax + TLB_MASK]
        add     r10, [rdi + rax + TLB_TABLE]    # the entry
        mov     r9, rsi
        and     r9, -PAGE                       # the page
        lea     r11, [r9 + TLBE_NOTDIRTY]
        cmp     r11, [r10 + TLBE_ADDR_WRITE]
        jne     1f
        test    ch, ALIGNMENT
        jnz     1f
        .if \size > 1
        mov     eax, esi
        and     eax, PAGE - 1
        cmp     eax, PAGE - \size
        ja      1f                              # it spans two pages
        .endif
        mov     r11, [r10 + TLBE_ADDEND]
        lea     rax, [r9 + r11]
        sub     rax, [rip + ram]
        cmp     rax, [rip + ram_size]
        jae     1f
        shr     rax, PAGE_SHIFT
        add     rax, [rip + holds_code]
        cmp     byte ptr [rax], 0
        jne     1f
        mov     [r10 + TLBE_ADDR_WRITE], r9
        mov     [rsi + r11], \value
        ret
1:      jmp     [rip + lib_\name]
        .endm

        STORE   helper_ret_stb_mmu, 1, dl
        STORE   helper_le_stw_mmu, 2, dx
        STORE   helper_le_stl_mmu, 4, edx
        STORE   helper_le_stq_mmu, 8, rdx

        .balign 4096, 0xCC
# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------
cells:
ram:                    .quad 0                 # where guest RAM begins in this process
ram_size:               .quad 0                 # 0 = no VM
holds_code:             .quad 0                 # one byte for each page of RAM

lib_helper_le_stl_mmu:  .quad 0
lib_helper_le_stq_mmu:  .quad 0
lib_helper_le_stw_mmu:  .quad 0
lib_helper_ret_stb_mmu: .quad 0
lib_tb_invalidate_phys_page_fast: .quad 0
lib_tlb_reset_dirty:    .quad 0
cells_end:
