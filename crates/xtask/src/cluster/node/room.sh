# Furnishes the mount namespace of a node and becomes its first process. See room.rs.
# $1 the node's folder; then the folders of pause, the Kubernetes programs, containerd, runc and the CNI plugins.
set -eu
# -n: no record in /run, which is changing under it.
here=$1 pause=$2 kubernetes=$3 containerd=$4 runc=$5 cni=$6
mkdir -p "$here/run" "$here/var/lib" "$here/var/log" "$here/var/tmp"
chmod 1777 "$here/var/tmp"
# A /run and a /var of its own: sockets, locks, images, volumes and logs of this node meet nothing of the host's. The programs
# are mounted first, since the host's /var may be where they lie.
mount -n -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$here/run"
for name in pause kubernetes containerd runc cni; do
    mkdir -p "$here/run/requiem/$name"
    eval "mount -n --bind \"\$$name\" \"$here/run/requiem/$name\""
done
mkdir "$here/run/requiem/var"
mount -n --bind "$here/var" "$here/run/requiem/var"
mount -n --move "$here/run" /run
mount -n --move /run/requiem/var /var
ln -s /run /var/run 2>/dev/null || [ -L /var/run ]
# A kubelet sets these for the whole machine. Shown what it wants to see, it sets nothing.
mkdir /run/requiem/sysctl
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=/run/requiem/sysctl/$(echo "${setting%%=*}" | tr / .)
    echo "${setting#*=}" >"$file"
    mount -n --bind "$file" "/proc/sys/${setting%%=*}"
done
# A container with a user namespace may mount /proc only where an unobstructed one is to be seen.
mkdir /run/requiem/proc
mount -n -t proc proc /run/requiem/proc
mount -n --make-rshared /
ip link set lo up
echo ready
exec /run/requiem/pause/pause
