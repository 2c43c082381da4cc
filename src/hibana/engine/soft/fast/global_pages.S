# CR3 writes that keep global pages in the TLB. global_pages.py says why, and what makes it correct.
#
# Conventions as in thunks.S. Three cells describe what has come into the TLB since it was last empty of all but global
# pages: `everything`, "cannot be told apart any more"; `user`, "user pages, or code below"; and a list of the kernel's
# pages in the lower half of the address space.

        .intel_syntax noprefix
        .code64
        .text

        .equ    ENV_CR3, ENV_CR + 8 * 3
        .equ    ENV_CR4, ENV_CR + 8 * 4
        .equ    CR0_PG, 1 << 31
        .equ    CR4_PGE, 1 << 7
        .equ    CR4_PCIDE, 1 << 17

        .equ    ENTRY_PRESENT, 1 << 0           # of a page table
        .equ    ENTRY_PAGE_SIZE, 1 << 7         # this entry maps a large page
        .equ    ENTRY_GLOBAL, 1 << 8
        .equ    ENTRY_ADDRESS, 0x000FFFFFFFFFF000
        .equ    LEVEL_BITS, 9
        .equ    TOP_SHIFT, 39                   # of the index into the PML4
        .equ    LEAF_SHIFT, 12
        .equ    GIB4, 1 << 32

        .equ    PAGE, 4096
        .equ    MMU_KERNEL_SMAP, 0
        .equ    MMU_USER, 1
        .equ    MMU_KERNEL, 2
        .equ    PROT_EXEC, 4

# ----------------------------------------------------------------------------------------------------------------------
# void tlb_set_page_with_attrs(CPUState *cpu, uint64_t vaddr, uint64_t paddr, MemTxAttrs, int prot, int mmu, size)
#
# A page comes into the TLB: note what a CR3 write will have to do about it.
# ----------------------------------------------------------------------------------------------------------------------
tlb_set_page_with_attrs:
        cmp     byte ptr [rip + everything], 0
        jne     9f
        test    rsi, rsi
        js      3f
        cmp     r9d, MMU_USER
        je      1f
        mov     rax, [rip + listed]
        cmp     rax, [rip + list_length]
        jae     8f
        mov     r10, rsi
        and     r10, -PAGE
        mov     r11, [rip + list]
        mov     [r11 + 8 * rax], r10
        inc     rax
        mov     [rip + listed], rax
        test    r8b, PROT_EXEC
        jz      9f
1:      mov     byte ptr [rip + user], 1
        jmp     9f

3:      push    rcx                             # upper half: is it global? Walk the page tables
        mov     r10, [rdi + CPU_ENV + ENV_CR3]
        mov     ecx, TOP_SHIFT
4:      movabs  rax, ENTRY_ADDRESS
        and     r10, rax
        cmp     r10, [rip + low_ram_size]
        jae     5f
        add     r10, [rip + low_ram]
        jmp     6f
5:      movabs  rax, GIB4
        sub     r10, rax
        cmp     r10, [rip + high_ram_size]
        jae     7f
        add     r10, [rip + high_ram]
6:      mov     rax, rsi
        shr     rax, cl
        and     eax, (1 << LEVEL_BITS) - 1
        mov     r10, [r10 + 8 * rax]
        test    r10d, ENTRY_PRESENT
        jz      7f
        cmp     ecx, LEAF_SHIFT
        je      2f
        test    r10d, ENTRY_PAGE_SIZE
        jnz     2f
        sub     ecx, LEVEL_BITS
        jmp     4b
2:      test    r10d, ENTRY_GLOBAL
        jz      7f
        pop     rcx
        jmp     9f
7:      pop     rcx
8:      mov     byte ptr [rip + everything], 1
9:      jmp     [rip + lib_tlb_set_page_with_attrs]

# ----------------------------------------------------------------------------------------------------------------------
# void cpu_x86_update_cr3(CPUX86State *env, uint64_t value)
#
# Drop what is not global.
# ----------------------------------------------------------------------------------------------------------------------
cpu_x86_update_cr3:
        cmp     byte ptr [rip + everything], 0
        jne     8f
        test    dword ptr [rdi + ENV_CR], CR0_PG
        jz      8f
        mov     eax, [rdi + ENV_CR4]
        and     eax, CR4_PGE | CR4_PCIDE
        cmp     eax, CR4_PGE
        jne     8f
        mov     [rdi + ENV_CR3], rsi
        mov     rcx, [rip + listed]
        test    rcx, rcx
        jz      6f
        mov     qword ptr [rip + listed], 0
        mov     r8, [rip + list]

1:      mov     r9, [r8 + 8 * rcx - 8]
        shr     r9, 6                           # page number * TLBE_SIZE
        .irp    mmu, MMU_KERNEL_SMAP, MMU_KERNEL
        mov     r10, r9
        and     r10, [rdi + TLB_MASK + TLB_FAST_SIZE * \mmu]
        add     r10, [rdi + TLB_TABLE + TLB_FAST_SIZE * \mmu]
        mov     rax, [r10 + TLBE_ADDR_READ]
        and     rax, [r10 + TLBE_ADDR_WRITE]
        and     rax, [r10 + TLBE_ADDR_CODE]
        inc     rax
        jz      2f                              # it is empty
        mov     qword ptr [r10 + TLBE_ADDR_READ], -1
        mov     qword ptr [r10 + TLBE_ADDR_WRITE], -1
        mov     qword ptr [r10 + TLBE_ADDR_CODE], -1
        cmp     qword ptr [rdi + TLB_N_USED_ENTRIES + TLB_DESC_SIZE * \mmu], 0
        je      2f                              # entries that came back from the victims are not counted
        dec     qword ptr [rdi + TLB_N_USED_ENTRIES + TLB_DESC_SIZE * \mmu]
2:
        .endr
        dec     rcx
        jnz     1b

        mov     ecx, TLBE_SIZE * (TLB_VICTIMS - 1)
3:      .irp    mmu, MMU_KERNEL_SMAP, MMU_KERNEL
        .irp    address, TLBE_ADDR_READ, TLBE_ADDR_WRITE, TLBE_ADDR_CODE
        mov     qword ptr [rdi + rcx + TLB_VTABLE + TLB_DESC_SIZE * \mmu + \address], -1
        .endr
        .endr
        sub     ecx, TLBE_SIZE
        jns     3b

6:      cmp     byte ptr [rip + user], 0
        je      7f
        mov     byte ptr [rip + user], 0
        sub     rdi, CPU_ENV
        mov     esi, 1 << MMU_USER
        jmp     [rip + lib_tlb_flush_by_mmuidx]   # and the jump cache
7:      ret
8:      mov     byte ptr [rip + everything], 0
        mov     byte ptr [rip + user], 0
        mov     qword ptr [rip + listed], 0
        jmp     [rip + lib_cpu_x86_update_cr3]

# ----------------------------------------------------------------------------------------------------------------------
# void tlb_flush(CPUState *cpu)
#
# Everything goes.
# ----------------------------------------------------------------------------------------------------------------------
tlb_flush:
        mov     byte ptr [rip + everything], 0
        mov     byte ptr [rip + user], 0
        mov     qword ptr [rip + listed], 0
        jmp     [rip + lib_tlb_flush]

        .balign 4096, 0xCC
# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------
cells:
everything:             .byte 0
user:                   .byte 0
                        .balign 8
listed:                 .quad 0
list:                   .quad 0                 # addresses
list_length:            .quad 0                 # how many may be listed; 0 = no VM
low_ram:                .quad 0                 # where RAM from guest-physical 0 is in this process
low_ram_size:           .quad 0
high_ram:               .quad 0                 # RAM from 4 GiB
high_ram_size:          .quad 0

lib_cpu_x86_update_cr3: .quad 0
lib_tlb_flush:          .quad 0
lib_tlb_flush_by_mmuidx: .quad 0
lib_tlb_set_page_with_attrs: .quad 0
cells_end:
