#!/bin/sh
# Builds the guest: build/guest/vmlinuz, build/guest/initrd and build/guest/VERSION.
#
# The kernel is Debian's cloud kernel, fetched as a package and only unpacked: nothing is installed
# and no root is needed. Around it goes an initramfs with the drivers that a QEMU guest needs and one
# program, guest/init.c. The unpacked kernel is kept in build/kernel, so that a change of init.c
# needs no network. VERSION says what the guest was made from; while it still holds, nothing is done.
# Remove build/kernel to take the archive's newest kernel.
set -eu

cd "$(dirname "$0")/.."
build=build
guest=$build/guest
kernel=$build/kernel

# Drivers in the order of loading: each one after those that it needs. pvpanic tells the host of a
# crash; button and evdev carry the power button.
modules='virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk
virtio_console button evdev pvpanic pvpanic-pci'

fail() {
    echo "guest/build.sh: $*" >&2
    exit 1
}

# A cloud kernel's meta package names the real one: linux-image-6.1.0-56-cloud-amd64 or the like.
kernel_package() {
    apt-cache $1 depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1
}

# Downloads the kernel package into the directory $1. The machine's package lists may be missing or
# too old to name a version that the archive still has; then lists of our own are fetched, since the
# machine's may only be changed by root.
download_kernel() {
    # Root's download would drop to the user _apt, who may not write here.
    options='-o APT::Sandbox::User=root'
    package=$(kernel_package "$options")
    if [ -n "$package" ] && (cd "$1" && apt-get $options -qq download "$package" 2>download.log); then
        return
    fi
    echo "guest: fetching package lists into $build/apt"
    mkdir -p "$build/apt/lists/partial" "$build/apt/cache/archives/partial"
    options="$options -o Dir::State::Lists=$PWD/$build/apt/lists -o Dir::Cache=$PWD/$build/apt/cache"
    apt-get $options -qq update || fail "cannot fetch Debian's package lists"
    package=$(kernel_package "$options")
    [ -n "$package" ] || fail 'no package linux-image-cloud-amd64 in the sources of apt'
    (cd "$1" && apt-get $options -qq download "$package") || fail "cannot download $package"
    rm -rf "$build/apt"
}

fetch_kernel() {
    [ "$(dpkg --print-architecture)" = amd64 ] || fail 'guests are built on amd64 only'
    echo 'guest: fetching the kernel package'
    work=$build/kernel.new
    rm -rf "$work"
    mkdir -p "$work/download" "$work/out"
    download_kernel "$work/download"
    deb=$(ls "$work"/download/*.deb)
    dpkg -x "$deb" "$work/tree"
    cp "$work"/tree/boot/vmlinuz-* "$work/out/vmlinuz"
    number=10
    for name in $modules; do
        file=$(find "$work/tree" -name "$name.ko*" | head -n 1)
        if [ -n "$file" ]; then
            cp "$file" "$work/out/$number-$(basename "$file")"
            case $file in *.xz) xz -d "$work/out/$number-$(basename "$file")" ;; esac
        fi
        number=$((number + 1))
    done
    # Some drivers are built in, or split up, in other kernels; without these no guest works.
    for name in virtio_blk virtio_console; do
        ls "$work"/out/*-$name.ko >/dev/null 2>&1 || fail "the kernel package lacks $name"
    done
    echo "$(dpkg-deb -f "$deb" Package) $(dpkg-deb -f "$deb" Version)" >"$work/out/VERSION"
    rm -rf "$kernel"
    mv "$work/out" "$kernel"
    rm -rf "$work"
}

# One build at a time.
mkdir -p "$build"
exec 9>"$build/.guest.lock"
flock 9

[ -f "$kernel/VERSION" ] || fetch_kernel

sources=$(cat guest/init.c guest/counter.h guest/build.sh guest/cpio.mjs | sha256sum | cut -c 1-16)
version="kernel: $(cat "$kernel/VERSION")
sources: $sources"
if [ -f "$guest/vmlinuz" ] && [ -f "$guest/initrd" ] && [ "$version" = "$(cat "$guest/VERSION" 2>/dev/null)" ]; then
    touch "$guest/VERSION" # make goes by time, this script by content
    exit 0
fi

new=$build/guest.new
rm -rf "$new"
mkdir -p "$new"
gcc -static -Os -s -std=gnu11 -Wall -Wextra -Werror -o "$new/init" guest/init.c
set -- dev/ proc/ sys/ modules/ init="$new/init"
for file in "$kernel"/*.ko; do
    set -- "$@" "modules/$(basename "$file")=$file"
done
node guest/cpio.mjs "$new/initrd" "$@"
cp "$kernel/vmlinuz" "$new/vmlinuz"
echo "$version" >"$new/VERSION"
# Each file appears whole, and VERSION last: a build cut off here is done again by the next one.
mkdir -p "$guest"
for file in vmlinuz initrd VERSION; do
    mv "$new/$file" "$guest/$file"
done
rm -rf "$new"
echo "guest: built from $(cat "$kernel/VERSION")"
