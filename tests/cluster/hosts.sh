#!/bin/bash
# Makes a laboratory's machines out of namespaces of this one, for the recipes of clusters/ to be tried on:
#
#   LAB=FOLDER PACKAGES=.../site-packages HIDE=CHECKOUT NET=10.232.7 tests/cluster/hosts.sh up 3
#   ... hosts.sh kill 3      power one off: its processes die at once, its network is gone
#   ... hosts.sh up 3 3      the third of three again
#   ... hosts.sh down        end all
#
# Hosts are k1 ..., at $NET.11 ...; each has a network, processes, a name, a home, /tmp and /dev/shm of its own, and its sshd lets in LAB/key.
# /mnt/shared is one folder for all, as NFS would be; /mnt/env an environment with what is in PACKAGES. The checkout is not there: what a host
# knows of this project is what a recipe copies. Needs root, iproute2, openssh-server; nothing leaves this machine.
set -euo pipefail
: "${LAB:?}" "${NET:?}"
tag=kh${NET##*.}  # of the names of networks, which are this machine's

first() { cat "$LAB/$1/pid"; }  # unshare; its child is the host's first process, with which all others of the host end

power_off() {
  [ -f "$LAB/$1/pid" ] || return 0
  local outer inner
  outer=$(first "$1")
  inner=$(cat "/proc/$outer/task/$outer/children" 2> /dev/null || true)
  kill -9 $inner "$outer" 2> /dev/null || true
  while [ -e "/proc/$outer" ]; do sleep 0.05; done
  ip netns del "$tag$1" 2> /dev/null || true
  ip link del "$tag$1" 2> /dev/null || true
  rm "$LAB/$1/pid"
}

power_on() {
  local host=k$1 here=$LAB/k$1
  mkdir -p "$here/home/.ssh"
  chmod 700 "$here/home/.ssh"
  cp "$LAB/key.pub" "$here/home/.ssh/authorized_keys"
  touch "$here/home/.bashrc"
  [ -f "$here/hostkey" ] || ssh-keygen -q -t ed25519 -N '' -f "$here/hostkey"
  ip netns add "$tag$host"
  ip link add "$tag$host" type veth peer name eth0 netns "$tag$host"
  ip link set "$tag$host" master "$tag" up
  ip -n "$tag$host" addr add "$NET.1$1/24" dev eth0
  ip -n "$tag$host" link set eth0 up
  ip -n "$tag$host" link set lo up
  cat > "$here/sshd_config" << END
ListenAddress $NET.1$1
HostKey /mnt/host/hostkey
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
Subsystem sftp internal-sftp
END
  cat > "$here/start.sh" << END
set -e
hostname $host
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/host /mnt/shared /mnt/env /mnt/packages
mount --bind $here /mnt/host
mount --bind $LAB/shared /mnt/shared
mount --bind $LAB/env /mnt/env
mount --bind $PACKAGES /mnt/packages
mount --bind $LAB/names /etc/hosts
mount --bind $LAB/users /etc/passwd
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount -t tmpfs tmpfs $HIDE
mount -t tmpfs -o size=4g,mode=1777 tmpfs /tmp
mount -t tmpfs -o size=2g,mode=1777 tmpfs /dev/shm
cd /mnt/host/home
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt/host/home /usr/sbin/sshd -D -e -f /mnt/host/sshd_config
END
  setsid ip netns exec "$tag$host" unshare --pid --fork --kill-child --mount --mount-proc --uts bash "$here/start.sh" \
    > "$here/sshd.log" 2>&1 < /dev/null &
  echo $! > "$here/pid"
}

case $1 in
  up)
    mkdir -p "$LAB/shared"
    [ -f "$LAB/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$LAB/key"
    if [ ! -d "$LAB/env" ]; then
      python3.11 -m venv --without-pip "$LAB/env"
      sed -i "s#$LAB/env#/mnt/env#g" "$LAB/env/bin/activate"
      echo /mnt/packages > "$LAB/env/lib/python3.11/site-packages/packages.pth"
      printf '#!/mnt/env/bin/python\nfrom ray.scripts.scripts import main\nmain()\n' > "$LAB/env/bin/ray"
      chmod +x "$LAB/env/bin/ray"
      (cd "$(dirname "$0")/../.." && echo . && cat constraints.txt pyproject.toml) > "$LAB/env/installed.txt"
    fi
    sed 's#^\(root:.*\):[^:]*:[^:]*$#\1:/mnt/host/home:/bin/bash#' /etc/passwd > "$LAB/users"
    { echo "127.0.0.1 localhost"; for i in $(seq "$2"); do echo "$NET.1$i k$i"; done; } > "$LAB/names"
    if ! ip link show "$tag" > /dev/null 2>&1; then
      ip link add "$tag" type bridge
      ip addr add "$NET.1/24" dev "$tag"
      ip link set "$tag" up
    fi
    for i in ${3:-$(seq "$2")}; do power_on "$i"; done
    for i in ${3:-$(seq "$2")}; do
      for try in $(seq 100); do
        (exec 3<> "/dev/tcp/$NET.1$i/22") 2> /dev/null && continue 2
        sleep 0.1
      done
      echo "k$i does not answer:" >&2
      cat "$LAB/k$i/sshd.log" >&2
      exit 1
    done
    ;;
  kill) power_off "k$2" ;;
  down)
    for here in "$LAB"/k*/; do power_off "$(basename "$here")"; done
    ip link del "$tag" 2> /dev/null || true
    ;;
esac
