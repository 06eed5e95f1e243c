//! The verified root: which partition holds it, and the kernel's table for it.
//!
//! The hash tree is dm-verity's of version 1 with sha256 over blocks of 4 KiB, without a superblock, on the same
//! partition as the data.  The path from the root hash to the first block is checked here, before the kernel is told to
//! stop at the first fault; every other block is checked by the kernel when it is read.

use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

/// Bytes of a block, of data and of the tree.
const BLOCK: usize = 4096;
/// Hashes in a block of the tree.
const HASHES: u64 = 128;

/// Root hash and shape of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verity {
    root: [u8; 32],
    salt: Vec<u8>,
    pub(crate) data_blocks: u64,
}

/// Why a partition does not hold the root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerityError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it holds another root")]
    Other,
    #[error("its hash tree is damaged at block {0}")]
    Tree(u64),
    #[error("its first block is damaged")]
    Data,
}

impl Verity {
    /// Reads the root hash, and `<data blocks>:<salt>` (a salt may be empty or `-`); the tree lies behind the data.
    pub(crate) fn parse(root: &str, shape: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(root, &mut hash).ok()?;
        let (blocks, salt) = shape.split_once(':')?;
        let salt = if salt == "-" { Vec::new() } else { hex::decode(salt).ok()? };
        let data_blocks: u64 = blocks.parse().ok()?;
        let fits = salt.len() <= 256 && (1..1 << 40).contains(&data_blocks);
        fits.then_some(Self { root: hash, salt, data_blocks })
    }

    pub(crate) fn root_hex(&self) -> String {
        hex::encode(self.root)
    }

    /// 512-byte sectors of the data.
    pub(crate) fn sectors(&self) -> u64 {
        self.data_blocks * 8
    }

    /// The kernel's parameters for target `verity` on the device `major:minor`.
    pub(crate) fn table(&self, device: &str) -> String {
        let salt = if self.salt.is_empty() { "-".to_owned() } else { hex::encode(&self.salt) };
        format!(
            "1 {device} {device} {BLOCK} {BLOCK} {blocks} {blocks} sha256 {} {salt} 1 panic_on_corruption",
            self.root_hex(),
            blocks = self.data_blocks
        )
    }

    /// Checks the path from the root hash down to the first block of data.
    pub(crate) fn check<R: Read + Seek>(&self, partition: &mut R) -> Result<(), VerityError> {
        let mut wanted = self.root;
        // The tree lies with its top first; each level begins where the one above it ends.
        let mut at = self.data_blocks;
        for (depth, blocks) in self.levels().into_iter().rev().enumerate() {
            let block = read_block(partition, at)?;
            if self.hash(&block) != wanted {
                return Err(if depth == 0 { VerityError::Other } else { VerityError::Tree(at) });
            }
            wanted = block.first_chunk().copied().unwrap_or_default();
            at += blocks;
        }
        let first = read_block(partition, 0)?;
        if self.hash(&first) != wanted {
            return Err(if self.data_blocks == 1 { VerityError::Other } else { VerityError::Data });
        }
        Ok(())
    }

    /// Blocks of each level of the tree, the lowest first.
    fn levels(&self) -> Vec<u64> {
        let mut levels = Vec::new();
        let mut blocks = self.data_blocks;
        while blocks > 1 {
            blocks = blocks.div_ceil(HASHES);
            levels.push(blocks);
        }
        levels
    }

    fn hash(&self, block: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(&self.salt).chain_update(block).finalize().into()
    }
}

fn read_block<R: Read + Seek>(partition: &mut R, block: u64) -> Result<Vec<u8>, VerityError> {
    let mut bytes = vec![0; BLOCK];
    partition.seek(SeekFrom::Start(block * BLOCK as u64)).map_err(VerityError::Read)?;
    partition.read_exact(&mut bytes).map_err(VerityError::Read)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Cursor;
    use std::process::Command;

    use super::*;

    /// A partition with a tree made by `veritysetup`, and what its command line must say.
    fn partition(blocks: usize) -> (Vec<u8>, Verity) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        let data: Vec<u8> =
            (0..blocks * BLOCK).map(|n| u8::try_from(n * 7 % 253).unwrap()).collect();
        fs::write(&path, data).unwrap();
        let out = Command::new("/usr/sbin/veritysetup")
            .args([
                "format",
                "--no-superblock",
                "--salt=00ff10",
                "--data-block-size=4096",
                "--hash-block-size=4096",
            ])
            .arg(format!("--data-blocks={blocks}"))
            .arg(format!("--hash-offset={}", blocks * BLOCK))
            .args([&path, &path])
            .output()
            .expect("veritysetup is missing: install the Debian package cryptsetup-bin");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let root = text.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim();
        let verity = Verity::parse(root, &format!("{blocks}:00ff10")).unwrap();
        (fs::read(&path).unwrap(), verity)
    }

    #[test]
    fn a_root_made_by_veritysetup_is_found_and_damage_on_the_way_is_named() {
        for blocks in [2, 128, 129, 128 * 128 + 1] {
            let (mut bytes, verity) = partition(blocks);
            verity
                .check(&mut Cursor::new(&bytes))
                .unwrap_or_else(|err| panic!("{blocks} blocks: {err}"));
            let other = Verity { root: [0; 32], ..verity.clone() };
            assert_eq!(
                other.check(&mut Cursor::new(&bytes)).unwrap_err().to_string(),
                "it holds another root"
            );
            bytes[100] ^= 1;
            assert_eq!(
                verity.check(&mut Cursor::new(&bytes)).unwrap_err().to_string(),
                "its first block is damaged"
            );
            bytes[100] ^= 1;
            if blocks > 128 {
                let second = usize::try_from(verity.data_blocks).unwrap() + 1;
                bytes[second * BLOCK] ^= 1;
                assert_eq!(
                    verity.check(&mut Cursor::new(&bytes)).unwrap_err().to_string(),
                    format!("its hash tree is damaged at block {second}")
                );
            }
        }
    }

    #[test]
    fn the_table_is_what_the_kernel_takes() {
        let verity = Verity::parse(&"ab".repeat(32), "10:-").unwrap();
        assert_eq!(
            verity.table("254:3"),
            format!(
                "1 254:3 254:3 4096 4096 10 10 sha256 {} - 1 panic_on_corruption",
                "ab".repeat(32)
            )
        );
        assert_eq!(verity.sectors(), 80);
        for (root, shape) in [
            ("", "10:-"),
            ("ab", "1:-"),
            (&"ab".repeat(32), "0:-"),
            (&"ab".repeat(32), "10"),
            (&"ab".repeat(32), "1:x"),
        ] {
            assert_eq!(Verity::parse(root, shape), None, "{root} {shape}");
        }
    }
}
