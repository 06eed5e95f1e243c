# What the steps of this folder know of the board and of Buildroot's tools; sourced by them, makes nothing.
# shellcheck shell=sh disable=SC2034  # the variables are for those who source this
: "${BINARIES_DIR:?is set by Buildroot}" "${HOST_DIR:?is set by Buildroot}" "${BR2_CONFIG:?is set by Buildroot}"

tree=$(cd "$(dirname "$0")/.." && pwd)
top=$(cd "$tree/../.." && pwd)
contract=$top/image/contract
board=$(sed -n 's/^BR2_PACKAGE_ARINT_BOARD="\(.*\)"$/\1/p' "$BR2_CONFIG")
[ -f "$top/hw/$board/board.toml" ] || {
    echo "image: BR2_PACKAGE_ARINT_BOARD is \`$board\`, which is no board in hw/" >&2
    exit 1
}
fact() { "$tree/compose" --fact "$board" "$1"; }
firmware=$(fact firmware)

: "${ARINT_KEYS:?names the folder of the keys; call make image in the repository, which sets it}"
: "${SOURCE_DATE_EPOCH:?is set by make image}" "${ARINT_IMAGE_VERSION:?is set by make image}"
BOARD=$board VERSION=$ARINT_IMAGE_VERSION KEYS=$ARINT_KEYS VARIANT=${ARINT_IMAGE_VARIANT:-release}
COMPATIBLE=arint-$(echo "$board" | tr / -)
ARCH=$(fact arch)
CMDLINE=$(sed 's/#.*//' "$top/hw/$board/cmdline" | tr '\n' ' ')
case $ARCH in aarch64) efi=aa64 ;; *) efi=x64 ;; esac
STUB=$BINARIES_DIR/efi/linux$efi.efi.stub
BOOT_LOADER=$BINARIES_DIR/efi/systemd-boot$efi.efi
export BOARD VERSION KEYS VARIANT COMPATIBLE ARCH CMDLINE STUB BOOT_LOADER

# Buildroot's own tools, by name, where it builds them; it has none that signs for UEFI or stands a clock still, and
# its systemd for the build machine has no systemd-sysusers: those are the machine's.
for tool in "$HOST_DIR"/bin/*-linux-gnu-objcopy; do OBJCOPY=$tool OBJDUMP=${tool%objcopy}objdump; done
SYSTEMCTL=$HOST_DIR/bin/systemctl
export OBJCOPY OBJDUMP SYSTEMCTL
export PATH="$HOST_DIR/bin:$HOST_DIR/sbin:$PATH"
need() { # command, Debian package
    command -v "$1" > /dev/null || { echo "image: $1 is missing on this machine: install the Debian package $2" >&2; exit 1; }
}
parts=$BINARIES_DIR/parts
