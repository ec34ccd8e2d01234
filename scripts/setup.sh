#!/bin/sh
# Installs the Debian packages that are missing; says nothing and changes nothing if all are there.
#
# Usage: scripts/setup.sh demo|test|bench
#
# Root installs directly, others through sudo. Where neither works, the exact command is printed:
# it is the reader's machine, and the reader decides.
set -eu

# To run: QEMU; a C compiler with the static C library for the guest and the guard.
demo='qemu-system-x86 gcc libc6-dev'
# To test in addition: NBD clients and servers that we did not write; a look into the page cache; what the lab
# makes networks of.
test="$demo qemu-utils libnbd-bin nbdkit fio util-linux-extra iproute2 nftables"
# To measure what others do on the same machine, beside ours.
bench="$demo qemu-utils nbdkit fio etcd-server ceph-mon ceph-mgr ceph-osd ceph-common"

case ${1:-} in
demo) packages=$demo ;;
test) packages=$test ;;
bench) packages=$bench ;;
*)
    echo 'usage: scripts/setup.sh demo|test|bench' >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "Holdfast sets itself up on Debian 12 and its relatives only. It needs what Debian calls:" >&2
    echo "    $packages" >&2
    exit 1
fi

missing=
for package in $packages; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
missing=${missing# }

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root='sudo -n'
elif command -v sudo >/dev/null && [ -t 0 ]; then
    as_root=sudo
else
    echo 'Debian packages are missing, and they can be installed by root only. As root, run:' >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends $missing" >&2
    exit 1
fi

echo "installing Debian packages: $missing"
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
# A source of the machine's that does not answer need not be one that we want anything from.
$apt update || echo 'some package lists could not be fetched; going on with what is there' >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! $apt install -y --no-install-recommends $missing >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
