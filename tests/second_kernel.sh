#!/usr/bin/env bash
# Runs pytest with the arguments given on a kernel other than this machine's: in QEMU without KVM, on this machine's
# files, which the guest cannot change. It is the distribution's own kernel, unpacked below build/ and not installed,
# so that this machine boots what it booted before. KERNEL=/boot/vmlinuz-... takes another one that is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
	echo "tests on a second kernel skipped: $1"
	exit 0
}

# Prints the path of the kernel.
unpacked() (
	package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: //p')
	mkdir -p build/kernels && cd build/kernels
	if [ -n "$package" ] && [ ! -d "$package" ]; then
		apt-get download -qq -o APT::Sandbox::User=root "$package" >&2
		dpkg-deb -x "$package"_*.deb unpacking && rm "$package"_*.deb && mv unpacking "$package"
	fi
	ls "$PWD/$package"/boot/vmlinuz-*
)

[ "$(uname -m)" = x86_64 ] || skip "it is set up for x86-64"
# udevadm: what names the ports that carry the guest's output; without it there is none.
for program in qemu-system-x86_64 udevadm; do
	command -v $program >/dev/null || skip "no $program: apt-get install qemu-system-x86 busybox-static kmod file udev"
done
kernel=${KERNEL:-$(unpacked 2>/dev/null || { apt-get update -qq && unpacked; })} ||
	skip "the package linux-image-amd64 cannot be had here; name an installed kernel: KERNEL=/boot/vmlinuz-..."

# In a file: the kernel cuts its command line, and with it this command, at 2,048 bytes.
mkdir -p build/kernels
arguments=$(mktemp build/kernels/arguments.XXXXXX)
trap 'rm -f "$arguments"' EXIT
printf '%s\n' "$@" >"$arguments"

# PYTHONPATH: this directory's netlab is tested, also where .venv is that of another. The guest's /run is writable, its
# root file system is not. Plugins import half of Jupyter, which takes it long.
command=(env PYTHONPATH=$PWD HOME=/run/home HYPOTHESIS_STORAGE_DIRECTORY=/run/hypothesis PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
	timeout --signal=INT --kill-after=60 "${GUEST_TIMEOUT_S:-7200}" .venv/bin/pytest -p no:cacheprovider "@$arguments")
# Without AVX2: as QEMU 7.2 emulates it, numpy's argsort does not sort.
echo "On $kernel:"
# The simulated internet needs TUN, which nothing loads there by itself.
# Through a pipe: QEMU opens its output anew, which would cut off a log file.
PATH=$PWD/.venv/bin:$PATH vng --run "$kernel" --force-9p --disable-kvm --qemu-opts="-cpu Nehalem" \
	--cpus 2 --memory 3G --user root -- "modprobe tun; $(printf '%q ' "${command[@]}")" </dev/null 2>&1 | cat
