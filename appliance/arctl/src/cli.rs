//! The commands and their arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Administer an ARINT box.
#[derive(Debug, Parser)]
#[command(name = "arctl", version, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the answer is no (`diff` found differences, `status` found the box not well, `system probes` found one that fails, an import did not take everything).";

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The address of the box's admin API, for example https://192.168.1.7:8183
    #[arg(long, global = true, value_name = "URL", env = "ARCTL_SERVER")]
    pub(crate) server: Option<String>,
    /// A token to use instead of the one of the login
    #[arg(long, global = true, value_name = "TOKEN", env = "ARCTL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The SHA-256 that the box's certificate must have
    #[arg(long, global = true, value_name = "HEX", env = "ARCTL_FINGERPRINT")]
    pub(crate) fingerprint: Option<String>,
    /// The profile in the config file
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "ARCTL_PROFILE",
        default_value = "default"
    )]
    pub(crate) profile: String,
    /// Answer with JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Claim a new box: make its first admin, with the code that it shows
    Claim {
        /// The code, for example K7QF-2MXD
        #[arg(long)]
        code: Option<String>,
        /// The name of the admin
        #[arg(long, default_value = "admin")]
        user: String,
        #[command(flatten)]
        password: Password,
    },
    /// Log in; the token is kept for the commands that follow
    Login {
        /// The user
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        password: Password,
    },
    /// Log out; the token ends
    Logout,
    /// Say who is logged in and what he may do
    Whoami,
    /// Show objects of a kind, or one
    Get {
        /// The kind, for example channel or channels
        kind: String,
        /// The name
        name: Option<String>,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t = Form::Table)]
        output: Form,
    },
    /// Make and change objects from YAML, all or none
    Apply {
        #[command(flatten)]
        files: Files,
        /// Check everything, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write objects as YAML that `apply` can read; secrets are named, not shown
    Export {
        /// The kinds; default: everything that is configured by hand
        kinds: Vec<String>,
    },
    /// Show what `apply` would change; exits with 3 if there is something
    Diff {
        #[command(flatten)]
        files: Files,
    },
    /// Remove objects
    Delete {
        /// The kind
        #[arg(required_unless_present = "file")]
        kind: Option<String>,
        /// The names
        #[arg(required_unless_present = "file")]
        names: Vec<String>,
        /// Remove the objects of these files or folders (`-`: stdin)
        #[arg(short, long, value_name = "FILE", conflicts_with_all = ["kind", "names"])]
        file: Vec<PathBuf>,
    },
    /// Take over an installation of Zato: exports of its command enmasse, and ini files of user config
    ImportEnmasse(ImportEnmasse),
    /// Take an OpenAPI document as an outgoing connection with a typed client, or as channels with services to be filled in
    #[command(name = "import-openapi")]
    ImportOpenapi(ImportOpenapi),
    /// Show what became of an object
    History {
        /// The kind
        kind: String,
        /// The name
        name: String,
        /// At most so many entries
        #[arg(long, default_value_t = 20)]
        most: u32,
    },
    /// Make files to begin with; needs no box
    #[command(subcommand)]
    New(NewCommand),
    /// Develop services: deploys what is saved to a node of your own, and makes a test call each time
    Dev(DevArgs),
    /// Deploy services: files of Python source, or folders with them (their tests apart)
    Deploy {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Check only
        #[arg(long)]
        dry_run: bool,
        /// The packages they need; default: `requirements.txt` of the folder, or those they have
        #[arg(long, value_name = "FILE")]
        requirements: Option<PathBuf>,
        /// Resolve the requirements again, to newer versions where there are any
        #[arg(long)]
        upgrade: bool,
        /// The group of workers that their services are to run in
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// Show Python's traceback of a refusal
        #[arg(short, long)]
        verbose: bool,
    },
    /// Python packages: wheels on the box, and what is built of them
    Packages {
        /// What to do; default: list them
        #[command(subcommand)]
        action: Option<PackagesAction>,
    },
    /// Deploy an earlier version of a module again
    Rollback {
        /// The module
        module: String,
        /// The version; default: the one before
        #[arg(long, value_name = "N")]
        to: Option<u64>,
        /// Show Python's traceback of a refusal
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show the versions of a module
    Versions {
        /// The module
        module: String,
    },
    /// Invoke a service by hand
    Invoke {
        /// The service
        service: String,
        /// The payload: JSON, `@FILE`, or `-` for stdin
        #[arg(short, long, value_name = "JSON")]
        data: Option<String>,
        /// Longest time, milliseconds
        #[arg(long, value_name = "MS")]
        timeout_ms: Option<u64>,
    },
    /// Look for some seconds at what services are doing, and say where their time goes
    Profile(ProfileArgs),
    /// Ping what an outgoing connection leads to
    Ping {
        /// The connection
        outgoing: String,
    },
    /// Show log lines of the whole box
    Logs {
        /// Go on with new lines
        #[arg(short, long)]
        follow: bool,
        /// Only lines of this request
        #[arg(long)]
        cid: Option<String>,
        /// Only lines of this unit or service
        #[arg(long)]
        unit: Option<String>,
        /// Only lines of this level and graver ones: error, warn, info, debug
        #[arg(long)]
        level: Option<String>,
        /// At most so many old lines
        #[arg(long, default_value_t = 100)]
        tail: usize,
    },
    /// Show a request step by step with its times, or list the last ones
    Trace {
        /// The request's correlation id (`X-Zato-CID`); without it the last requests are listed
        cid: Option<String>,
        /// List only those that failed
        #[arg(long, conflicts_with = "cid")]
        failed: bool,
        /// List only those that took so many milliseconds at least
        #[arg(long, value_name = "MS", conflicts_with = "cid")]
        slow: Option<u64>,
        /// List at most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        most: usize,
    },
    /// Say how the box is; exits with 3 if it is not well
    Status,
    /// Show the audit log
    Audit {
        #[command(flatten)]
        filter: AuditFilter,
    },
    /// Show the requests and answers that a channel has kept
    Messages {
        /// The channel
        channel: String,
        #[command(flatten)]
        filter: MessageFilter,
    },
    /// Users and their passwords
    #[command(subcommand)]
    User(UserCommand),
    /// Long-lived tokens for programs
    #[command(subcommand)]
    Token(TokenCommand),
    /// Secrets that several objects share
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Credentials of channels and connections
    #[command(subcommand)]
    Security(SecurityCommand),
    /// Update the box, and see what lies in its slots
    #[command(subcommand)]
    Update(UpdateCommand),
    /// The operating system of the box: units, journal, power
    #[command(subcommand)]
    System(SystemCommand),
    /// The network of the box
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Let somebody help: a log-in for a time, and what he needs to know
    #[command(subcommand)]
    Support(SupportCommand),
    /// Destroy everything on the box but its image
    FactoryReset {
        /// The box's host name, instead of typing it on the terminal
        #[arg(long, value_name = "NAME")]
        hostname: Option<String>,
    },
    /// Write the completions of a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// What can be begun.
#[derive(Debug, Subcommand)]
pub(crate) enum NewCommand {
    /// Make a service and its test, ready to be changed; nothing that is there is overwritten
    Service {
        /// The service's name, for example orders.create
        name: String,
        /// Where to
        #[arg(long, value_name = "DIR", default_value = ".")]
        folder: PathBuf,
    },
}

/// What is developed, and how it is tried.
#[derive(Debug, Clone, Args)]
pub(crate) struct DevArgs {
    /// Files of Python source, or folders with them; tests (`test_*.py`, `conftest.py`) stay out
    #[arg(default_value = ".", value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Objects in YAML, such as channels: applied at the start and whenever they are saved (a file or a folder)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// The test call after each save: a service (`orders.create`) or a request (`/orders`, `PUT /orders/7`)
    #[arg(long, value_name = "CALL")]
    pub(crate) call: Option<String>,
    /// What the test call sends: text, or `@FILE`, which may be saved as well; to a service it is JSON
    #[arg(short, long, value_name = "DATA", requires = "call")]
    pub(crate) data: Option<String>,
    /// A header of the test request, `Name: value`; may be given several times
    #[arg(short = 'H', long, value_name = "HEADER", requires = "call")]
    pub(crate) header: Vec<String>,
    /// Keep the node's data in this folder; default: it goes with the node
    #[arg(long, value_name = "DIR", conflicts_with = "on_box")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Work on the box that you are logged in to, not on a node of your own; `--server` implies it
    #[arg(long)]
    pub(crate) on_box: bool,
}

/// What is looked at, and how it is shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProfileArgs {
    /// The service; default: all
    pub(crate) service: Option<String>,
    /// For how long, 1 to 120
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub(crate) seconds: u32,
    /// How often, times a second, 1 to 1000
    #[arg(long, value_name = "HZ", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rate: u32,
    /// Only this worker, for example default-3 (see `arctl status`); default: all
    #[arg(long, value_name = "NAME")]
    pub(crate) worker: Option<String>,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = ProfileForm::Text)]
    pub(crate) format: ProfileForm,
    /// Write it to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// How a profile is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileForm {
    /// Tables of functions
    Text,
    /// One stack a line, for flame graphs
    Collapsed,
    /// A file for speedscope
    Speedscope,
}

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Columns
    Table,
    /// YAML that `apply` can read
    Yaml,
    /// JSON with everything the box knows of them
    Json,
}

/// Where a password comes from.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Password {
    /// Read the password from stdin instead of the terminal
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// Where objects come from.
#[derive(Debug, Clone, Args)]
pub(crate) struct Files {
    /// A file of YAML documents, a folder of such files, or `-` for stdin
    #[arg(short, long, required = true, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
}

/// What is taken over, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportEnmasse {
    /// Exports in YAML or JSON (`-`: stdin), and ini files, whose names without `.ini` are those of the user configs
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Say what would happen, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A file of lines NAME=value, for what the exports name as Zato_Enmasse_Env.NAME; before the environment
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// Where to keep what is not taken; default: the first export's name with .not-taken.yaml, in this folder
    #[arg(long, value_name = "FILE")]
    pub(crate) not_taken: Option<PathBuf>,
}

/// What an OpenAPI document is to become.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportOpenapi {
    /// The document, OpenAPI 3.0 or 3.1 in YAML or JSON (`-`: stdin)
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What it describes
    #[arg(long = "as", value_enum, default_value_t = ImportAs::Outgoing)]
    pub(crate) import_as: ImportAs,
    /// The name of the connection, or of the module of services; default: of the document's title
    #[arg(long, visible_alias = "module", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Where the module of Python goes; default: NAME_client.py, for channels NAME.py, in this folder
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Do one half only: `module` needs no box, `objects` writes no file
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) only: Option<ImportOnly>,
    /// Write over a module that was changed by hand
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what would happen, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Outgoing: where the other side is, instead of the document's first server: `https://api.example.com`, with a path or without
    #[arg(long, value_name = "URL")]
    pub(crate) host: Option<String>,
    /// Channels: the path that all others are below, instead of that of the document's first server
    #[arg(long, value_name = "PATH")]
    pub(crate) base_path: Option<String>,
    /// Outgoing: the document's security scheme that the connection presents; default: the one with which most can be called
    #[arg(long, value_name = "NAME", conflicts_with = "security")]
    pub(crate) scheme: Option<String>,
    /// A security of the box, instead of those of the document
    #[arg(long, value_name = "NAME")]
    pub(crate) security: Option<String>,
    /// The user (or client id) that the other side knows; for channels, that callers give
    #[arg(long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Outgoing: ask for the password, key or token on the terminal
    #[arg(long, conflicts_with = "secret_stdin")]
    pub(crate) ask_secret: bool,
    /// Outgoing: read the password, key or token from stdin
    #[arg(long)]
    pub(crate) secret_stdin: bool,
    /// Outgoing: a certificate authority in PEM to trust for this connection
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
}

/// What a document becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportAs {
    /// What services of the box call: a connection, and a client
    Outgoing,
    /// What others ask of the box: a channel for each operation, and services
    Channels,
}

/// Half of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportOnly {
    /// What is configured on the box
    Objects,
    /// The file of Python
    Module,
}

/// Which entries of the audit log.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditFilter {
    /// Only what this one did, for example user:anna
    #[arg(long)]
    pub(crate) who: Option<String>,
    /// Only this call, for example transaction
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only what begins with this, for example Channel/
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Only done, refused or failed
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// Only this request
    #[arg(long)]
    pub(crate) cid: Option<String>,
    /// Only from so many minutes ago on
    #[arg(long, value_name = "MINUTES")]
    pub(crate) since: Option<u64>,
    /// At most so many entries
    #[arg(long, default_value_t = 50)]
    pub(crate) most: u32,
    /// Every entry that fits, as JSON, one a line
    #[arg(long)]
    pub(crate) export: bool,
}

/// Which requests and answers.
#[derive(Debug, Clone, Args)]
pub(crate) struct MessageFilter {
    /// Only requests
    #[arg(long, conflicts_with = "sent")]
    pub(crate) received: bool,
    /// Only answers
    #[arg(long)]
    pub(crate) sent: bool,
    /// Only this request and its answer
    #[arg(long)]
    pub(crate) cid: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20)]
    pub(crate) most: u32,
    /// Show headers and bodies as well
    #[arg(long)]
    pub(crate) full: bool,
}

/// What can be done with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Show the users
    List,
    /// Make a user
    Add {
        /// The name
        name: String,
        /// A role, for example developer; may be given several times
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
        #[command(flatten)]
        password: Password,
    },
    /// Set a password: one's own, or another user's
    Passwd {
        /// The user; default: oneself
        name: Option<String>,
        /// Read the passwords from stdin: one's own present one on the first line, then the new one
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give a user other roles
    Roles {
        /// The user
        name: String,
        /// A role; may be given several times
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// Let a user log in again
    Enable {
        /// The user
        name: String,
    },
    /// Keep a user from logging in; his tokens stop working
    Disable {
        /// The user
        name: String,
    },
    /// Remove a user with his tokens
    Delete {
        /// The user
        name: String,
    },
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown once
    Create {
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// How long it lasts, days; 0: for ever; default: what the box is set to
        #[arg(long, value_name = "DAYS")]
        days: Option<u64>,
    },
    /// Show the tokens
    List,
    /// End a token
    Revoke {
        /// The token's name
        name: String,
    },
}

/// What can be done with shared secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Keep a secret under a name; its value comes from the terminal or stdin
    Set {
        /// The name
        name: String,
        /// Read the value from stdin instead of the terminal
        #[arg(long)]
        stdin: bool,
    },
    /// Show the names of the secrets
    List,
    /// Remove a secret that nothing uses
    Delete {
        /// The name
        name: String,
    },
}

/// What can be done with securities beyond `apply`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecurityCommand {
    /// Make a new password, key or token for a security and show it once
    Reset {
        /// The security
        name: String,
    },
}

/// What can be done about updates.
#[derive(Debug, Subcommand)]
pub(crate) enum UpdateCommand {
    /// Show what lies in the slots, and what an installation is doing
    Status,
    /// Install a bundle into the slot that does not run, and restart into it
    Install {
        /// A bundle file, or the http:// or https:// URL of one that the box can reach
        #[arg(value_name = "FILE|URL")]
        source: String,
        /// Take a version that is older than what may be installed
        #[arg(long)]
        allow_downgrade: bool,
        /// Leave the restart for later
        #[arg(long)]
        no_reboot: bool,
        /// Wait over the restart until the box is confirmed, or has fallen back
        #[arg(long, conflicts_with = "no_reboot")]
        wait: bool,
    },
    /// Go back to what lies in the other slot, and restart into it
    Rollback {
        /// Leave the restart for later
        #[arg(long)]
        no_reboot: bool,
    },
}

/// What can be seen and done of the operating system.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Say how the operating system is; exits with 3 if it is not well
    Status,
    /// Show the units of the service manager
    Units,
    /// Show lines of the journal
    Journal {
        /// Go on with new lines
        #[arg(short, long)]
        follow: bool,
        /// Only lines of this unit, for example arsrv.service
        #[arg(long)]
        unit: Option<String>,
        /// Only lines of this start: 0 is the present one, -1 the one before
        #[arg(long, allow_negative_numbers = true, value_name = "N")]
        boot: Option<i32>,
        /// Only lines of this priority and graver ones, 0 (emergency) to 7 (debug)
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=7))]
        priority: Option<u8>,
        /// At most so many lines, the newest
        #[arg(long, default_value_t = 500, value_name = "N")]
        lines: u32,
    },
    /// Restart the box in an orderly way
    Reboot,
    /// Switch the box off
    PowerOff,
    /// Restart the box into its recovery system
    Recovery,
    /// Blink and ring, so that someone finds the box
    Identify {
        /// For so long, seconds, 1 to 600
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
        seconds: u32,
    },
    /// Show the functional probes by which a slot is confirmed; exits with 3 if one fails
    Probes,
    /// Say why the box is not in the slot that was chosen last
    Why,
    /// Show the black box, newest first
    Blackbox {
        /// At most so many entries
        #[arg(long, default_value_t = 30, value_name = "N")]
        most: usize,
    },
}

/// What can be seen and done of the network.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Show what is configured, what is there, and what is on trial
    Show,
    /// Keep the change that is on trial
    Confirm,
    /// Try a Network object; without a confirmation the box goes back to what it had
    Set {
        /// A file with one Network object, or `-` for stdin
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Connect to the box again, and confirm if it is reached
        #[arg(long)]
        confirm_after_check: bool,
    },
}

/// What can be done for someone who helps.
#[derive(Debug, Subcommand)]
pub(crate) enum SupportCommand {
    /// Load the support bundle: status, journal and black box, without secrets
    Bundle {
        /// Where to write it; `-` is stdout
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Open a log-in on the box's own screen and serial console
    Open {
        /// For so long, minutes, 1 to 480
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=480))]
        minutes: u32,
    },
    /// End the log-in
    Close,
    /// Say whether there is a log-in
    Status,
}

/// What `arctl packages` does.
#[derive(Debug, Subcommand)]
pub(crate) enum PackagesAction {
    /// Upload wheels: files, or folders with them
    Upload {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Remove uploaded wheels; what was deployed with them goes on
    Remove {
        /// Their file names
        #[arg(required = true, value_name = "WHEEL")]
        wheels: Vec<String>,
    },
}
