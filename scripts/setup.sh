#!/bin/sh
# Installs what the targets of the Makefile need, as far as it is missing.
# Usage: setup.sh run|test|bench|check|image|image-test
set -eu

# command or file that shows it is there, Debian package
wanted() {
    case $1 in
    run) cat <<'LIST'
cc gcc
make make
python3 python3
/usr/include/stdlib.h libc6-dev
ensurepip python3-venv
LIST
        ;;
    test) wanted run; cat <<'LIST'
redis-server redis-server
redis-cli redis-tools
/usr/lib/postgresql postgresql
mariadbd mariadb-server-core
my_print_defaults mariadb-client-core
prometheus prometheus
nginx nginx-light
openssl openssl
chromium chromium
chromedriver chromium-driver
/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf fonts-dejavu-core
curl curl
flake8 flake8
ip iproute2
dbus-daemon dbus-daemon
dbus-send dbus-bin
setpriv util-linux
wpa_supplicant wpasupplicant
mkfs.xfs xfsprogs
sfdisk fdisk
losetup mount
/lib/systemd/systemd-networkd systemd
udevadm udev
veritysetup cryptsetup-bin
systemd-repart systemd
/usr/lib/python3/dist-packages/redis python3-redis
/usr/lib/python3/dist-packages/jwt python3-jwt
/usr/lib/python3/dist-packages/zeep python3-zeep
/usr/lib/python3/dist-packages/websockets python3-websockets
ntlm_auth winbind
LIST
        ;;
    # What builds the bench image; the rest of its tools come in a Debian tree of its own.
    image) wanted run; cat <<'LIST'
git git
mmdebstrap mmdebstrap
newuidmap uidmap
/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
LIST
        ;;
    # QEMU and what looks at disks from outside; `image-test` is the suite of the image.
    image-test) wanted image; cat <<'LIST'
qemu-system-x86_64 qemu-system-x86
qemu-img qemu-utils
/usr/share/OVMF/OVMF_CODE_4M.fd ovmf
swtpm swtpm
mcopy mtools
mkfs.ext4 e2fsprogs
mkfs.vfat dosfstools
sfdisk fdisk
zstd zstd
openssl openssl
sbsign sbsigntool
ip iproute2
avahi-daemon avahi-daemon
avahi-browse avahi-utils
dbus-daemon dbus-daemon
dnsmasq dnsmasq-base
chronyd chrony
objcopy binutils
LIST
        ;;
    bench) wanted test; cat <<'LIST'
wrk wrk
npm npm
LIST
        ;;
    check) wanted test; cat <<'LIST'
shellcheck shellcheck
LIST
        ;;
    *) echo "usage: setup.sh run|test|bench|check|image|image-test" >&2; exit 2 ;;
    esac
}

is_there() {
    case $1 in
    /*) [ -e "$1" ] ;;
    ensurepip) for python in /usr/bin/python3 python3; do
            "$python" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
        done; return 1 ;;
    *) command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] ;;
    esac
}

missing() {
    wanted "$1" | while read -r command package; do is_there "$command" || echo "$package"; done | sort -u | tr '\n' ' '
}

# Twice where needed: a package of another origin may have to give way to the first ones, and comes again as Debian's.
wanted "${1:-}" >/dev/null
for round in 1 2; do
    missing=$(missing "$1")
    [ -n "${missing% }" ] || break
    if [ "$(id -u)" = 0 ]; then sudo=
    elif sudo -n true 2>/dev/null; then sudo=sudo
    else echo "these Debian packages are missing: $missing; install them with: sudo apt-get install $missing" >&2; exit 1; fi
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "these Debian packages (or what your system calls them) are missing: $missing" >&2; exit 1
    fi
    echo "installing $missing" >&2
    # Servers that packages bring must not start by themselves: tests start their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null; $sudo chmod +x $policy
        trap '$sudo rm -f $policy' EXIT
    fi
    [ $round != 1 ] || $sudo apt-get update -qq >&2
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >&2
done

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is missing: install Rust with rustup (Debian package rustup, or https://rustup.rs), then call make again" >&2
    exit 1
fi
