//! The device mapper: one read-only device with one target.
//!
//! Spoken directly, because the crates for it need libclang to build, which no base has.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::libc;

/// `struct dm_ioctl` of `linux/dm-ioctl.h`, without padding of its own.
const HEADER: usize = 312;
/// `struct dm_target_spec`.
const SPEC: usize = 40;
const DEV_CREATE: u8 = 3;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const READ_ONLY: u32 = 1;

/// Makes the device and returns its node.
pub(crate) fn create(
    name: &str,
    uuid: &str,
    sectors: u64,
    target: &str,
    params: &str,
) -> io::Result<PathBuf> {
    let control = File::options().read(true).write(true).open("/dev/mapper/control")?;
    let mut created = request(name, uuid, READ_ONLY, &[]);
    call(&control, DEV_CREATE, &mut created)?;
    let mut spec = vec![0; SPEC];
    put(&mut spec, 8, &sectors.to_le_bytes());
    put(&mut spec, 24, target.as_bytes());
    spec.extend(params.as_bytes());
    // The kernel wants the end of the text, and the end of the target on a word.
    spec.resize((spec.len() + 1).next_multiple_of(8), 0);
    call(&control, TABLE_LOAD, &mut request(name, "", READ_ONLY, &spec))?;
    // Without the flag "suspend", this resumes: the table is live from here on.
    call(&control, DEV_SUSPEND, &mut request(name, "", READ_ONLY, &[]))?;
    let dev = created.get(40..48).and_then(|dev| dev.try_into().ok()).map_or(0, u64::from_le_bytes);
    let minor = (dev & 0xff) | ((dev >> 12) & 0xfff00);
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

fn request(name: &str, uuid: &str, flags: u32, spec: &[u8]) -> Vec<u8> {
    let mut request = vec![0; HEADER];
    let size = u32::try_from(HEADER + spec.len()).unwrap_or(u32::MAX);
    put(&mut request, 0, &4u32.to_le_bytes());
    put(&mut request, 12, &size.to_le_bytes());
    put(&mut request, 16, &u32::try_from(HEADER).unwrap_or(0).to_le_bytes());
    put(&mut request, 20, &u32::from(!spec.is_empty()).to_le_bytes());
    put(&mut request, 28, &flags.to_le_bytes());
    put(&mut request, 48, name.as_bytes());
    put(&mut request, 176, uuid.as_bytes());
    request.extend(spec);
    request
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}

#[expect(
    unsafe_code,
    reason = "there is no safe call for this ioctl in any crate that builds without libclang"
)]
fn call(control: &File, command: u8, request: &mut [u8]) -> io::Result<()> {
    let code = nix::request_code_readwrite!(0xfd, command, HEADER);
    // SAFETY: `request` is a `dm_ioctl` whose `data_size` is its whole length; the kernel reads and writes no more.
    let done = unsafe { libc::ioctl(control.as_raw_fd(), code, request.as_mut_ptr()) };
    nix::errno::Errno::result(done)?;
    Ok(())
}
