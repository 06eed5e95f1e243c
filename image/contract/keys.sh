#!/bin/sh
# Makes development keys on the spot, where they are missing: for bundles, for Secure Boot, for seed files.
# Keys of a release come from elsewhere, under the same names.  They never lie in a checkout.
#
# Usage: keys.sh DIR
#   ca.crt ca.key            the CA that images trust for bundles (RAUC's keyring)
#   bundle.crt bundle.key    signs bundles
#   PK.* KEK.* db.*          Secure Boot: key, certificate, signed list (.auth)
#   seed.key seed.pub        signs seed files (Ed25519)
# Environment: OPENSSL, CERT_TO_ESL, SIGN_ESL
set -eu

dir=$1
OPENSSL=${OPENSSL:-openssl} CERT_TO_ESL=${CERT_TO_ESL:-cert-to-efi-sig-list} SIGN_ESL=${SIGN_ESL:-sign-efi-sig-list}
[ -e "$dir/complete" ] && exit 0
mkdir -p "$dir"
if top=$(git -C "$dir" rev-parse --show-toplevel 2>/dev/null); then
    echo "keys.sh: $dir lies in the checkout $top; give a folder outside of it" >&2
    exit 1
fi
chmod 0700 "$dir"
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A box without a clock lives at its image's build time: the certificates begin long before it.
cat > "$work/ca.conf" <<'CONF'
[ca]
default_ca = own
[own]
database = $ENV::WORK/index
new_certs_dir = $ENV::WORK
rand_serial = yes
default_md = sha256
default_startdate = 20200101000000Z
default_enddate = 20600101000000Z
policy = any
email_in_dn = no
[any]
commonName = supplied
organizationName = optional
[v3_ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[v3_bundle]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = codeSigning
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[v3_boot]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = codeSigning
subjectKeyIdentifier = hash
CONF
export WORK="$work"
: > "$work/index"
request() { # name, common name
    $OPENSSL req -new -newkey rsa:2048 -nodes -sha256 -subj "/O=ARINT development/CN=$2" \
        -keyout "$dir/$1.key" -out "$work/$1.csr" 2>/dev/null
}
self_signed() { # name, common name, extensions
    request "$1" "$2"
    : > "$work/index"
    $OPENSSL ca -config "$work/ca.conf" -batch -notext -selfsign -keyfile "$dir/$1.key" -extensions "$3" \
        -in "$work/$1.csr" -out "$dir/$1.crt" 2>/dev/null
}
self_signed ca "development CA for bundles" v3_ca
request bundle "development bundles"
: > "$work/index"
$OPENSSL ca -config "$work/ca.conf" -batch -notext -cert "$dir/ca.crt" -keyfile "$dir/ca.key" -extensions v3_bundle \
    -in "$work/bundle.csr" -out "$dir/bundle.crt" 2>/dev/null

owner=$($OPENSSL rand -hex 16 | sed 's/^\(.\{8\}\)\(.\{4\}\)\(.\{4\}\)\(.\{4\}\)/\1-\2-\3-\4-/')
echo "$owner" > "$dir/owner"
for key in PK KEK db; do
    self_signed "$key" "development $key" v3_boot
    $CERT_TO_ESL -g "$owner" "$dir/$key.crt" "$dir/$key.esl" > /dev/null
done
sign() { # by, what
    $SIGN_ESL -t '2020-01-01 00:00:00' -g "$owner" -k "$dir/$1.key" -c "$dir/$1.crt" "$2" "$dir/$2.esl" "$dir/$2.auth" > /dev/null
}
sign PK PK; sign PK KEK; sign KEK db

$OPENSSL genpkey -algorithm ed25519 -out "$dir/seed.key"
$OPENSSL pkey -in "$dir/seed.key" -pubout -out "$dir/seed.pub"
touch "$dir/complete"
echo "keys.sh: made development keys in $dir" >&2
