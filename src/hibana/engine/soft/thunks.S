# The machine code between unicorn and a real CPU.
#
# Why machine code: every function here either runs so often that a call into Python would be felt (SYSCALL, store
# bookkeeping), or calls something that may leave through longjmp (a page fault while an exception is being delivered),
# and longjmp over the frames of the Python interpreter destroys it.
#
# Calling convention: System V, called from C. Arguments rdi, rsi, rdx, rcx; result rax; rax, rcx, rdx, rsi, rdi and
# r8-r11 may be changed, rbx, rbp and r12-r15 may not. On entry rsp is 8 past a multiple of 16.
#
# Layout: code, then, from the next page on, cells. The code is read-only and identical in every process; whatever
# belongs to one process or one VM is in a cell and is reached relative to rip. Nothing is patched, and no cell shares
# a page with code, because a store near executing code costs the host CPU a pipeline flush.
#
# A thunk with the name of a library function takes its place; `lib_` and the name is the original.
# `tools/assemble_thunks.py` turns this file into thunks.py. UC_*, CPU_*, ENV_* and SEGMENT_* come from offsets.py.

        .intel_syntax noprefix
        .code64
        .text

        # RFLAGS
        .equ    CF, 1 << 0
        .equ    DF, 1 << 10
        .equ    IF, 1 << 9
        .equ    IOPL_BIT, 12
        .equ    RF, 1 << 16
        .equ    VM, 1 << 17
        .equ    ARITHMETIC, 0x8D5               # OF SF ZF AF PF CF
        .equ    CC_OP_EFLAGS, 1                 # "the arithmetic flags are cc_src itself"

        # hflags
        .equ    HF_CPL, 3
        .equ    HF_PE, 1 << 7
        .equ    HF_INHIBIT_IRQ, 1 << 3          # the shadow of STI and MOV SS
        .equ    HF_CS32, 1 << 4
        .equ    HF_SS32, 1 << 5
        .equ    HF_ADDSEG, 1 << 6
        .equ    HF_TF, 1 << 8
        .equ    HF_LMA, 1 << 14
        .equ    HF_CS64, 1 << 15
        .equ    HF_VM, 1 << 17
        .equ    HF2_NMI, 1 << 2                 # hflags2: between an NMI and its IRET

        .equ    CR0_PE, 1 << 0
        .equ    CR0_NW, 1 << 29
        .equ    CR0_CD, 1 << 30
        .equ    CR0_PG, 1 << 31
        .equ    CR4_PAE, 1 << 5
        .equ    CR4_DEFINED, 0x1107FC           # TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT FSGSBASE SMEP
        .equ    EFER_SCE, 1 << 0
        .equ    EFER_LME, 1 << 8
        .equ    MSR_FS_BASE, 0xC0000100
        .equ    MSR_KERNEL_GS_BASE, 0xC0000102
        .equ    MSR_TSC_AUX, 0xC0000103
        .equ    MSR_OF_LIBRARY, 1               # answers of msr.py: 0 = done, 1 = as the library does, 2 = #GP
        .equ    FLAT_CODE64, 0x00AF9B00         # present, DPL 0, execute/read, accessed, long, 4 KiB units
        .equ    FLAT_CODE32, 0x00CF9B00
        .equ    FLAT_DATA, 0x00CF9300

        .equ    VECTOR_NMI, 2
        .equ    VECTOR_UD, 6
        .equ    VECTOR_GP, 13

        .equ    CODE_SEG, ENV_SEGS + 1 * SEGMENT_SIZE
        .equ    STACK_SEG, ENV_SEGS + 2 * SEGMENT_SIZE
        .equ    GIB4, 1 << 32
        .equ    PAGE_SHIFT, 12
        .equ    PAGE, 1 << PAGE_SHIFT
        .equ    EXCP_HLT, 0x10001               # "leave the CPU loop", one past all vectors
        .equ    OP_MOVI_I32, 6                  # TCGOpcode
        .equ    OP_INSN_START, 0x81
        .equ    CC_OP_DYNAMIC, 0                # "cc_op itself says how", and the translator does not know
        .equ    IN_IDT, 2                       # error codes: the index is one of the IDT

# ----------------------------------------------------------------------------------------------------------------------
# void poke(int signal)
#
# The handler of the signal by which the kernel's timer and other threads reach the thread that runs the guest. It makes
# the current translation block end, and `cpu_exec_interrupt` leave the library. Because it runs on that very thread, no
# store of it can be lost between two instructions of the library that clear and test.
# ----------------------------------------------------------------------------------------------------------------------
poke:
        mov     byte ptr [rip + wanted_exit], 1
        mov     rax, [rip + kick_word]
        mov     word ptr [rax], 0xFFFF
        ret

# ----------------------------------------------------------------------------------------------------------------------
# bool cpu_exec_interrupt(CPUState *cpu, int interrupt_request)                                      CPUClass slot
#
# Called between translation blocks, never within one. Ends the run when that is wanted, otherwise delivers an NMI or
# the interrupt that `pick` takes from the local APIC. True = the guest's program counter has changed.
# With IF clear Python is not asked: STI, POPF and IRET end their block, so the question comes back in time.
# ----------------------------------------------------------------------------------------------------------------------
cpu_exec_interrupt:
        cmp     dword ptr [rip + wanted], 0
        jne     1f
        xor     eax, eax
        ret
1:      cmp     byte ptr [rip + wanted_exit], 0
        je      2f
        mov     byte ptr [rdi + CPU_EXIT_REQUEST], 1
        mov     rax, [rdi + CPU_UC]
        mov     byte ptr [rax + UC_STOP_REQUEST], 1
        xor     eax, eax
        ret
2:      push    rbx
        lea     rbx, [rdi + CPU_ENV]
        cmp     byte ptr [rip + wanted_nmi], 0
        je      3f
        test    dword ptr [rbx + ENV_HFLAGS2], HF2_NMI
        jnz     3f
        mov     byte ptr [rip + wanted_nmi], 0
        or      dword ptr [rbx + ENV_HFLAGS2], HF2_NMI
        mov     esi, VECTOR_NMI
        jmp     4f
3:      cmp     byte ptr [rip + wanted_interrupt], 0
        je      5f
        test    dword ptr [rbx + ENV_EFLAGS], IF
        jz      5f
        test    dword ptr [rbx + ENV_HFLAGS], HF_INHIBIT_IRQ
        jnz     5f
        call    [rip + pick]                    # vector, or -1
        test    eax, eax
        js      5f
        mov     esi, eax
4:      mov     rdi, rbx
        mov     edx, 1                          # an interrupt from outside
        call    [rip + lib_do_interrupt_x86_hardirq]
        call    one_stack_size
        mov     eax, 1
        pop     rbx
        ret
5:      xor     eax, eax
        pop     rbx
        ret

# ----------------------------------------------------------------------------------------------------------------------
# void cpu_exec_exit(CPUState *cpu)                                                                   CPUClass slot
#
# PAUSE leaves the CPU loop and would be re-entered inside the library at once. When another vCPU could use the time,
# end the run instead.
# ----------------------------------------------------------------------------------------------------------------------
cpu_exec_exit:
        cmp     byte ptr [rip + others_runnable], 0
        je      1f
        mov     rax, [rdi + CPU_UC]
        mov     byte ptr [rax + UC_STOP_REQUEST], 1
1:      jmp     [rip + lib_x86_cpu_exec_exit]

# ----------------------------------------------------------------------------------------------------------------------
# void deliver_exception(struct uc_struct *uc, uint32_t vector, void *unused)                         UC_HOOK_INTR
#
# The library has set exception_index, error_code and CR2 and asks what to do: what a CPU does.
# ----------------------------------------------------------------------------------------------------------------------
deliver_exception:
        mov     rdi, [rdi + UC_CPU]
        movzx   eax, byte ptr [rip + software_interrupt]
        mov     byte ptr [rip + software_interrupt], 0
        or      [rdi + CPU_ENV + ENV_EXCEPTION_IS_INT], eax
        push    rbx
        lea     rbx, [rdi + CPU_ENV]
        call    [rip + lib_x86_cpu_do_interrupt]
        call    one_stack_size
        pop     rbx
        ret

# An exception that switches stacks in 64-bit mode loads SS with 0, and "the stack is 32 bits wide" goes out. In 64-bit
# code that means nothing, but it is part of what blocks are found by: a kernel's code would exist twice, for exceptions
# and for system calls, and one would push the other out of the caches at every turn. rbx = env.
one_stack_size:
        mov     eax, [rbx + ENV_HFLAGS]
        test    eax, HF_CS64
        jz      1f
        or      eax, HF_SS32
        mov     [rbx + ENV_HFLAGS], eax
1:      ret

# ----------------------------------------------------------------------------------------------------------------------
# noreturn void helper_raise_interrupt(CPUX86State *env, int vector, int length)                      INT n, INT3
#
# The library moves EIP behind the instruction as soon as it sees exception_is_int, so an INT n that ends in #GP (its
# gate's DPL forbids it) would report the wrong address. Keep the flag aside until `deliver_exception`, which needs it
# to stack exception_next_eip.
# ----------------------------------------------------------------------------------------------------------------------
helper_raise_interrupt:
        mov     [rdi + CPU_EXCEPTION_INDEX - CPU_ENV], esi
        mov     dword ptr [rdi + ENV_ERROR_CODE], 0
        mov     dword ptr [rdi + ENV_EXCEPTION_IS_INT], 0
        movsxd  rdx, edx
        add     rdx, [rdi + ENV_EIP]
        mov     [rdi + ENV_EXCEPTION_NEXT_EIP], rdx
        mov     byte ptr [rip + software_interrupt], 1
        sub     rdi, CPU_ENV
        jmp     [rip + lib_cpu_loop_exit]

# ----------------------------------------------------------------------------------------------------------------------
# void helper_syscall(CPUX86State *env, int length)                                                   SYSCALL (SDM vol. 2)
#
# Unicorn only calls hooks here. #UD outside 64-bit mode (as on Intel) or without EFER.SCE.
# ----------------------------------------------------------------------------------------------------------------------
helper_syscall:
        test    dword ptr [rdi + ENV_HFLAGS], HF_CS64
        jz      1f
        test    dword ptr [rdi + ENV_EFER], EFER_SCE
        jz      1f
        push    rbx
        mov     rbx, rdi
        movsxd  rsi, esi
        add     rsi, [rbx + ENV_EIP]
        mov     [rbx + ENV_REGS + 8], rsi       # RCX = address of the next instruction
        call    [rip + lib_helper_read_eflags]
        and     eax, ~RF
        mov     [rbx + ENV_REGS + 8 * 11], rax  # R11 = RFLAGS

        mov     rcx, [rbx + ENV_FMASK]
        not     rcx
        and     rcx, rax                        # the new RFLAGS, written in the four parts in which they are kept
        mov     edx, ecx
        and     edx, ~(ARITHMETIC | DF)
        or      edx, 2
        mov     [rbx + ENV_EFLAGS], rdx
        mov     edx, ecx
        and     edx, ARITHMETIC
        mov     [rbx + ENV_CC_SRC], rdx
        mov     dword ptr [rbx + ENV_CC_OP], CC_OP_EFLAGS
        shr     ecx, 9
        and     ecx, 2
        neg     ecx
        inc     ecx
        mov     [rbx + ENV_DF], ecx             # DF clear: 1, set: -1

        movzx   edx, word ptr [rbx + ENV_STAR + 4]
        and     edx, 0xFFFC
        mov     [rbx + CODE_SEG + SEGMENT_SELECTOR], edx
        mov     qword ptr [rbx + CODE_SEG + SEGMENT_BASE], 0
        mov     dword ptr [rbx + CODE_SEG + SEGMENT_LIMIT], 0xFFFFFFFF
        mov     dword ptr [rbx + CODE_SEG + SEGMENT_FLAGS], FLAT_CODE64
        add     edx, 8
        mov     [rbx + STACK_SEG + SEGMENT_SELECTOR], edx
        mov     qword ptr [rbx + STACK_SEG + SEGMENT_BASE], 0
        mov     dword ptr [rbx + STACK_SEG + SEGMENT_LIMIT], 0xFFFFFFFF
        mov     dword ptr [rbx + STACK_SEG + SEGMENT_FLAGS], FLAT_DATA
        mov     edx, [rbx + ENV_HFLAGS]
        and     edx, ~(HF_CPL | HF_TF | HF_VM)
        or      edx, HF_CS64 | HF_CS32 | HF_SS32
        mov     [rbx + ENV_HFLAGS], edx
        mov     rdx, [rbx + ENV_LSTAR]
        mov     [rbx + ENV_EIP], rdx
        pop     rbx
        ret
1:      mov     esi, VECTOR_UD
        jmp     [rip + lib_raise_exception]

# ----------------------------------------------------------------------------------------------------------------------
# void helper_sysenter(CPUX86State *env, int length)                                                  SYSENTER (SDM vol. 2)
#
# Unicorn only calls hooks here too. 32-bit programs on a 64-bit Linux enter the kernel this way.
# ----------------------------------------------------------------------------------------------------------------------
helper_sysenter:
        mov     edx, [rdi + ENV_SYSENTER_CS]
        and     edx, 0xFFFC
        jz      2f
        and     qword ptr [rdi + ENV_EFLAGS], ~(VM | IF | RF)
        mov     [rdi + CODE_SEG + SEGMENT_SELECTOR], edx
        mov     qword ptr [rdi + CODE_SEG + SEGMENT_BASE], 0
        mov     dword ptr [rdi + CODE_SEG + SEGMENT_LIMIT], 0xFFFFFFFF
        add     edx, 8
        mov     [rdi + STACK_SEG + SEGMENT_SELECTOR], edx
        mov     qword ptr [rdi + STACK_SEG + SEGMENT_BASE], 0
        mov     dword ptr [rdi + STACK_SEG + SEGMENT_LIMIT], 0xFFFFFFFF
        mov     dword ptr [rdi + STACK_SEG + SEGMENT_FLAGS], FLAT_DATA
        mov     edx, [rdi + ENV_HFLAGS]
        and     edx, ~(HF_CPL | HF_TF | HF_VM | HF_ADDSEG)
        or      edx, HF_CS64 | HF_CS32 | HF_SS32
        mov     esi, FLAT_CODE64
        mov     rax, [rdi + ENV_SYSENTER_ESP]
        mov     rcx, [rdi + ENV_SYSENTER_EIP]
        test    edx, HF_LMA
        jnz     1f
        xor     edx, HF_CS64 | HF_ADDSEG        # ADDSEG, "a segment base may not be 0", is always safe to say
        mov     esi, FLAT_CODE32
        mov     eax, eax
        mov     ecx, ecx
1:      mov     [rdi + ENV_HFLAGS], edx
        mov     [rdi + CODE_SEG + SEGMENT_FLAGS], esi
        mov     [rdi + ENV_REGS + 8 * 4], rax   # RSP
        mov     [rdi + ENV_EIP], rcx
        ret
2:      mov     rcx, [rsp]                      # our return address in generated code
        jmp     general_protection

# ----------------------------------------------------------------------------------------------------------------------
# uint64_t helper_rdrand(CPUX86State *env)                                                            RDRAND
#
# The library answers from a Mersenne twister; a guest that seeds its keys from RDRAND deserves the host's own source.
# ----------------------------------------------------------------------------------------------------------------------
helper_rdrand:
        push    rbx
        sub     rsp, 16
        mov     rbx, rdi
        mov     rdi, rsp
        mov     esi, 8
        xor     edx, edx
        call    [rip + libc_getrandom]
        cmp     rax, 8
        jne     1f
        mov     qword ptr [rbx + ENV_CC_SRC], CF
        mov     rax, [rsp]
        jmp     2f
1:      mov     qword ptr [rbx + ENV_CC_SRC], 0 # CF clear: try again
        xor     eax, eax
2:      add     rsp, 16
        pop     rbx
        ret

# ----------------------------------------------------------------------------------------------------------------------
# noreturn void raise_exception_err(CPUX86State *env, int vector, int error_code)
#
# In long mode the library forms the error code of a faulty gate as vector * 16 + 2; it is vector * 8 + 2 in all modes.
# ----------------------------------------------------------------------------------------------------------------------
raise_exception_err:
        test    dword ptr [rdi + ENV_HFLAGS], HF_LMA
        jz      1f
        mov     eax, edx
        and     eax, 7
        cmp     eax, IN_IDT
        jne     1f
        shr     edx, 1
        inc     edx
1:      jmp     [rip + lib_raise_exception_err]

# ----------------------------------------------------------------------------------------------------------------------
# uint64_t helper_in{b,w,l}(CPUX86State *env, uint32_t port)                                          IN, INS
# void helper_out{b,w,l}(CPUX86State *env, uint32_t port, uint32_t value)                             OUT, OUTS
#
# Unicorn lets every program do port I/O. A CPU asks IOPL, and with too little privilege the I/O bitmap in the TSS
# (SDM vol. 1, "I/O-Sensitive Instructions"); helper_check_io* looks there and raises #GP.
# ----------------------------------------------------------------------------------------------------------------------
        .macro  PORT_ACCESS direction, size
helper_\direction\size:
        mov     eax, [rdi + ENV_HFLAGS]
        test    eax, HF_PE
        jz      1f
        mov     ecx, [rdi + ENV_EFLAGS]
        test    ecx, VM
        jnz     2f
        shr     ecx, IOPL_BIT
        and     ecx, 3
        and     eax, HF_CPL
        cmp     eax, ecx
        ja      2f
1:      jmp     [rip + lib_helper_\direction\size]
2:      push    rbx
        push    rbp
        push    r12
        mov     rbx, rdi
        mov     ebp, esi
        mov     r12d, edx
        sub     rdi, CPU_ENV
        mov     rsi, [rsp + 24]                 # our return address in generated code: it knows the guest's EIP
        xor     edx, edx
        call    [rip + lib_cpu_restore_state]
        mov     rdi, rbx
        mov     esi, ebp
        call    [rip + lib_helper_check_io\size]
        mov     rdi, rbx
        mov     esi, ebp
        mov     edx, r12d
        pop     r12
        pop     rbp
        pop     rbx
        jmp     [rip + lib_helper_\direction\size]
        .endm

        PORT_ACCESS in, b
        PORT_ACCESS in, w
        PORT_ACCESS in, l
        PORT_ACCESS out, b
        PORT_ACCESS out, w
        PORT_ACCESS out, l

# ----------------------------------------------------------------------------------------------------------------------
# uint64_t helper_read_crN(CPUX86State *env, int number)                                              MOV r64, CRn
#
# CR8 is the task priority of the local APIC; the library has none.
# ----------------------------------------------------------------------------------------------------------------------
helper_read_crN:
        cmp     esi, 8
        je      1f
        jmp     [rip + lib_helper_read_crN]
1:      sub     rsp, 8
        call    [rip + read_tpr]
        mov     eax, eax
        add     rsp, 8
        ret

# ----------------------------------------------------------------------------------------------------------------------
# void helper_write_crN(CPUX86State *env, int number, uint64_t value)                                 MOV CRn, LMSW
#
# The library takes any value. #GP for reserved bits and impossible combinations (SDM vol. 3, "Control Registers").
# ----------------------------------------------------------------------------------------------------------------------
helper_write_crN:
        cmp     esi, 3
        je      4f
        cmp     esi, 2
        je      4f
        cmp     esi, 4
        je      2f
        cmp     esi, 8
        je      3f
        mov     rax, rdx                        # CR0
        shr     rax, 32
        jnz     5f
        mov     eax, edx
        and     eax, CR0_PE | CR0_PG
        cmp     eax, CR0_PG
        je      5f
        mov     eax, edx
        and     eax, CR0_CD | CR0_NW
        cmp     eax, CR0_NW
        je      5f
        test    edx, CR0_PG
        jnz     1f
        test    dword ptr [rdi + ENV_HFLAGS], HF_CS64
        jnz     5f                              # paging cannot be left from 64-bit code
        jmp     4f
1:      test    dword ptr [rdi + ENV_EFER], EFER_LME
        jz      4f
        test    dword ptr [rdi + ENV_CR + 8 * 4], CR4_PAE
        jz      5f
        jmp     4f
2:      test    rdx, ~CR4_DEFINED
        jnz     5f
        test    edx, CR4_PAE
        jnz     4f
        test    dword ptr [rdi + ENV_HFLAGS], HF_LMA
        jnz     5f
        jmp     4f
3:      test    rdx, ~15                        # CR8: the task priority of the local APIC
        jnz     5f
        mov     edi, edx
        jmp     [rip + write_tpr]
4:      jmp     [rip + lib_helper_write_crN]
5:      mov     rcx, [rsp]
        jmp     general_protection

# ----------------------------------------------------------------------------------------------------------------------
# void helper_rdmsr(CPUX86State *env), void helper_wrmsr(CPUX86State *env)                            RDMSR, WRMSR
#
# The library answers 0 for what it does not know and drops what is written there. The segment bases, which change at
# every task switch, and the registers of SYSCALL are checked here; the rest goes through msr.py.
# ----------------------------------------------------------------------------------------------------------------------
helper_rdmsr:
        mov     eax, [rdi + ENV_REGS + 8]
        sub     eax, MSR_FS_BASE
        cmp     eax, MSR_TSC_AUX - MSR_FS_BASE
        jbe     1f
        push    rdi
        call    [rip + read_msr]
        pop     rdi
        cmp     eax, MSR_OF_LIBRARY
        ja      2f
        je      1f
        ret
1:      jmp     [rip + lib_helper_rdmsr]
2:      mov     rcx, [rsp]
        jmp     general_protection

helper_wrmsr:
        mov     eax, [rdi + ENV_REGS + 8]
        sub     eax, MSR_FS_BASE
        cmp     eax, MSR_KERNEL_GS_BASE - MSR_FS_BASE
        ja      1f
        mov     eax, [rdi + ENV_REGS + 8 * 2]   # canonical: bits 63-47 are all the same
        sar     eax, 15
        inc     eax
        cmp     eax, 1
        jbe     2f
        jmp     3f
1:      push    rdi
        call    [rip + write_msr]
        pop     rdi
        cmp     eax, MSR_OF_LIBRARY
        ja      3f
        je      2f
        ret
2:      jmp     [rip + lib_helper_wrmsr]
3:      mov     rcx, [rsp]
        jmp     general_protection

# What the cells of the functions in Python hold while there is no VM.
nobody:
        mov     eax, MSR_OF_LIBRARY
        ret

# Raise #GP(0) in the guest: rdi = env, rcx = the place in generated code that knows the guest's EIP.
general_protection:
        mov     esi, VECTOR_GP
        xor     edx, edx
        jmp     [rip + lib_raise_exception_err_ra]

# ----------------------------------------------------------------------------------------------------------------------
# void tcg_gen_callN(TCGContext *ctx, void *function, TCGTemp *result, int count, TCGTemp **arguments)
# TCGLabel *gen_new_label(TCGContext *ctx)
#
# These run while a block is translated. The translator knows how the arithmetic flags follow from the last operation
# and tells env.cc_op only when somebody will look. It forgets that CMPXCHG8B and CMPXCHG16B look, and that LOOPE and
# LOOPNE leave early when the counter is 0: both find the cc_op of an earlier instruction, and flags that may be
# anything, an operand for instance. So, before the call of the one and the first label of the other, store what the
# translator knew when the instruction began. It may be stored at the beginning of any instruction.
# ----------------------------------------------------------------------------------------------------------------------
tcg_gen_callN:
        cmp     rsi, [rip + lib_helper_cmpxchg16b_unlocked]
        je      1f
        cmp     rsi, [rip + lib_helper_cmpxchg8b_unlocked]
        jne     3f
1:      mov     rax, [rdi + TCG_LAST_OP]
2:      sub     rax, TCGOP_LINK
        cmp     byte ptr [rax], OP_INSN_START   # every instruction has one
        je      4f
        mov     rax, [rax + TCGOP_PREVIOUS]
        jmp     2b
3:      jmp     [rip + lib_tcg_gen_callN]
4:      push    rdi
        push    rsi
        push    rdx
        push    rcx
        push    r8
        call    tell_cc_op
        pop     r8
        pop     rcx
        pop     rdx
        pop     rsi
        pop     rdi
        jmp     [rip + lib_tcg_gen_callN]

gen_new_label:
        mov     rax, [rdi + TCG_LAST_OP]
        lea     rcx, [rdi + TCG_FIRST_OP]
        cmp     rax, rcx
        je      1f                              # the block is empty so far
        sub     rax, TCGOP_LINK
        cmp     byte ptr [rax], OP_INSN_START
        jne     1f
        push    rdi
        call    tell_cc_op
        pop     rdi
1:      jmp     [rip + lib_gen_new_label]

# Emit cc_op = what it was when the instruction began. rdi = the context, rax = the operation that begins it.
tell_cc_op:
        mov     ecx, [rax + TCGOP_ARGUMENTS + 8]   # the first one is the program counter
        cmp     ecx, CC_OP_DYNAMIC
        je      1f
        mov     esi, OP_MOVI_I32
        mov     rdx, [rdi + TCG_CPU_CC_OP]
        add     rdx, rdi
        jmp     [rip + lib_tcg_gen_op2]
1:      ret

# ----------------------------------------------------------------------------------------------------------------------
# uint32_t cpu_cc_compute_all(CPUX86State *env, int cc_op)
#
# What this gives is made part of RFLAGS, by OR, so nothing but arithmetic flags may be in it, whatever cc_src holds.
# Otherwise an operand of a program could become its I/O privilege.
# ----------------------------------------------------------------------------------------------------------------------
cpu_cc_compute_all:
        cmp     esi, CC_OP_EFLAGS
        jne     1f
        mov     eax, [rdi + ENV_CC_SRC]
        and     eax, ARITHMETIC
        ret
1:      jmp     [rip + lib_cpu_cc_compute_all]

# ----------------------------------------------------------------------------------------------------------------------
# void helper_ldmxcsr(CPUX86State *env, uint32_t value)                                               LDMXCSR
# void update_mxcsr_status(CPUX86State *env)
#
# Reserved bits are a #GP. And the library applies MXCSR.FZ, "flush to zero", to the x87 unit instead of to SSE.
# ----------------------------------------------------------------------------------------------------------------------
helper_ldmxcsr:
        test    esi, 0xFFFF0000
        jnz     1f
        jmp     [rip + lib_helper_ldmxcsr]
1:      mov     rcx, [rsp]
        jmp     general_protection

update_mxcsr_status:
        push    rbx
        mov     rbx, rdi
        call    [rip + lib_update_mxcsr_status]
        mov     eax, [rbx + ENV_MXCSR]
        shr     eax, 15
        and     eax, 1
        mov     [rbx + ENV_SSE_STATUS + FLOAT_FLUSH_TO_ZERO], al
        mov     byte ptr [rbx + ENV_FP_STATUS + FLOAT_FLUSH_TO_ZERO], 0
        pop     rbx
        ret

# ----------------------------------------------------------------------------------------------------------------------
# noreturn void abort(void)                                                                          C library
#
# The library gives up on some states that only a hostile guest reaches (a task-state segment that is none). That must
# end this VM, not the process: leave the CPU loop instead, and let the runner report it.
# ----------------------------------------------------------------------------------------------------------------------
abort:
        mov     rdi, [rip + cpu]
        test    rdi, rdi
        jz      1f
        mov     rcx, [rdi + CPU_UC]
        cmp     dword ptr [rcx + UC_NESTED_LEVEL], 0
        je      1f                              # not inside uc_emu_start: there is nowhere to go
        mov     rax, [rsp]
        mov     [rip + gave_up], rax
        mov     dword ptr [rdi + CPU_EXCEPTION_INDEX], EXCP_HLT
        mov     byte ptr [rcx + UC_STOP_REQUEST], 1
        jmp     [rip + lib_cpu_loop_exit]
1:      jmp     [rip + libc_abort]

# ----------------------------------------------------------------------------------------------------------------------
# MemoryRegion *memory_mapping(struct uc_struct *uc, uint64_t addr)                                   uc_struct slot
#
# Every access that misses the inline path asks this; nearly always the answer is RAM.
# ----------------------------------------------------------------------------------------------------------------------
memory_mapping:
        cmp     rsi, [rip + low_ram_size]
        jae     1f
        mov     rax, [rip + low_ram_region]
        ret
1:      movabs  rax, GIB4
        mov     rdx, rsi
        sub     rdx, rax
        cmp     rdx, [rip + high_ram_size]
        jae     2f
        mov     rax, [rip + high_ram_region]
        ret
2:      jmp     [rip + lib_find_memory_mapping]

# ----------------------------------------------------------------------------------------------------------------------
# void tlb_reset_dirty_by_vaddr(CPUState *cpu, uint64_t addr, uint64_t size)
#
# Called when code has been translated, to notice later stores to it. The library looks for the virtual page the code
# was fetched from; a writable alias of the same physical page would stay unnoticed. Re-arm all of RAM.
# ----------------------------------------------------------------------------------------------------------------------
tlb_reset_dirty_by_vaddr:
        xor     esi, esi
        or      rdx, -1
        jmp     [rip + lib_tlb_reset_dirty]

# ----------------------------------------------------------------------------------------------------------------------
# void tlb_protect_code(struct uc_struct *uc, uint64_t ram_addr)
# void tlb_unprotect_code(struct uc_struct *uc, uint64_t ram_addr)
#
# A page gets its first translation; it has lost its last. The library does nothing here; the table remembers.
# ----------------------------------------------------------------------------------------------------------------------
tlb_protect_code:
        cmp     rsi, [rip + ram_size]
        jae     1f
        shr     rsi, PAGE_SHIFT
        add     rsi, [rip + holds_code]
        mov     byte ptr [rsi], 1
1:      ret

tlb_unprotect_code:
        cmp     rsi, [rip + ram_size]
        jae     1f
        shr     rsi, PAGE_SHIFT
        add     rsi, [rip + holds_code]
        mov     byte ptr [rsi], 0
1:      ret

# ----------------------------------------------------------------------------------------------------------------------
# void tlb_set_dirty(CPUState *cpu, uint64_t addr)
#
# After a store that had to ask whether it changes code (TLBE_NOTDIRTY): let the next one to this page through without.
# The library does that when this mapping of the page cannot be executed, whatever else the page holds, and would not
# see a store to the second of two functions. Let it through when the page holds no code. Each of the three tables.
# ----------------------------------------------------------------------------------------------------------------------
tlb_set_dirty:
        add     rdi, CPU_ENV
        and     rsi, -PAGE
        lea     r8, [rsi + TLBE_NOTDIRTY]
        mov     ecx, TLB_MODES
1:      mov     r10, rsi
        shr     r10, 6                          # page number * TLBE_SIZE
        and     r10, [rdi + TLB_MASK]
        add     r10, [rdi + TLB_TABLE]
        cmp     r8, [r10 + TLBE_ADDR_WRITE]
        jne     2f
        mov     rax, rsi
        add     rax, [r10 + TLBE_ADDEND]
        sub     rax, [rip + ram]
        cmp     rax, [rip + ram_size]
        jae     2f
        shr     rax, PAGE_SHIFT
        add     rax, [rip + holds_code]
        cmp     byte ptr [rax], 0
        jne     2f
        mov     [r10 + TLBE_ADDR_WRITE], rsi
2:      add     rdi, TLB_FAST_SIZE
        dec     ecx
        jnz     1b
        ret

        .balign 4096, 0xCC
# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------
cells:
wanted:                                         # any of the next four bytes
wanted_exit:            .byte 0                 # leave the library: something for the scheduler to look at
wanted_interrupt:       .byte 0                 # the local APIC of the running vCPU has a deliverable interrupt
wanted_nmi:             .byte 0
                        .byte 0
others_runnable:        .byte 0                 # another vCPU waits for the CPU
software_interrupt:     .byte 0                 # between helper_raise_interrupt and deliver_exception
                        .balign 8
kick_word:              .quad 0                 # where a negative word ends the translation block
nowhere:                .quad 0                 # what kick_word points to while there is no VM
low_ram_size:           .quad 0
low_ram_region:         .quad 0
high_ram_size:          .quad 0                 # from 4 GiB
high_ram_region:        .quad 0
ram:                    .quad 0                 # where guest RAM begins in this process
ram_size:               .quad 0
holds_code:             .quad 0                 # a table: one byte for each page of RAM, 1 = it holds translated code
cpu:                    .quad 0                 # the CPUState of the VM, if there is one
gave_up:                .quad 0                 # where in the library `abort` was called

# Functions in Python.
pick:                   .quad 0                 # int pick(void): the vector to deliver, or -1
read_tpr:               .quad 0                 # int read_tpr(void): CR8
write_tpr:              .quad 0                 # void write_tpr(int)
read_msr:               .quad 0                 # int read_msr(void): MSR_*; registers as in RDMSR
write_msr:              .quad 0                 # int write_msr(void)


# Filled with the addresses of functions: `lib_` of the library, `libc_` of the C library.
lib_cpu_cc_compute_all: .quad 0
lib_cpu_loop_exit:      .quad 0
lib_cpu_restore_state:  .quad 0
lib_do_interrupt_x86_hardirq: .quad 0
lib_find_memory_mapping: .quad 0
lib_gen_new_label:      .quad 0
lib_helper_check_iob:   .quad 0
lib_helper_check_iol:   .quad 0
lib_helper_check_iow:   .quad 0
lib_helper_cmpxchg16b_unlocked: .quad 0
lib_helper_cmpxchg8b_unlocked: .quad 0
lib_helper_inb:         .quad 0
lib_helper_inl:         .quad 0
lib_helper_inw:         .quad 0
lib_helper_ldmxcsr:     .quad 0
lib_helper_outb:        .quad 0
lib_helper_outl:        .quad 0
lib_helper_outw:        .quad 0
lib_helper_read_crN:    .quad 0
lib_helper_rdmsr:       .quad 0
lib_helper_read_eflags: .quad 0
lib_helper_write_crN:   .quad 0
lib_helper_wrmsr:       .quad 0
lib_raise_exception:    .quad 0
lib_raise_exception_err: .quad 0
lib_raise_exception_err_ra: .quad 0
lib_tcg_gen_callN:      .quad 0
lib_tcg_gen_op2:        .quad 0
lib_tlb_reset_dirty:    .quad 0
lib_update_mxcsr_status: .quad 0
lib_x86_cpu_do_interrupt: .quad 0
lib_x86_cpu_exec_exit:  .quad 0
libc_abort:             .quad 0
libc_getrandom:         .quad 0
cells_end:
