//! A node of one's own: `arint dev` as a child, claimed and logged in to, gone when this process is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use arapi::arwadm::{ClaimRequest, LoginRequest, TokenAnswer};
use arapi::names::ObjectName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::Api;
use crate::failure::Failure;
use crate::pin::Trust;

/// The admin of a node of one's own.
pub(super) const USER: &str = "dev";
/// In its data folder: that admin's password, for its owner only.
const PASSWORD_FILE: &str = "dev-password";
/// In its data folder: what the node says.
const LOG_FILE: &str = "dev.log";
/// In its data folder: what is different from a box.  Whoever develops sees all channels on the interface page.
const CONFIG_FILE: &str = "dev.toml";
const CONFIG: &str = "[arsrv]\nopenapi = \"public\"\n";
/// Longest time until it answers.
const READY: Duration = Duration::from_secs(120);
/// Longest time for it to stop.
const GOODBYE: Duration = Duration::from_secs(30);
/// Lines of its log that are shown when it does not start.
const TAIL: usize = 8;

/// What `arint dev --json` prints when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    channels: String,
    admin: String,
    code: Option<String>,
}

/// A running node.
#[derive(Debug)]
pub(super) struct Node {
    child: Child,
    /// Where its channels answer.
    pub(super) channels: String,
    /// The address of its admin API.
    pub(super) admin: String,
    /// The token of its admin.
    pub(super) token: String,
    /// What it says.
    pub(super) log: PathBuf,
    /// Removed with this, where nobody asked to keep it.
    _temporary: Option<tempfile::TempDir>,
}

impl Node {
    /// Starts it, with its data in `data` or in a folder that goes with it, and claims it.
    pub(super) async fn start(data: Option<&Path>) -> Result<(Self, Api), Failure> {
        let failed =
            |doing: &str, err: std::io::Error| Failure::Failed(format!("cannot {doing}: {err}"));
        let (data, temporary) = match data {
            Some(data) => (data.to_owned(), None),
            None => {
                // Workers with a user of their own have to get through it.
                let folder = tempfile::Builder::new()
                    .prefix("arint-dev-")
                    .permissions(Permissions::from_mode(0o711))
                    .tempdir()
                    .map_err(|err| failed("make a folder for the node", err))?;
                (folder.path().join("node"), Some(folder))
            }
        };
        fs::create_dir_all(&data)
            .map_err(|source| Failure::Write { path: data.clone(), source })?;
        let log = data.join(LOG_FILE);
        let said = fs::File::create(&log)
            .map_err(|source| Failure::Write { path: log.clone(), source })?;
        let config = data.join(CONFIG_FILE);
        fs::write(&config, CONFIG)
            .map_err(|source| Failure::Write { path: config.clone(), source })?;
        let program =
            std::env::current_exe().map_err(|err| failed("find the program itself", err))?;
        let mut child = Command::new(program)
            .arg0("arint")
            .args(["dev", "--json", "--free-ports", "--supervised", "--data"])
            .arg(&data)
            .arg("--extra-config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said)
            .kill_on_drop(true)
            .spawn()
            .map_err(|err| failed("start a node", err))?;
        let ready = ready(&mut child, &log).await?;
        let server = ready.admin.clone();
        let stranger = Api::new(server.clone(), None, Trust::Nothing)?;
        let token = log_in(&stranger, &data, ready.code).await?;
        let api = Api::new(server.clone(), Some(token.clone()), Trust::Nothing)?;
        let Ready { channels, .. } = ready;
        let node = Self { child, channels, admin: server, token, log, _temporary: temporary };
        Ok((node, api))
    }

    /// Waits until it ends by itself, which it does not do unless something is wrong.
    pub(super) async fn ended(&mut self) -> Failure {
        let ended = self.child.wait().await;
        let how = ended.map_or_else(|err| err.to_string(), |status| status.to_string());
        Failure::Failed(format!("the node has ended ({how}){}", last_words(&self.log)))
    }

    /// Stops it and waits for its end.
    pub(super) async fn stop(mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended: Ctrl-C goes to both.
            kill(Pid::from_raw(id), Signal::SIGTERM).ok();
        }
        // What does not stop is killed when it is dropped.
        tokio::time::timeout(GOODBYE, self.child.wait()).await.ok();
    }
}

async fn ready(child: &mut Child, log: &Path) -> Result<Ready, Failure> {
    let Some(stdout) = child.stdout.take() else {
        return Err(Failure::Failed("the node has no output".to_owned()));
    };
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(READY, lines.next_line()).await;
    let document = match line {
        Ok(Ok(Some(line))) => serde_json::from_str(&line).ok(),
        _ => None,
    };
    document.ok_or_else(|| {
        Failure::Failed(format!("a node of your own does not start{}", last_words(log)))
    })
}

/// The end of the log, for whoever has to find out.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!("; it said last:\n{}", last.join("\n")) }
}

/// Claims the node, or logs in with the password of the run before.
async fn log_in(api: &Api, data: &Path, code: Option<String>) -> Result<String, Failure> {
    let path = data.join(PASSWORD_FILE);
    if let Some(code) = code {
        let user = ObjectName::parse(USER).map_err(|err| Failure::Failed(err.to_string()))?;
        let password = random()?;
        // Kept before it is used: a node that is claimed with a password nobody knows is of no use.
        write_private(&path, &password)?;
        let request = ClaimRequest { code, user, password };
        let answer: TokenAnswer = api.post("/v1/claim", &request).await?;
        return Ok(answer.token);
    }
    let password = fs::read_to_string(&path).map_err(|_| {
        Failure::Failed(format!(
            "the node in `{}` belongs to somebody already and its password is not in `{PASSWORD_FILE}`; name another folder with `--data-dir`",
            data.display()
        ))
    })?;
    let request = LoginRequest { user: USER.to_owned(), password };
    let answer: TokenAnswer = api.post("/v1/login", &request).await?;
    Ok(answer.token)
}

/// 256 bits of the kernel's randomness, in hexadecimal.
fn random() -> Result<String, Failure> {
    use std::io::Read as _;
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    Ok(hex::encode(bytes))
}

fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Failure::Write { path: path.to_owned(), source })
}
