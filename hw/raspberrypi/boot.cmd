# What U-Boot does at each start: takes the first slot of BOOT_ORDER that has tries left, counts one down, starts it.
#
# BOOT_ORDER and BOOT_<slot>_LEFT are RAUC's names; it writes them with fw_setenv.  The counter is saved before the
# kernel is started, into the older of two copies, so a power cut leaves the one or the other.
# If neither slot has tries left, the recovery system starts.

test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "a b"
test -n "${BOOT_a_LEFT}" || setenv BOOT_a_LEFT 3
test -n "${BOOT_b_LEFT}" || setenv BOOT_b_LEFT 3

setenv fit 0x0a000000
setenv chosen
for slot in ${BOOT_ORDER}; do
  if test -n "${chosen}"; then
    true
  elif test "${slot}" = "a" && test ${BOOT_a_LEFT} -gt 0; then
    setexpr BOOT_a_LEFT ${BOOT_a_LEFT} - 1
    setenv chosen a
  elif test "${slot}" = "b" && test ${BOOT_b_LEFT} -gt 0; then
    setexpr BOOT_b_LEFT ${BOOT_b_LEFT} - 1
    setenv chosen b
  fi
done

if test -n "${chosen}"; then
  saveenv
  part start mmc 0 boot-${chosen} start
  part size mmc 0 boot-${chosen} blocks
  mmc dev 0
  mmc read ${fit} ${start} ${blocks}
else
  setenv chosen recovery
  load mmc 0:1 ${fit} recovery.itb
fi

# The image names its own root hash; the slot is only a hint.
source ${fit}:arguments
setenv bootargs "${bootargs} arint.slot=${chosen} rauc.slot=${chosen}"
bootm ${fit}:kernel ${fit}:first-stage ${fdt_addr}
# Here only what could not be started: the next start takes the next try, or the other slot.
reset
