#!/bin/sh
# PID 1 of the box: a machine that QEMU emulates, and in which KVM works. Disks, as tools/box/machine.py plugs them in:
# a Debian, the checkout, and what the checkout has in build/. /job/checkout says where on the host the checkout is; here
# it is in the same place. /job/run is what this box is for; what it writes leaves by the port that /job/port names, which
# may be a terminal, and the files below build/box-out, as a tar archive, by another one. The kernel's own messages go to
# the serial console.

export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
modprobe -a virtio_pci virtio_blk virtio_console

try() { # for so many 20ths of a second
    for _ in $(seq "$1"); do
        eval "$2" && return
        usleep 50000
    done
    return 1
}

await() {
    try 1200 "$1" && return
    echo "init: in vain: $1"
    poweroff -f
}

read -r checkout </job/checkout
read -r port </job/port
await '[ -b /dev/vdc ] && [ -c "$port" ] && [ -c /dev/vport0p2 ]'
mkdir -p /work /made
mount -t ext4 /dev/vda /mnt
mount -t ext4 /dev/vdb /work
mount -t ext4 /dev/vdc /made
mount --bind /work/tmp /mnt/tmp
mkdir -p "/mnt$checkout"
mount --bind /work/checkout "/mnt$checkout"
for made in guest runtime venv; do
    mount --bind "/made/$made" "/mnt$checkout/build/$made"
done
for mounted in dev proc sys; do
    mount --rbind "/$mounted" "/mnt/$mounted"
done
mount -t tmpfs run /mnt/run
mkdir -p /mnt/dev/pts /mnt/dev/shm
mount -t devpts pts /mnt/dev/pts
mount -t tmpfs shm /mnt/dev/shm
mount -t cgroup2 cgroup /mnt/sys/fs/cgroup
cp -a /job /mnt/run
hostname box
ifconfig lo up

# KVM keeps the clock rate that it finds when it is loaded, and the kernel's first guess may be off: then guests wait for
# interrupts that come seconds late. But the counters of several processors it may find out of step, and never trusts.
trusted='[ "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)" = tsc ]'
if [ "$(nproc)" = 1 ]; then
    await "$trusted"
else
    try 60 "$trusted"
fi
modprobe -a kvm_amd tun loop
await '[ -c /dev/kvm ]'

chroot /mnt /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=linux HIBANA_BOX=1 "PYTHONPATH=$checkout:$checkout/src" \
    "PATH=$checkout/build/bin:$checkout/build/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin" \
    sh -c 'cd "$1" && exec /run/job/run' box "$checkout" <>"$port" >&0 2>&1
tar -c -C "/work/checkout/build/box-out" . >/dev/vport0p2
poweroff -f
