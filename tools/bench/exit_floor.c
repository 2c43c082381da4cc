/* What an exit to user space costs at least: a VMM that counts exits, and does nothing else about them.
 * exit_floor CODE END: runs a real-mode program, given in hexadecimal, until it writes to port END; prints nanoseconds
 * per exit. The same program runs on the kvm engine (exits.py). */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum { MEMORY = 1 << 20, START = 0x1000 };

static void must(int result, const char *what) {
    if (result < 0) { perror(what); exit(1); }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int kvm = open("/dev/kvm", O_RDWR), vm = ioctl(kvm, KVM_CREATE_VM, 0);
    must(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
    must(ioctl(vm, KVM_CREATE_IRQCHIP), "KVM_CREATE_IRQCHIP");
    unsigned char *memory = mmap(0, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < strlen(argv[1]) / 2; i++) sscanf(argv[1] + 2 * i, "%2hhx", memory + START + i);
    struct kvm_userspace_memory_region slot = {.memory_size = MEMORY, .userspace_addr = (unsigned long)memory};
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
    int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    struct kvm_run *run = mmap(0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    struct kvm_regs regs = {.rip = START, .rflags = 2};
    struct kvm_sregs sregs;
    must(ioctl(cpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    sregs.cs.base = sregs.cs.selector = 0;
    sregs.ds.limit = 0xffffffff;
    sregs.ds.g = 1;
    must(ioctl(cpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    must(ioctl(cpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

    long end = atol(argv[2]), exits = 0;
    double began = now();
    for (;;) {
        must(ioctl(cpu, KVM_RUN, 0), "KVM_RUN");
        exits++;
        if (run->exit_reason == KVM_EXIT_MMIO) continue;
        if (run->exit_reason != KVM_EXIT_IO || run->io.port == end) break;
    }
    double took = now() - began;
    if (run->exit_reason != KVM_EXIT_IO) {
        fprintf(stderr, "exit number %ld has reason %u\n", exits, run->exit_reason);
        return 1;
    }
    printf("%.0f\n", took / exits);
    return 0;
}
