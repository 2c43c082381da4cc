# Bytes for the console that wait in a buffer. console.py says why, and what makes it correct.
#
# Conventions as in thunks.S. `room` is 0 while nothing may wait: then both ports are like any other.

        .intel_syntax noprefix
        .code64
        .text

# ----------------------------------------------------------------------------------------------------------------------
# void cpu_outb(struct uc_struct *uc, uint32_t port, uint8_t value)                     after the check of privilege
#
# Put a byte for the console into the buffer.
# ----------------------------------------------------------------------------------------------------------------------
cpu_outb:
        cmp     esi, [rip + data_port]
        jne     1f
        mov     rax, [rip + waiting]
        cmp     rax, [rip + room]
        jae     1f
        mov     rcx, [rip + buffer]
        mov     [rcx + rax], dl
        inc     rax
        mov     [rip + waiting], rax
        ret
1:      jmp     [rip + lib_cpu_outb]

# ----------------------------------------------------------------------------------------------------------------------
# uint8_t cpu_inb(struct uc_struct *uc, uint32_t port)                                  after the check of privilege
#
# Answer the question whether the console can take a byte.
# ----------------------------------------------------------------------------------------------------------------------
cpu_inb:
        cmp     esi, [rip + status_port]
        jne     1f
        cmp     qword ptr [rip + room], 0
        je      1f
        movzx   eax, byte ptr [rip + status]
        ret
1:      jmp     [rip + lib_cpu_inb]

        .balign 4096, 0xCC
# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------
cells:
data_port:              .quad 0
status_port:            .quad 0
status:                 .quad 0                 # what reading that port gives
buffer:                 .quad 0
room:                   .quad 0                 # how many bytes the buffer may hold
waiting:                .quad 0                 # how many it holds

lib_cpu_inb:            .quad 0
lib_cpu_outb:           .quad 0
cells_end:
