#!/bin/sh
# The steps of `build` that run in the tools' tree: base, keys, root, parts, disk, bundle, list of materials.
# /arint is the checkout, /cache the cache, /out the results, /keys the keys.
set -eu
umask 022
contract=/arint/image/contract
board=$ARINT_BOARD
export VERSION="$ARINT_VERSION" BOARD="$board" KEYS=/keys
COMPATIBLE=arint-$(echo "$board" | tr / -)
export COMPATIBLE
say() { echo "image: $*" >&2; }

base=/cache/$ARINT_BASE
if [ ! -e "$base" ]; then
    say "making the base of the root"
    rm -rf /cache/base-*
    sh /arint/image/debian/base.sh "/cache/$ARINT_PACKED" "/cache/$ARINT_WHEELS" "$base"
fi
"$contract/check-kernel.sh" "$base/kernel/config"
"$contract/keys.sh" /keys

root=/cache/root
rm -rf "$root"
cp -a --reflink=auto "$base/root" "$root"
"$contract/root.sh" "$root" /cache/stage/arint
if [ -e /cache/stage/hook ]; then
    say "running the root hook"
    /cache/stage/hook "$root"
fi

KERNEL_RELEASE=$(cat "$base/kernel/release")
CMDLINE=$(sed 's/#.*//' "/arint/hw/$board/cmdline" 2>/dev/null | tr '\n' ' ')
export KERNEL_RELEASE CMDLINE
initramfs=/cache/initramfs.zst
"$contract/initramfs.sh" /cache/stage/arinit "$root/usr/lib/modules/$KERNEL_RELEASE" "$initramfs"
say "packing the root"
"$contract/assemble.sh" "$root" "$base/kernel/vmlinuz" "$initramfs" /out
case ,$ARINT_ONLY, in *,disk,*) say "making the disk image"; "$contract/disk.sh" /out /out ;; esac
case ,$ARINT_ONLY, in *,installer,*) say "making the installer"; "$contract/disk.sh" --installer /out /out ;; esac
case ,$ARINT_ONLY, in *,bundle,*) say "making the bundle"; "$contract/bundle.sh" /out /out/bundle.raucb ;; esac
python3 "$contract/sbom.py" --packages "$base/packages" --cargo-lock /arint/Cargo.lock \
    --requirements /arint/appliance/arsrv/sdk/requirements.txt --version "$VERSION" > /out/sbom.cdx.json
