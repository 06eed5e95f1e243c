//! `arint os seed`: looks for a seed, takes it, claims the box with it and leaves a receipt.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arapi::arclst::{Change, Expect, Transaction};
use arapi::arwadm::{ClaimInfo, ClaimRequest, TokenAnswer};
use arapi::client::UnixClient;
use arapi::names::{Kind, ObjectName};
use arapi::objects::{InterfaceKind, SecretField};
use arbase::Chain;
use arboot::Event;
use axum::body::Body;
use http::{Method, Request};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::ring::{self, Ring};
use super::seed::{self, Admin, Medium, Seed, SeedError, Taken};

/// How long a stick may take to appear.
const STICK: Duration = Duration::from_secs(8);
/// How long the admin API may take to answer.
const READY: Duration = Duration::from_secs(60);
/// The label, of the file system or of the partition.
const LABEL: &str = "ARINT-SEED";
/// In the runtime folder: why the last seed was refused, one sentence.
pub(crate) const REFUSED: &str = "seed-refused";

/// `arint os seed`.
#[derive(Debug, clap::Args)]
pub(crate) struct SeedArgs {
    /// The folder of the Unix sockets.
    #[arg(long, default_value = "/run/arint")]
    runtime_dir: PathBuf,
    /// Where this unit keeps what must survive a restart.
    #[arg(long, default_value = "/var/lib/arint/aros")]
    state_dir: PathBuf,
    /// The key that signs seed files.
    #[arg(long, default_value = "/usr/share/arint/seed.pub")]
    key: PathBuf,
    /// The folder in which udev links disks by label.
    #[arg(long, default_value = "/dev/disk")]
    disks: PathBuf,
    /// The box's own first partition, to which a seed can be written before its first start.
    #[arg(long, default_value = "/efi")]
    esp: PathBuf,
    /// Seconds the admin API gets to make its certificate anew for a new name or address, before the receipt is
    /// written.  It looks every 30 seconds.
    #[arg(long, default_value_t = 40)]
    settle: u64,
}

/// Why no seed was applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedMainError {
    /// The runtime.
    #[error("cannot build the runtime")]
    Runtime(#[source] std::io::Error),
    /// The medium.
    #[error("cannot mount `{}`", device.display())]
    Mount {
        /// The device.
        device: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// A call to another unit.
    #[error("cannot {doing}: {said}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        said: String,
    },
}

/// Runs it.  A seed that is refused is no failure of the box: it is said, and the box can be claimed by its code.
pub(crate) fn seed_main(args: &SeedArgs) -> Result<(), SeedMainError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SeedMainError::Runtime)?;
    let place = args.runtime_dir.join(REFUSED);
    let refused = match runtime.block_on(look(args)) {
        Ok(is_applied) => {
            if is_applied {
                std::fs::remove_file(&place).ok();
            }
            return Ok(());
        }
        Err(refused) => refused,
    };
    let text = format!("seed not applied: {}", Chain(&refused));
    // The sentence itself: a journal that is read as text shows no fields.
    log::error!("{text}");
    // It is looked at whenever a medium appears, and one sentence about it is enough.
    if std::fs::read_to_string(&place).is_ok_and(|told| told == text) {
        return Ok(());
    }
    if let Err(err) = tell(&place, &text) {
        log::warn!(path:% = place.display(), error:% = err; "the reason cannot be shown");
    }
    Ring::new(Path::new(ring::DEVICE)).note(Event::Note { text });
    Ok(())
}

/// For the units that show it: on the screens, on the page for claiming, in the status.
fn tell(place: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(place, text)?;
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o640))
}

/// Whether a seed was applied.
async fn look(args: &SeedArgs) -> Result<bool, SeedMainError> {
    let admin = UnixClient::new("arwadm", args.runtime_dir.join("arwadm.sock"));
    let Some(info) = claim_info(&admin).await else {
        log::warn!("the admin API does not answer; no seed is looked for");
        return Ok(false);
    };
    let is_begun = Medium::is_begun(&args.state_dir);
    if info.recovery.is_some() || (info.claimed && !is_begun) {
        return Ok(false);
    }
    let consumed = args.state_dir.join("seeds");
    let names = [seed::FILE, seed::TAKEN];
    if names.iter().any(|name| args.esp.join(name).try_exists().unwrap_or(false)) {
        let medium =
            Medium { root: &args.esp, is_writable: true, key: &args.key, consumed: &consumed };
        return take(args, &admin, &info, &medium).await;
    }
    let Some(device) = find(&args.disks).await else {
        if is_begun {
            log::warn!("the medium of the seed that was begun is not there; plug it in again");
        }
        return Ok(false);
    };
    let at = args.runtime_dir.join("seed");
    let failed = |source| SeedMainError::Mount { device: device.clone(), source };
    std::fs::create_dir_all(&at).map_err(failed)?;
    let is_writable = mount_it(&device, &at).map_err(failed)?;
    let medium = Medium { root: &at, is_writable, key: &args.key, consumed: &consumed };
    let ended = take(args, &admin, &info, &medium).await;
    if let Err(err) = umount2(&at, MntFlags::empty()) {
        log::warn!(error:% = err; "the seed's medium stays mounted");
    }
    ended
}

async fn take(
    args: &SeedArgs,
    admin: &UnixClient,
    info: &ClaimInfo,
    medium: &Medium<'_>,
) -> Result<bool, SeedMainError> {
    let taken = match medium.take() {
        Ok(None) => return Ok(false),
        Ok(Some(taken)) => taken,
        Err(SeedError::UsedUp(by)) if by == info.node || by == arbase::host::name() => {
            medium.forget_begun();
            return Ok(false);
        }
        Err(refused @ SeedError::UsedUp(_)) => return Err(refused.into()),
        Err(refused) => {
            let mut now = info.clone();
            now.node = named(info);
            medium.leave(&receipt(&now, "", &[], Some(&Chain(&refused).to_string())), None).ok();
            return Err(refused.into());
        }
    };
    let mut applied = Vec::new();
    let ended = apply(args, admin, info, &taken, &mut applied).await;
    let error = ended.as_ref().err().map(|err| Chain(err).to_string());
    let is_renamed = taken.seed.system.is_some() || taken.seed.network.is_some();
    if error.is_none() && medium.is_writable && is_renamed {
        // The receipt is what people compare a browser's warning with.
        tokio::time::sleep(Duration::from_secs(args.settle)).await;
    }
    // Where people look afterwards: the box as it is called from now on.
    let mut now = claim_info(admin).await.unwrap_or_else(|| info.clone());
    let given = taken.seed.system.as_ref().and_then(|system| system.hostname.clone());
    now.node = given.filter(|_| error.is_none()).unwrap_or_else(|| named(&now));
    let text = receipt(&now, &taken.id, &applied, error.as_deref());
    medium.leave(&text, error.is_none().then_some(&taken))?;
    medium.consume(&taken)?;
    ended?;
    let text = format!("seed `{}` applied: {}", taken.id, applied.join(", "));
    log::info!(reason = text.as_str(); "seed");
    Ring::new(Path::new(ring::DEVICE)).note(Event::Note { text });
    Ok(true)
}

/// What the box is called: its host name, and where there is none, the name of the node.
fn named(info: &ClaimInfo) -> String {
    let name = arbase::host::name();
    if name.is_empty() { info.node.clone() } else { name }
}

async fn claim_info(admin: &UnixClient) -> Option<ClaimInfo> {
    let since = Instant::now();
    loop {
        match admin.get::<ClaimInfo>("/v1/claim").await {
            Ok(info) => return Some(info),
            Err(err) if since.elapsed() > READY => {
                log::warn!(error:% = Chain(&err); "admin API");
                return None;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

async fn find(disks: &Path) -> Option<PathBuf> {
    let since = Instant::now();
    loop {
        for by in ["by-label", "by-partlabel"] {
            let device = disks.join(by).join(LABEL);
            if device.try_exists().unwrap_or(false) {
                return Some(device);
            }
        }
        if since.elapsed() > STICK {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Mounts it to write, else to read; whether it can be written.
fn mount_it(device: &Path, at: &Path) -> std::io::Result<bool> {
    let safe =
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_SYNCHRONOUS;
    let mut last = std::io::Error::from(std::io::ErrorKind::InvalidData);
    for (flags, is_writable) in [(safe, true), (safe | MsFlags::MS_RDONLY, false)] {
        for kind in ["vfat", "ext4", "iso9660"] {
            match mount(Some(device), at, Some(kind), flags, None::<&str>) {
                Ok(()) => return Ok(is_writable && !is_read_only(at)),
                Err(err) => last = err.into(),
            }
        }
    }
    Err(last)
}

fn is_read_only(at: &Path) -> bool {
    nix::sys::statvfs::statvfs(at)
        .is_ok_and(|stat| stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

async fn apply(
    args: &SeedArgs,
    admin: &UnixClient,
    info: &ClaimInfo,
    taken: &Taken,
    applied: &mut Vec<String>,
) -> Result<(), SeedMainError> {
    let (seed, user) = (&taken.seed, &taken.admin.user);
    let mut token = None;
    // A box that lost its power in here before may be claimed already.
    if !info.claimed {
        let code = std::fs::read_to_string(args.runtime_dir.join("first-run-code"));
        let code = code.map_err(|err| SeedMainError::Call {
            doing: "read the box's first-run code",
            said: err.to_string(),
        })?;
        // Whoever gave a hash gets in with it alone; what it is claimed with until then nobody knows.
        let password = taken.admin.one_time_password.clone().unwrap_or_else(|| {
            use rand::Rng as _;
            rand::rng().sample_iter(rand::distr::Alphanumeric).take(40).map(char::from).collect()
        });
        let request = ClaimRequest { code: code.trim().to_owned(), user: user.clone(), password };
        let answer: TokenAnswer =
            call(admin, "claim the box", Method::POST, "/v1/claim", None, &request).await?;
        token = Some(answer.token);
    }
    applied.push(format!("admin {user}"));
    let (changes, names) = changes(seed, &taken.admin);
    if !changes.is_empty() {
        // Made by `seed`: a network that a seed brings has nobody to confirm it, and whoever wrote it meant it.
        let transaction =
            Transaction { changes, who: "seed".to_owned(), cid: None, dry_run: false };
        let store = arapi::arclst::Client::in_runtime_dir(&args.runtime_dir);
        store.commit(&transaction).await.map_err(|err| SeedMainError::Call {
            doing: "set what the seed says",
            said: Chain(&err).to_string(),
        })?;
        applied.extend(names);
    }
    if let Some(token) = token {
        let bearer = Some(token.as_str());
        let path = "/v1/logout";
        call::<_, serde_json::Value>(admin, "log out", Method::POST, path, bearer, &()).await?;
    }
    Ok(())
}

/// What the seed changes in the store, and what that is called in the receipt.
fn changes(seed: &Seed, admin: &Admin) -> (Vec<Change>, Vec<String>) {
    let (mut changes, mut names) = (Vec::new(), Vec::new());
    let mut put = |kind, name: &ObjectName, spec| {
        let (name, expect) = (name.clone(), Expect::Any);
        changes.push(Change::Put { kind, name, spec, expect });
    };
    if let Some(hash) = &admin.password_hash {
        let spec = serde_json::json!({"password_hash": hash, "roles": ["admin"]});
        put(Kind::User, &admin.user, spec);
        names.push("password".to_owned());
    }
    let Ok(default) = ObjectName::parse("default") else { return (changes, names) };
    if let Some(system) = &seed.system {
        put(Kind::System, &default, serde_json::json!(system));
        names.push("system".to_owned());
    }
    if let Some(network) = &seed.network {
        let mut network = network.clone();
        let mut secrets = Vec::new();
        for interface in &mut network.interfaces {
            if let InterfaceKind::Wifi { passphrase, .. } = &mut interface.kind
                && let SecretField::Value(value) = passphrase
            {
                let name = format!("seed-wifi-{}", interface.name);
                secrets.push(Change::PutSecret { name: name.clone(), value: value.clone() });
                *passphrase = SecretField::Secret(name);
            }
        }
        put(Kind::Network, &default, serde_json::json!(network));
        // Before the object that names them.
        changes.splice(0..0, secrets);
        names.push("network".to_owned());
    }
    (changes, names)
}

async fn call<In: serde::Serialize, Out: serde::de::DeserializeOwned>(
    admin: &UnixClient,
    doing: &'static str,
    method: Method,
    path: &str,
    bearer: Option<&str>,
    body: &In,
) -> Result<Out, SeedMainError> {
    let failed = |said: String| SeedMainError::Call { doing, said };
    let text = serde_json::to_vec(body).map_err(|err| failed(err.to_string()))?;
    let mut request =
        Request::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let request = request.body(Body::from(text)).map_err(|err| failed(err.to_string()))?;
    let answer = admin.exchange(request).await.map_err(|err| failed(Chain(&err).to_string()))?;
    let is_success = answer.status().is_success();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), 1 << 20)
        .await
        .map_err(|err| failed(err.to_string()))?;
    if !is_success {
        let said = serde_json::from_slice::<arapi::error::ErrorBody>(&body)
            .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |body| body.message);
        return Err(failed(said));
    }
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(text).map_err(|err| failed(err.to_string()))
}

/// The receipt: TOML, as the seed is.
fn receipt(info: &ClaimInfo, id: &str, applied: &[String], error: Option<&str>) -> String {
    let mut table = toml::Table::new();
    let mut put = |key: &str, value: String| table.insert(key.to_owned(), value.into());
    put("box", info.node.clone());
    put("fingerprint", info.fingerprint.clone().unwrap_or_default());
    put("key", info.key.clone().unwrap_or_default());
    put("time", arbase::time::rfc3339(arbase::time::now_ms()));
    put("seed", id.to_owned());
    put("applied", applied.join(", "));
    if let Some(error) = error {
        put("error", error.to_owned());
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_seed_brings_goes_into_the_store_with_its_secrets_apart() {
        let seed: Seed = toml::from_str(
            "[admin]\nuser = \"anna\"\npassword_hash = \"$argon2id$x\"\n[network]\n[[network.interfaces]]\nname = \"wlan0\"\n[network.interfaces.kind.wifi]\nssid = \"hall\"\npassphrase = { value = \"a long one\" }\n",
        )
        .unwrap();
        let admin = seed.admin.clone().unwrap();
        let (changes, names) = changes(&seed, &admin);
        assert_eq!(names, ["password", "network"]);
        assert!(matches!(&changes[0], Change::PutSecret { name, .. } if name == "seed-wifi-wlan0"));
        let Change::Put { kind: Kind::Network, spec, .. } = &changes[2] else {
            panic!("{changes:?}");
        };
        assert!(!spec.to_string().contains("a long one"), "{spec}");
    }

    #[test]
    fn a_receipt_says_which_box_took_what_and_never_a_password() {
        let info = ClaimInfo {
            claimed: true,
            node: "press-3".to_owned(),
            version: "0.1.0".to_owned(),
            fingerprint: Some("ab".to_owned()),
            key: Some("cd".to_owned()),
            ..ClaimInfo::default()
        };
        let text = receipt(&info, "site-1", &["admin anna".to_owned()], None);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["box"].as_str(), Some("press-3"));
        assert_eq!(table["applied"].as_str(), Some("admin anna"));
        assert_eq!(table["fingerprint"].as_str(), Some("ab"));
        assert_eq!(table["key"].as_str(), Some("cd"));
        assert!(!table.contains_key("error"));
    }
}
