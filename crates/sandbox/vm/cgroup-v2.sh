#!/bin/sh
# Runs the cgroup and Landlock tests of this crate on a kernel of its own, in an emulated machine: for hosts whose
# controllers are bound to cgroup version 1, and to see an older Landlock. Not part of `cargo xtask test`; takes about
# a minute, needs no privileges and no /dev/kvm.
#
#   apt-get install qemu-system-x86 cpio && apt-get download linux-image-6.1.0-NN-cloud-amd64   (or any other kernel)
#   dpkg -x linux-image-*.deb kernel
#   crates/sandbox/vm/cgroup-v2.sh kernel/boot/vmlinuz-*
#
# Set LANDLOCK to the version the kernel has (default 2, that of Linux 6.1).
set -eu
kernel=$1
crate=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

binary=${TEST_BINARY:-$(cd "$crate" && cargo test --lib --no-run --message-format=json |
    sed -n 's/.*"name":"requiem_sandbox".*"executable":"\([^"]*\)".*/\1/p')}

# An initramfs of the test binary, a few programs that the tests start, and the libraries of all of them.
mkdir -p "$work/root/bin" "$work/root/usr/bin" "$work/root/proc" "$work/root/sys" "$work/root/tmp" "$work/root/dev"
cp "$binary" "$work/root/bin/tests"
for program in sh mount umount sleep head tail wc cat true mkdir; do
    cp -L "/bin/$program" "$work/root/bin/$program" 2>/dev/null || cp -L "/usr/bin/$program" "$work/root/bin/$program"
    ln -sf "../../bin/$program" "$work/root/usr/bin/$program"
done
for file in "$work"/root/bin/*; do
    { ldd "$file" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$work/root$(dirname "$library")"
        cp -nL "$library" "$work/root$library"
    done
done
cat > "$work/root/init" <<'INIT'
#!/bin/sh
export PATH=/bin RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
LANDLOCK=$(cat /landlock)
echo "+memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
# A service as a supervisor would start it: its own group holds its process, and passes nothing on yet.
mkdir /sys/fs/cgroup/service
sh -c 'echo 0 > /sys/fs/cgroup/service/cgroup.procs
    REQUIEM_TEST_EXPECT=cgroup=v2 tests --test-threads=1 cgroup && echo SERVICE-OK'
cat /sys/fs/cgroup/service/cgroup.subtree_control
# A stranger in the same group: nobody may be moved, and the reason says so.
mkdir /sys/fs/cgroup/crowded
sleep 1000 &
echo $! > /sys/fs/cgroup/crowded/cgroup.procs
sh -c 'echo 0 > /sys/fs/cgroup/crowded/cgroup.procs
    REQUIEM_TEST_EXPECT=cgroup=none tests --test-threads=1 --nocapture cgroup::tests::limits_are_read_back' | cat
REQUIEM_TEST_EXPECT=landlock=$LANDLOCK tests landlock && echo LANDLOCK-OK
REQUIEM_TEST_EXPECT=landlock=$LANDLOCK tests --nocapture every_kernel_enforces_what_it_can && echo OLD-KERNEL-OK
echo o > /proc/sysrq-trigger
sleep 60
INIT
chmod +x "$work/root/init"
echo "${LANDLOCK:-2}" > "$work/root/landlock"
(cd "$work/root" && find . | cpio --quiet -o -H newc | gzip -1) > "$work/initrd"
qemu-system-x86_64 -accel tcg -m 1024 -smp 2 -nographic -no-reboot -kernel "$kernel" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet panic=-1 rdinit=/init" | tee "$work/log"
for mark in SERVICE-OK LANDLOCK-OK OLD-KERNEL-OK "lives in the executor's own group"; do
    grep -q "$mark" "$work/log" || { echo "missing: $mark" >&2; exit 1; }
done
