"""One box: a QEMU with its own disk, firmware variables, TPM and network.

The machine is what `hw/generic/x86_64` names: q35 with UEFI, a virtio disk, an `i6300esb` watchdog that resets.
Only software emulation is used, so that results do not depend on the machine the suite runs on.

**Invariant:** no process outlives the Python process that started the box, not even when that is killed.
"""

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.api import CODE, Api, free_port
from harness.qmp import Qmp, QmpError
from harness.starting import Starting
from harness.tools import firmware, run, tool
from harness.waiting import Impatient, patience, wait_for

#: Where a box under software emulation has to be after a cold start.
BOOT_SECONDS = 240
#: Whether a box's time passes with its instructions: slower, and no limit of the box itself is missed because the
#: machine is busy.
COUNTED = os.environ.get("ARINT_IMAGE_COUNTED", "") not in ("", "0")
#: What a stick hangs on: `scsi`, or `usb` for an image whose kernel knows it.
STICKS = os.environ.get("ARINT_IMAGE_STICKS", "scsi")
STICK_DEVICE = "usb-storage" if STICKS == "usb" else "scsi-hd"
#: The name of a kept moment inside the disk's file.
SNAPSHOT = "moment"
_running: set["Box"] = set()


def _die_with_parent() -> None:
    """Runs between fork and exec: the kernel kills the child when this process ends (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # A Ctrl-C is for this program, which stops its boxes in order.
    os.setpgid(0, 0)


@atexit.register
def _stop_all() -> None:
    for box in list(_running):
        box.power_cut()


@dataclass(eq=False)
class Box:
    """One box; `image` is a disk image that is never written, `folder` keeps everything of this box."""

    name: str
    image: Path
    folder: Path
    memory: int = 512
    cpus: int = 2
    #: Size of the disk, GiB; larger than the image, as on real devices.
    disk_gib: float = 8
    #: Socket of a port of the virtual LAN.
    lan: Path | None = None
    #: User-mode network with the two forwarded ports.
    uplink: bool = True
    #: Let the uplink reach the host (10.0.2.2) and what lies behind it.
    online: bool = False
    tpm: bool = False
    #: Firmware variables to start with; with them, Secure Boot's firmware is used.
    secure_vars: Path | None = None
    #: A build of U-Boot that starts the box instead of OVMF (see `harness.uboot`).
    uboot: Path | None = None
    #: Write every request to the disk into this file (see `harness.powercut`).
    write_log: Path | None = None
    #: Further disks (raw images) that can be taken out; `plug` and `unplug` do so while the box runs.
    sticks: list[Path] = field(default_factory=list)
    #: Further disks of its own (raw images).
    disks: list[Path] = field(default_factory=list)
    #: Start of the clock, for example `2020-01-01T00:00:00`.
    clock: str | None = None
    #: More arguments for QEMU.
    more: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.disk = self.folder / "disk.qcow2"
        self.variables = self.folder / "vars.qcow2"
        self.serial_log = self.folder / "serial.log"
        self.api = Api("127.0.0.1", free_port(), free_port())
        self._sockets: list[socket.socket] = []
        self._tpm: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._watch: Starting | None = None
        self._wake = False
        #: Where the serial log of the present start begins.
        self.mark = 0

    # -- starting and stopping

    def prepare(self) -> None:
        """Makes disk and variables; keeps those that are there."""
        if not self.disk.exists():
            kind = "qcow2" if self.image.suffix == ".qcow2" else "raw"
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.image.resolve(), "-F", kind,
                 self.disk, f"{self.disk_gib}G"])
        if not self.variables.exists() and not self.uboot:
            # In this format, so that a snapshot of the running box has them too.
            run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.secure_vars or firmware(secure=False)[1],
                 self.variables])

    def command(self) -> list[str]:
        """The command line of QEMU."""
        if self.uboot:
            # U-Boot knows the screen of this machine only, and does not start without one.
            start = ["-machine", "pc", "-vga", "std", "-bios", str(self.uboot)]
        else:
            code, _ = firmware(secure=self.secure_vars is not None)
            start = ["-machine", "q35,smm=on" if self.secure_vars else "q35",
                     "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
                     "-drive", f"if=pflash,unit=1,format=qcow2,file={self.variables}"]
        words = [
            tool("qemu-system-x86_64"), "-name", self.name, "-nodefaults", "-display", "none", *start,
            # Without cmpxchg16b: QEMU 7.2's emulation of it breaks Linux 6.12 early in one start of two.
            *(["-accel", "tcg", "-icount", "shift=1,sleep=on"] if COUNTED else ["-accel", "tcg,thread=multi"]),
            "-cpu", "max,-cx16",
            "-smp", str(self.cpus), "-m", str(self.memory),
            "-chardev", f"socket,id=serial,path={self.folder}/serial.sock,server=on,wait=off,"
                        f"logfile={self.serial_log},logappend=on",
            "-serial", "chardev:serial",
            "-qmp", f"unix:{self.folder}/qmp.sock,server=on,wait=off",
            "-qmp", f"unix:{self.folder}/starting.sock,server=on,wait=off",
            "-device", "i6300esb", "-action", "watchdog=reset",
            "-device", "virtio-rng-pci",
            # The kernel counts interrupts of the timer against its own loops, and gives up the machine where a
            # busy host delivers them late.  The stub takes this word only without Secure Boot.
            "-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra=no_timer_check",
            "-rtc", f"base={self.clock or 'utc'},clock={'vm' if COUNTED else 'host'}",
            "-blockdev", f"driver=qcow2,node-name=overlay,cache.no-flush=on,discard=unmap,"
                         f"file.driver=file,file.filename={self.disk},file.cache.no-flush=on",
        ]
        if self.secure_vars:
            words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        node = "overlay"
        if self.write_log:
            node = "logged"
            words += ["-blockdev", f"driver=blklogwrites,node-name=logged,file=overlay,log-append=off,"
                                   f"log.driver=file,log.filename={self.write_log},log.cache.no-flush=on"]
        words += ["-device", f"virtio-blk-pci,drive={node},write-cache=on,bootindex=0,serial={self.name}"]
        # The bench image's kernel has no USB: there a stick is a SCSI disk that can be taken out.
        words += ["-device", "qemu-xhci" if STICKS == "usb" else "virtio-scsi-pci"]
        for number, stick in enumerate(self.sticks):
            words += ["-blockdev", f"driver=raw,node-name=stick{number},file.driver=file,file.filename={stick}",
                      "-device", f"{STICK_DEVICE},drive=stick{number},id=stick{number},removable=on,"
                                 f"bootindex={number + 1}"]
        for number, more in enumerate(self.disks):
            words += ["-blockdev", f"driver=raw,node-name=more{number},file.driver=file,file.filename={more},"
                                   f"discard=unmap",
                      "-device", f"virtio-blk-pci,drive=more{number},serial=more{number}"]
        # In slots of their own, so that the box's names of its cards (enp0s16, enp0s17) do not hang on other devices.
        if self.uplink:
            restrict = "off" if self.online else "on"
            words += ["-netdev", f"user,id=uplink,restrict={restrict},"
                                 f"hostfwd=tcp:127.0.0.1:{self.api.port}-:8183,"
                                 f"hostfwd=tcp:127.0.0.1:{self.api.channel_port}-:11223",
                      "-device", f"virtio-net-pci,netdev=uplink,mac={self._mac(0)},addr=0x10"]
        if self.lan:
            words += ["-netdev", f"stream,id=lan,server=off,addr.type=unix,addr.path={self.lan}",
                      "-device", f"virtio-net-pci,netdev=lan,mac={self._mac(1)},addr=0x11"]
        if self.tpm:
            words += ["-chardev", f"socket,id=tpm,path={self.folder}/tpm.sock",
                      "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"]
        return words + (["-loadvm", SNAPSHOT] if self._wake else []) + self.more

    def _mac(self, number: int) -> str:
        tail = sum(self.name.encode()) * 131 + len(self.name)
        return f"52:54:00:{number:02x}:{tail >> 8 & 255:02x}:{tail & 255:02x}"

    def start(self) -> None:
        """Switches the box on."""
        self.prepare()
        if self.tpm:
            (self.folder / "tpm").mkdir(exist_ok=True)
            self._tpm = subprocess.Popen(
                [tool("swtpm"), "socket", "--tpm2", "--tpmstate", f"dir={self.folder}/tpm",
                 "--ctrl", f"type=unixio,path={self.folder}/tpm.sock", "--flags", "startup-clear"],
                preexec_fn=_die_with_parent)
            wait_for("swtpm's socket", (self.folder / "tpm.sock").exists, 20, 0.05)
        self.mark = self.serial_log.stat().st_size if self.serial_log.exists() else 0
        (self.folder / "qmp.sock").unlink(missing_ok=True)
        with (self.folder / "qemu.log").open("ab") as log:
            words = self.command()
            log.write((" ".join(words) + "\n").encode())
            log.flush()
            self.process = subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        self.started = time.monotonic()
        _running.add(self)

        def control() -> Qmp:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"QEMU of `{self.name}` ended at once: "
                                   f"{(self.folder / 'qemu.log').read_text(errors='replace')[-800:]}")
            return Qmp(self.folder / "qmp.sock")

        self._qmp = wait_for("QEMU's control socket", control, 30, 0.05)
        # A box that is woken in the middle of its life is past its firmware.
        said = -1 if self._wake else self.mark
        self._watch = Starting(self.name, self.folder / "starting.sock", self.serial_log, said)
        self._watch.start()

    @property
    def qmp(self) -> Qmp:
        """QEMU's control socket."""
        assert self._qmp is not None, f"`{self.name}` is off"
        return self._qmp

    @property
    def watch(self) -> Starting:
        """Who sees to it that the firmware starts."""
        assert self._watch is not None, f"`{self.name}` is off"
        return self._watch

    def is_on(self) -> bool:
        """Whether QEMU runs."""
        return self.process is not None and self.process.poll() is None

    def power_cut(self) -> None:
        """Pulls the plug.  What the guest has not flushed is still in the overlay: see `harness.powercut`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._ended()

    def stop(self) -> None:
        """Presses the power button and waits; pulls the plug if that does nothing.

        A box that has just begun to answer may not heed the button yet, so it is pressed again, as a person does.
        """
        for last in (False, False, True):
            if not self.is_on():
                break
            self.qmp.call("system_powerdown")
            try:
                self.wait_off(30)
            except Impatient:
                if last:
                    self.power_cut()
                    raise
        self._ended()

    def wait_off(self, seconds: float) -> None:
        """Waits until the box has switched itself off."""
        wait_for(f"`{self.name}` switches itself off", lambda: not self.is_on(), seconds)
        self._ended()

    def reset(self) -> None:
        """Presses the reset button."""
        self.mark = self.serial_log.stat().st_size
        self.qmp.call("system_reset")

    def _ended(self) -> None:
        _running.discard(self)
        if self._watch is not None:
            self._watch.end()
            self._watch = None
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self._tpm is not None:
            self._tpm.kill()
            self._tpm.wait()
            self._tpm = None
            (self.folder / "tpm.sock").unlink(missing_ok=True)
        self.process = None

    def restart(self) -> None:
        """Pulls the plug and switches on again."""
        self.power_cut()
        self.start()

    def plug(self, stick: Path, name: str = "plugged", *, read_only: bool = False) -> None:
        """Puts a stick in."""
        self.qmp.call("blockdev-add", **{"driver": "raw", "node-name": name, "read-only": read_only,
                                         "file": {"driver": "file", "filename": str(stick)}})
        self.qmp.call("device_add", driver=STICK_DEVICE, drive=name, id=name, removable=True)

    def unplug(self, name: str = "plugged") -> None:
        """Takes a stick out, as people do: without asking."""
        self.qmp.call("device_del", id=name)

        def is_gone() -> bool:
            try:
                self.qmp.call("blockdev-del", **{"node-name": name})
            except QmpError:
                return False
            return True

        wait_for(f"`{name}` is out", is_gone, 60, 0.2)

    # -- moments

    def keep_moment(self) -> None:
        """Keeps the running box, memory and disk, in its folder, and switches it off without its noticing."""
        said = self.qmp.call("human-monitor-command", **{"command-line": f"savevm {SNAPSHOT}"})
        if said:
            raise RuntimeError(f"QEMU cannot keep the moment: {said}")
        self.qmp.call("quit")
        assert self.process is not None
        self.process.wait()
        self._ended()

    def take(self, kept: "Box") -> None:
        """Takes a copy of the disk and the variables of a box that is off, and knows what that one knew of it."""
        for name in ("disk.qcow2", "vars.qcow2"):
            run(["cp", "--sparse=always", kept.folder / name, self.folder / name])
        self.api.token, self.api.pinned = kept.api.token, kept.api.pinned

    def wake(self, kept: "Box") -> None:
        """Goes on where `kept` was kept, with a disk of its own; a second instead of a boot."""
        self.take(kept)
        self._wake = True
        try:
            self.start()
        finally:
            self._wake = False

    # -- the disk of a box that is off

    def read_disk(self, target: Path) -> Path:
        """A raw copy of the whole disk."""
        # Also while the box runs: then what its caches hold may be missing.
        run(["qemu-img", "convert", "--force-share", "-f", "qcow2", "-O", "raw", self.disk, target])
        return target

    def patch_disk(self, offset: int, data: bytes) -> None:
        """Changes bytes on the disk, at a multiple of 512."""
        assert not self.is_on()
        piece = self.folder / "patch.bin"
        piece.write_bytes(data)
        run(["qemu-io", "-f", "qcow2", "-c", f"write -s {piece} {offset} {len(data)}", self.disk])

    def spoil_disk(self, offset: int, length: int) -> None:
        """Overwrites a part of the disk with rubbish."""
        assert not self.is_on()
        run(["qemu-io", "-f", "qcow2", "-c", f"write -P 0x5a {offset} {length}", self.disk])

    # -- looking at it

    def serial(self, everything: bool = False) -> str:
        """What the serial console has printed since the last start, or since the beginning."""
        if not self.serial_log.exists():
            return ""
        with self.serial_log.open("rb") as file:
            file.seek(0 if everything else self.mark)
            return file.read().decode(errors="replace")

    def mark_serial(self) -> None:
        """Forgets what the serial console has printed so far."""
        self.mark = self.serial_log.stat().st_size

    def type(self, text: str) -> None:
        """Types on the serial console."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(f"{self.folder}/serial.sock")
            line.sendall(text.encode())
            time.sleep(0.3)

    def wait_serial(self, text: str, seconds: float = BOOT_SECONDS) -> str:
        """Waits for a text on the serial console."""
        try:
            return wait_for(f"`{self.name}` prints {text!r}", lambda: self.serial() if text in self.serial() else None,
                            seconds)
        except Impatient as err:
            raise self.complaint(err) from None

    def wait_answering(self, seconds: float = BOOT_SECONDS) -> float:
        """Waits until the console answers over HTTPS; gives the seconds since the box was switched on."""
        try:
            wait_for(f"`{self.name}` answers on port 8183",
                     lambda: self.api.request("GET", "/v1/claim", timeout=10).status == 200, seconds, 0.25)
        except Impatient as err:
            raise self.complaint(err) from None
        return time.monotonic() - self.started

    def complaint(self, err: Exception) -> AssertionError:
        """The failure, with where everything lies and the end of the serial console."""
        end = "\n    ".join(self.serial().splitlines()[-25:])
        return AssertionError(f"{err}\n  everything of this box lies in {self.folder}\n  "
                              f"the end of its serial console:\n    {end}")

    # -- talking to it

    def code(self, seconds: float = BOOT_SECONDS) -> str:
        """The first-run code, as it stands on the serial console since the last start."""

        def look() -> str | None:
            # A reset makes another code; the box before it may have shown its own.
            found = CODE.findall(self.serial(everything=True).rpartition("BdsDxe: starting")[2])
            return str(found[-1]) if found else None

        try:
            return wait_for(f"`{self.name}` prints its first-run code on the serial console", look, seconds)
        except Impatient as err:
            raise self.complaint(err) from None

    def claim(self) -> str:
        """Waits for the box, claims it with the code on its serial console, and gives the code."""
        self.wait_answering()
        code = self.code()
        self.api.claim(code)
        return code

    def system(self, path: str) -> object:
        """`GET /v1/system/…`."""
        return self.api.get(f"/v1/system/{path}")

    def disk_writes(self) -> int:
        """Bytes of the write log so far; what is acknowledged now is covered by them."""
        assert self.write_log is not None
        return self.write_log.stat().st_size
