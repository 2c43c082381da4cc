#!/bin/sh
# PID 1 of Hibana's initramfs. A second archive may bring /job/run: then that is what this microVM is for. Without one,
# there is a shell on the serial console. Whatever was run, its end is the end of the microVM.
#
# The kernel's command line may ask for more: `ip=CLIENT::GATEWAY:NETMASK::DEVICE::DNS` for an address, and
# `root=/dev/vda` for a root file system, which goes on with its own init (Documentation/admin-guide/nfs/nfsroot.rst,
# Documentation/admin-guide/kernel-parameters.txt). A job then moves to /run/job/run.

export PATH=/bin:/usr/bin HOME=/ PS1='hibana:\w# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
hostname hibana

load_drivers() {
    modprobe virtio_mmio
    for alias in /sys/bus/virtio/devices/*/modalias; do
        read -r name <"$alias"
        modprobe "$name" 2>/dev/null || echo "init: no driver for $name"
    done
}

set_address() {
    IFS=:
    set -- $1
    unset IFS
    ifconfig lo up
    ifconfig "$6" "$1" netmask "$4" up
    [ -z "$3" ] || route add default gw "$3"
    [ -z "$8" ] || echo "nameserver $8" >/etc/resolv.conf
}

enter_root() {
    if ! mount -t "$rootfstype" -o "$mode" "$root" /mnt; then
        echo "init: $root cannot be mounted. There is:" /dev/vd*
        reboot -f
    fi
    mount -t tmpfs run /mnt/run
    for kept in /job /etc/resolv.conf; do
        [ ! -e "$kept" ] || cp -a "$kept" /mnt/run
    done
    for mounted in dev proc sys; do
        mount --move "/$mounted" "/mnt/$mounted"
    done
    exec switch_root /mnt "$init"
}

root='' rootfstype=ext4 mode=ro init=/sbin/init address=''
read -r cmdline </proc/cmdline
for word in $cmdline; do
    case $word in
        root=*) root=${word#*=} ;;
        rootfstype=*) rootfstype=${word#*=} ;;
        rw | ro) mode=$word ;;
        init=*) init=${word#*=} ;;
        ip=*) address=${word#*=} ;;
    esac
done

for device in /sys/bus/acpi/devices/LNRO0005:*; do
    if [ -e "$device" ]; then
        load_drivers
        break
    fi
done
[ -z "$address" ] || set_address "$address"
[ -z "$root" ] || enter_root

mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
if [ -x /job/run ]; then
    /job/run
else
    echo "$(uname -sr), CPUs: $(nproc). The microVM ends with this shell: exit, or reboot -f."
    # /dev/console cannot be a controlling terminal, so without this there is no Ctrl-C and no job control.
    setsid -c sh -i <>/dev/ttyS0 >&0 2>&1
fi

stty opost # returns when the last byte has left the port
reboot -f
