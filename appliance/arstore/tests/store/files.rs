//! Small durable files.

use std::os::unix::fs::PermissionsExt as _;

use arstore::file::{read, write_private};

#[test]
fn a_small_file_is_written_whole_replaced_and_for_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/key");
    assert_eq!(read(&path).unwrap(), None);
    write_private(&path, b"one").unwrap();
    write_private(&path, b"two").unwrap();
    assert_eq!(read(&path).unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = std::fs::read_dir(dir.path().join("new"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["key"]);
}

#[test]
fn many_writers_of_one_file_leave_one_of_their_contents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::thread::scope(|scope| {
        for byte in 0..8u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..20 {
                    write_private(path, &[byte; 1000]).unwrap();
                }
            });
        }
    });
    let content = read(&path).unwrap().unwrap();
    assert_eq!(content, [content[0]; 1000]);
}

#[test]
fn a_file_that_cannot_be_written_or_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let below = file.join("key");
    assert_eq!(
        write_private(&below, b"x").unwrap_err().to_string(),
        format!("cannot write `{}`", below.display())
    );
    assert_eq!(
        read(dir.path()).unwrap_err().to_string(),
        format!("cannot read `{}`", dir.path().display())
    );
}
