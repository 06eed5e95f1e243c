//! A seed file: what a headless box is set up with, and whether it may be taken.
//!
//! It lies as `arint-seed.toml` on a medium labelled `ARINT-SEED`.  On a medium that can be written it is one-time: it
//! gets another name before anything of it is applied.  On one that cannot, it has to be signed, because whoever finds
//! it could use it again; and each box takes each seed once.

use std::path::{Path, PathBuf};

use arapi::names::{Kind, ObjectName};
use arapi::objects::{NetworkSpec, Spec, SystemSpec};
use arbase::ConfigError;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The file on the medium.
pub(crate) const FILE: &str = "arint-seed.toml";
/// Its name once it was taken.
pub(crate) const TAKEN: &str = "arint-seed.taken.toml";
/// The detached signature, 64 bytes or the same in base64.
const SIGNATURE: &str = "arint-seed.toml.sig";
/// What the box leaves there.
pub(crate) const RECEIPT: &str = "arint-seed.receipt.toml";

/// What a seed file says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seed {
    /// Its name: a box takes a seed of one name once.  Default: the file's SHA-256.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// The first admin.
    pub(crate) admin: Admin,
    /// Host name, time zone, NTP servers.
    #[serde(default)]
    pub(crate) system: Option<SystemSpec>,
    /// The network, Wi-Fi included.
    #[serde(default)]
    pub(crate) network: Option<NetworkSpec>,
}

/// The first admin.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admin {
    /// The name.
    pub(crate) user: ObjectName,
    /// An Argon2id hash in PHC form.
    #[serde(default)]
    pub(crate) password_hash: Option<String>,
    /// A password, to be changed by whoever logs in first.
    #[serde(default)]
    pub(crate) one_time_password: Option<String>,
}

/// Why a seed is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    /// It cannot be read, written or renamed.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what a seed file looks like.
    #[error(transparent)]
    Form(#[from] ConfigError),
    /// It cannot be used up and is not signed.
    #[error(
        "the medium with `{FILE}` cannot be written, so the file would not be used up; sign it, or use a medium that can be written"
    )]
    NotSigned,
    /// The signature is not by the key of the image.
    #[error("`{SIGNATURE}` does not fit `{FILE}` and the key of this image; sign it again")]
    BadSignature,
    /// It was taken before.
    #[error("seed `{0}` was taken by this box before; give it another `id`")]
    Consumed(String),
}

/// A seed that may be applied.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What it says.
    pub(crate) seed: Seed,
    /// Its name.
    pub(crate) id: String,
}

/// A medium, mounted.
#[derive(Debug)]
pub(crate) struct Medium<'a> {
    /// Where.
    pub(crate) root: &'a Path,
    /// Whether it can be written.
    pub(crate) is_writable: bool,
    /// The key of the image, PEM.
    pub(crate) key: &'a Path,
    /// Keeps the names of the seeds this box has taken.
    pub(crate) consumed: &'a Path,
}

impl Medium<'_> {
    /// Takes the seed, so that it cannot be taken again, neither by this box nor (where it can be written) by another;
    /// nothing where there is none.
    pub(crate) fn take(&self) -> Result<Option<Taken>, SeedError> {
        let path = self.root.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io("read", &path, source)),
        };
        if !self.is_writable {
            self.check_signature(&bytes)?;
        }
        let text = String::from_utf8_lossy(&bytes);
        let seed: Seed = arbase::config::parse(&path, &text, check)?;
        let id = seed.id.clone().unwrap_or_else(|| hex(&Sha256::digest(&bytes)));
        let mut consumed = match std::fs::read_to_string(self.consumed) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(io("read", self.consumed, source)),
        };
        if consumed.lines().any(|line| line == id) {
            return Err(SeedError::Consumed(id));
        }
        if self.is_writable {
            let taken = self.root.join(TAKEN);
            std::fs::rename(&path, &taken).map_err(|err| io("rename", &path, err))?;
            sync(self.root).map_err(|err| io("make durable", &taken, err))?;
        }
        consumed.push_str(&id);
        consumed.push('\n');
        arstore::file::write_private(self.consumed, consumed.as_bytes())
            .map_err(|err| io("write", self.consumed, std::io::Error::other(err)))?;
        Ok(Some(Taken { seed, id }))
    }

    fn check_signature(&self, bytes: &[u8]) -> Result<(), SeedError> {
        let Ok(signature) = std::fs::read(self.root.join(SIGNATURE)) else {
            return Err(SeedError::NotSigned);
        };
        let signature = match signature.len() {
            64 => signature,
            _ => base64_of(&String::from_utf8_lossy(&signature)).ok_or(SeedError::BadSignature)?,
        };
        let pem = std::fs::read_to_string(self.key).map_err(|err| io("read", self.key, err))?;
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        // The last 32 bytes of the SubjectPublicKeyInfo (RFC 8410) are the key.
        let key = base64_of(&text).unwrap_or_default();
        let key = key.last_chunk::<32>().ok_or(SeedError::BadSignature)?;
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
            .verify(bytes, &signature)
            .map_err(|_| SeedError::BadSignature)
    }

    /// Leaves a receipt; where nothing can be written, nobody gets one.
    pub(crate) fn leave(&self, receipt: &str, is_applied: bool) -> Result<(), SeedError> {
        if !self.is_writable {
            return Ok(());
        }
        let path = self.root.join(RECEIPT);
        std::fs::write(&path, receipt).map_err(|err| io("write", &path, err))?;
        if is_applied {
            // It may hold a password.
            let taken = self.root.join(TAKEN);
            std::fs::remove_file(&taken).map_err(|err| io("remove", &taken, err))?;
        }
        sync(self.root).map_err(|err| io("make durable", &path, err))
    }
}

fn check(seed: &Seed) -> Result<(), (&'static str, String)> {
    let admin = &seed.admin;
    match (&admin.password_hash, &admin.one_time_password) {
        (Some(hash), None) if hash.starts_with("$argon2id$") => {}
        (Some(_), None) => {
            return Err((
                "admin.password_hash",
                "an Argon2id hash in PHC form was expected".to_owned(),
            ));
        }
        (None, Some(password)) if password.chars().count() >= 12 => {}
        (None, Some(_)) => {
            return Err((
                "admin.one_time_password",
                "12 characters or more were expected".to_owned(),
            ));
        }
        _ => {
            let rule = "either `password_hash` or `one_time_password` was expected";
            return Err(("admin", rule.to_owned()));
        }
    }
    if let Some(system) = &seed.system {
        check_spec("system", Kind::System, serde_json::to_value(system))?;
    }
    if let Some(network) = &seed.network {
        check_spec("network", Kind::Network, serde_json::to_value(network))?;
    }
    Ok(())
}

fn check_spec(
    field: &'static str,
    kind: Kind,
    spec: serde_json::Result<serde_json::Value>,
) -> Result<(), (&'static str, String)> {
    let spec = spec.map_err(|err| (field, err.to_string()))?;
    Spec::parse(kind, "default", spec).map(drop).map_err(|err| (field, err.to_string()))
}

fn base64_of(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Flushes the whole file system that a folder lies on: FAT knows no less.
fn sync(dir: &Path) -> std::io::Result<()> {
    let dir = std::fs::File::open(dir)?;
    Ok(nix::unistd::syncfs(&dir)?)
}

fn io(what: &'static str, path: &Path, source: std::io::Error) -> SeedError {
    SeedError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use arbase::Chain;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    const GOOD: &str = "id = \"site-1\"\n[admin]\nuser = \"anna\"\none_time_password = \"twelve chars or more\"\n[system]\nhostname = \"press-3\"\ntimezone = \"Europe/Berlin\"\n";

    struct Stick {
        dir: tempfile::TempDir,
    }

    impl Stick {
        fn with(text: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("stick")).unwrap();
            std::fs::write(dir.path().join("stick").join(FILE), text).unwrap();
            Self { dir }
        }

        fn has(&self, name: &str) -> bool {
            self.dir.path().join("stick").join(name).is_file()
        }

        fn take(&self, is_writable: bool) -> Result<Option<Taken>, SeedError> {
            let (root, key) = (self.dir.path().join("stick"), self.dir.path().join("seed.pub"));
            let consumed = self.dir.path().join("seeds");
            Medium { root: &root, is_writable, key: &key, consumed: &consumed }.take()
        }

        fn sign(&self) {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
            let stick = self.dir.path().join("stick");
            let text = std::fs::read(stick.join(FILE)).unwrap();
            std::fs::write(stick.join(SIGNATURE), pair.sign(&text)).unwrap();
            use base64::Engine as _;
            let mut der = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
            der.extend(pair.public_key().as_ref());
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
            std::fs::write(self.dir.path().join("seed.pub"), pem).unwrap();
        }
    }

    #[test]
    fn a_seed_is_used_up_before_it_is_applied_and_never_taken_twice() {
        let stick = Stick::with(GOOD);
        let taken = stick.take(true).unwrap().unwrap();
        assert_eq!(taken.id, "site-1");
        assert_eq!(taken.seed.system.unwrap().hostname.unwrap(), "press-3");
        assert!(!stick.has(FILE) && stick.has(TAKEN));
        assert!(stick.take(true).unwrap().is_none());
        std::fs::write(stick.dir.path().join("stick").join(FILE), GOOD).unwrap();
        assert_eq!(
            stick.take(true).unwrap_err().to_string(),
            "seed `site-1` was taken by this box before; give it another `id`"
        );
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line_and_the_seed_stays() {
        let stick = Stick::with(&GOOD.replace("timezone", "timezon"));
        let refused = stick.take(true).unwrap_err();
        let path = stick.dir.path().join("stick").join(FILE);
        let expected = format!("config `{}` line 7: unknown field `timezon`", path.display());
        assert!(Chain(&refused).to_string().starts_with(&expected), "{}", Chain(&refused));
        assert!(stick.has(FILE));
    }

    #[test]
    fn a_medium_that_cannot_be_written_has_to_be_signed_by_the_images_key() {
        let stick = Stick::with(GOOD);
        assert_eq!(
            stick.take(false).unwrap_err().to_string(),
            "the medium with `arint-seed.toml` cannot be written, so the file would not be used up; sign it, or use a medium that can be written"
        );
        stick.sign();
        assert!(stick.take(false).unwrap().is_some());
        let stick = Stick::with(GOOD);
        stick.sign();
        std::fs::write(stick.dir.path().join("stick").join(FILE), GOOD.replace("anna", "eve"))
            .unwrap();
        assert!(matches!(stick.take(false), Err(SeedError::BadSignature)));
    }

    #[test]
    fn an_admin_needs_one_of_two_kinds_of_password() {
        let refused = Stick::with("[admin]\nuser = \"anna\"\n").take(true).unwrap_err();
        assert!(
            refused
                .to_string()
                .ends_with("`admin`: either `password_hash` or `one_time_password` was expected"),
            "{refused}"
        );
    }
}
