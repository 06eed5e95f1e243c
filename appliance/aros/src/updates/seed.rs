//! A seed file: what a headless box is set up with, and whether it may be taken.
//!
//! It lies as `arint-seed.toml` on a medium labelled `ARINT-SEED`, or on the box's own first partition.  Without a
//! signature it is one-time: it gets another name before anything of it is applied, so the medium has to be writable,
//! because whoever finds it could use it again.  With a signature it stays, and may go from box to box; each box takes
//! each seed once.
//!
//! **Invariant:** a box that loses power while it takes a seed takes it to its end at the next start.

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
pub(crate) const SIGNATURE: &str = "arint-seed.toml.sig";
/// What the box leaves there.
pub(crate) const RECEIPT: &str = "arint-seed.receipt.toml";
/// Beside the names of the seeds this box has taken: the SHA-256 of the one that it is taking.
const BEGUN: &str = "seed-begun";

/// What a seed file says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seed {
    /// Its name: a box takes a seed of one name once.  Default: the file's SHA-256.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// The first admin; only the installer's part does without one.
    #[serde(default)]
    pub(crate) admin: Option<Admin>,
    /// What the installer on the same stick does without asking.
    #[serde(default)]
    pub(crate) install: Option<Install>,
    /// Host name, time zone, NTP servers.
    #[serde(default)]
    pub(crate) system: Option<SystemSpec>,
    /// The network, Wi-Fi included.
    #[serde(default)]
    pub(crate) network: Option<NetworkSpec>,
}

/// What the installer does without asking.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Install {
    /// The disk, by the kernel's name or by one in `/dev/disk/by-id`.
    pub(crate) disk: String,
    /// Also if there is something on it.
    #[serde(default)]
    pub(crate) erase: bool,
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
    /// Another box took it.
    #[error(
        "the seed on this medium was used up by the box `{0}`; write `{FILE}` to it again for this one"
    )]
    UsedUp(String),
    /// It is for the installer alone.
    #[error("`{FILE}` names no `admin`, so there is nothing to set up with it")]
    NoAdmin,
}

/// A seed that may be applied.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What it says.
    pub(crate) seed: Seed,
    /// The first admin.
    pub(crate) admin: Admin,
    /// Its name.
    pub(crate) id: String,
    /// Whether it is signed, and stays on the medium.
    is_signed: bool,
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
    /// Takes the seed, so that it cannot be taken again, neither by this box nor (where it is not signed) by another;
    /// nothing where there is none.  One that this box began to take is taken again.
    pub(crate) fn take(&self) -> Result<Option<Taken>, SeedError> {
        let begun = read_if_there(&self.begun())?.unwrap_or_default();
        let (path, bytes) = match read_if_there(&self.root.join(FILE))? {
            Some(bytes) => (self.root.join(FILE), bytes),
            None => match read_if_there(&self.root.join(TAKEN))? {
                Some(bytes) if sha256(&bytes).as_bytes() == begun => (self.root.join(TAKEN), bytes),
                _ => return self.used_up(),
            },
        };
        let is_signed = self.root.join(SIGNATURE).try_exists().unwrap_or(false);
        if is_signed {
            self.check_signature(&bytes)?;
        } else if !self.is_writable {
            return Err(SeedError::NotSigned);
        }
        let seed = parse(&path, &bytes)?;
        let Some(admin) = seed.admin.clone() else { return Err(SeedError::NoAdmin) };
        let hash = sha256(&bytes);
        let id = seed.id.clone().unwrap_or_else(|| hash.clone());
        if self.consumed()?.lines().any(|line| line == id) {
            return Err(SeedError::Consumed(id));
        }
        keep(&self.begun(), hash.as_bytes())?;
        if !is_signed && path.ends_with(FILE) {
            let taken = self.root.join(TAKEN);
            std::fs::rename(&path, &taken).map_err(|err| io("rename", &path, err))?;
            sync(self.root).map_err(|err| io("make durable", &taken, err))?;
        }
        Ok(Some(Taken { seed, admin, id, is_signed }))
    }

    /// Whether this box has begun to take a seed and has not come to its end.
    pub(crate) fn is_begun(state_dir: &Path) -> bool {
        state_dir.join(BEGUN).try_exists().unwrap_or(false)
    }

    /// This box is done with a seed: it never takes it again.
    pub(crate) fn consume(&self, taken: &Taken) -> Result<(), SeedError> {
        let mut consumed = self.consumed()?;
        consumed.push_str(&taken.id);
        consumed.push('\n');
        keep(self.consumed, consumed.as_bytes())?;
        std::fs::remove_file(self.begun()).map_err(|err| io("remove", &self.begun(), err))
    }

    /// Forgets what was begun: its receipt is there already.
    pub(crate) fn forget_begun(&self) {
        std::fs::remove_file(self.begun()).ok();
    }

    fn begun(&self) -> PathBuf {
        self.consumed.with_file_name(BEGUN)
    }

    fn consumed(&self) -> Result<String, SeedError> {
        let bytes = read_if_there(self.consumed)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where there is a receipt and no seed, somebody should know why nothing happens.
    fn used_up(&self) -> Result<Option<Taken>, SeedError> {
        let receipt = read_if_there(&self.root.join(RECEIPT))?.unwrap_or_default();
        let table = String::from_utf8_lossy(&receipt).parse::<toml::Table>().unwrap_or_default();
        let by = table.get("box").and_then(toml::Value::as_str);
        match by.filter(|_| !table.contains_key("error")) {
            Some(by) => Err(SeedError::UsedUp(by.to_owned())),
            None => Ok(None),
        }
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
    pub(crate) fn leave(&self, receipt: &str, applied: Option<&Taken>) -> Result<(), SeedError> {
        if !self.is_writable {
            return Ok(());
        }
        let path = self.root.join(RECEIPT);
        std::fs::write(&path, receipt).map_err(|err| io("write", &path, err))?;
        if applied.is_some_and(|taken| !taken.is_signed) {
            // It may hold a password.
            let taken = self.root.join(TAKEN);
            std::fs::remove_file(&taken).map_err(|err| io("remove", &taken, err))?;
        }
        sync(self.root).map_err(|err| io("make durable", &path, err))
    }
}

/// Reads what a seed file says.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Seed, SeedError> {
    Ok(arbase::config::parse(path, &String::from_utf8_lossy(bytes), check)?)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, SeedError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io("read", path, source)),
    }
}

fn keep(path: &Path, bytes: &[u8]) -> Result<(), SeedError> {
    arstore::file::write_private(path, bytes)
        .map_err(|err| io("write", path, std::io::Error::other(err)))
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn check(seed: &Seed) -> Result<(), (&'static str, String)> {
    match &seed.admin {
        Some(admin) => check_admin(admin)?,
        None if seed.install.is_some() => {}
        None => return Err(("admin", "the first admin was expected".to_owned())),
    }
    if let Some(system) = &seed.system {
        check_spec("system", Kind::System, serde_json::to_value(system))?;
    }
    if let Some(network) = &seed.network {
        check_spec("network", Kind::Network, serde_json::to_value(network))?;
    }
    Ok(())
}

fn check_admin(admin: &Admin) -> Result<(), (&'static str, String)> {
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

        fn with_medium<T>(&self, is_writable: bool, work: impl FnOnce(&Medium<'_>) -> T) -> T {
            let (root, key) = (self.dir.path().join("stick"), self.dir.path().join("seed.pub"));
            let consumed = self.dir.path().join("seeds");
            work(&Medium { root: &root, is_writable, key: &key, consumed: &consumed })
        }

        /// Taken, but the power fails before the box is done.
        fn begin(&self, is_writable: bool) -> Result<Option<Taken>, SeedError> {
            self.with_medium(is_writable, |medium| medium.take())
        }

        fn take(&self, is_writable: bool) -> Result<Option<Taken>, SeedError> {
            self.with_medium(is_writable, |medium| {
                let taken = medium.take()?;
                if let Some(taken) = &taken {
                    medium.leave("box = \"press-3\"\n", Some(taken))?;
                    medium.consume(taken)?;
                }
                Ok(taken)
            })
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
        assert!(!stick.has(FILE) && !stick.has(TAKEN) && stick.has(RECEIPT));
        assert_eq!(
            stick.take(true).unwrap_err().to_string(),
            "the seed on this medium was used up by the box `press-3`; write `arint-seed.toml` to it again for this one"
        );
        std::fs::write(stick.dir.path().join("stick").join(FILE), GOOD).unwrap();
        assert_eq!(
            stick.take(true).unwrap_err().to_string(),
            "seed `site-1` was taken by this box before; give it another `id`"
        );
    }

    #[test]
    fn a_seed_that_was_begun_when_the_power_failed_is_taken_to_its_end_by_the_same_box() {
        let stick = Stick::with(GOOD);
        assert!(stick.begin(true).unwrap().is_some());
        assert!(!stick.has(FILE) && stick.has(TAKEN));
        assert!(Medium::is_begun(stick.dir.path()));
        assert_eq!(stick.take(true).unwrap().unwrap().id, "site-1");
        assert!(!stick.has(TAKEN) && !Medium::is_begun(stick.dir.path()));
        // Another box does not go on with what this one began.
        let stick = Stick::with(GOOD);
        assert!(stick.begin(true).unwrap().is_some());
        std::fs::remove_file(stick.dir.path().join(BEGUN)).unwrap();
        assert!(stick.take(true).unwrap().is_none());
    }

    #[test]
    fn a_signed_seed_stays_for_the_next_box_and_a_wrong_signature_counts_on_any_medium() {
        let stick = Stick::with(GOOD);
        stick.sign();
        assert!(stick.take(true).unwrap().is_some());
        assert!(stick.has(FILE) && stick.has(RECEIPT));
        assert!(matches!(stick.take(true), Err(SeedError::Consumed(_))));
        std::fs::remove_file(stick.dir.path().join("seeds")).unwrap();
        std::fs::write(stick.dir.path().join("stick").join(SIGNATURE), [0; 64]).unwrap();
        assert_eq!(
            stick.take(true).unwrap_err().to_string(),
            "`arint-seed.toml.sig` does not fit `arint-seed.toml` and the key of this image; sign it again"
        );
    }

    #[test]
    fn a_seed_for_the_installer_alone_needs_no_admin_and_sets_nothing_up() {
        let stick = Stick::with("[install]\ndisk = \"nvme0n1\"\n");
        assert_eq!(
            stick.take(true).unwrap_err().to_string(),
            "`arint-seed.toml` names no `admin`, so there is nothing to set up with it"
        );
        let refused = Stick::with("id = \"x\"\n").take(true).unwrap_err().to_string();
        assert!(refused.ends_with("`admin`: the first admin was expected"), "{refused}");
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
