//! The Terrace server: configuration, HTTP, meetings, and the command line.

mod admin;
mod api;
mod backup;
mod config;
mod connections;
mod door;
mod guesses;
mod meetings;
mod node;
mod problem;
mod serve;
mod tls;
mod web;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use signaling::cascade::{ConferenceId, NodeId, OrganisationId};
use signaling::token::{Claims, KeyRing, VideoGrant};

use config::Config;
use meetings::{Meeting, Meetings, read_code, read_name};

/// 梯田视联 Terrace: a self-hosted video-conference server.
#[derive(Parser)]
#[command(name = "terrace", version)]
struct Terrace {
    #[command(subcommand)]
    command: Command,
}

/// Where the settings are.
#[derive(Args, Clone)]
struct Settings {
    /// The configuration file. Without it, terrace.toml in this folder or in /etc/terrace, if
    /// there is one.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Settings for developing: plain HTTP on this machine, API key devkey with secret "secret".
    #[arg(long, global = true)]
    dev: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server.
    Serve {
        #[command(flatten)]
        settings: Settings,
        /// Checks and explains the settings and ends.
        #[arg(long)]
        check: bool,
    },
    /// Makes tokens for applications that use LiveKit's SDKs.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Makes, lists and ends meetings.
    #[command(subcommand)]
    Meeting(MeetingCommand),
    /// Enrols this server as a node of a deployment, and others below it.
    #[command(subcommand)]
    Node(node::command::NodeCommand),
    /// Prepares the NATS server that carries what nodes tell each other.
    #[command(subcommand)]
    Nats(node::command::NatsCommand),
    /// Looks after the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Writes everything that must survive into one file, keys and all. The server may run meanwhile.
    Backup {
        #[command(flatten)]
        settings: Settings,
        /// The file; it must not be there yet.
        file: PathBuf,
    },
    /// Puts a backup into an empty data folder.
    Restore {
        #[command(flatten)]
        settings: Settings,
        /// The backup.
        file: PathBuf,
    },
    /// Changes what a server is built on.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Prints the guide's page on configuration.
    #[command(hide = true)]
    ConfigDoc,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Reads the audit log through and tells what was done to it.
    Verify {
        #[command(flatten)]
        settings: Settings,
        /// Heads that somebody has kept elsewhere, as JSON; may be given several times.
        #[arg(long, value_name = "FILE")]
        heads: Vec<PathBuf>,
        /// A public key, beside this machine's own, whose heads are trusted: one before it was replaced.
        #[arg(long, value_name = "KEY")]
        trust: Vec<String>,
    },
}

#[derive(Subcommand)]
enum AdminCommand {
    /// Moves the directory from its file into the database that directory.postgres names. No server may run.
    MoveToPostgres {
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Makes a token with which somebody may join a room.
    Create(Box<TokenOptions>),
}

#[derive(Args)]
struct TokenOptions {
    #[command(flatten)]
    settings: Settings,
    /// The room, at this server alone.
    #[arg(long, required_unless_present = "conference")]
    room: Option<String>,
    /// Instead of a room, a conference that spreads over the deployment's nodes: its id, a UUID. Only the
    /// node that holds the deployment's authority can make such tokens; any of its nodes lets in with them.
    #[arg(long, conflicts_with_all = ["room", "key", "room_admin", "room_create", "room_list"])]
    conference: Option<ConferenceId>,
    /// The id of the participant's organisation.
    #[arg(long, requires = "conference")]
    organisation: Option<OrganisationId>,
    /// The node that holds the conference, by its id; this one if not said.
    #[arg(long, requires = "conference")]
    root: Option<NodeId>,
    /// The node at the top of the branch whose chair the participant is, by its id.
    #[arg(long, requires = "conference")]
    chair_of: Option<NodeId>,
    /// The participant's identity, unique in the room.
    #[arg(long, default_value = "")]
    identity: String,
    /// The participant's name.
    #[arg(long, default_value = "")]
    name: String,
    /// The participant's metadata.
    #[arg(long, default_value = "")]
    metadata: String,
    /// An attribute, KEY=VALUE; may be given several times.
    #[arg(long = "attribute", value_name = "KEY=VALUE")]
    attributes: Vec<String>,
    /// How long it is valid, such as 30m, 6h or 7d.
    #[arg(long, default_value = "6h", value_parser = read_duration)]
    valid_for: Duration,
    /// Which of the configured API keys signs it; the first one if not said.
    #[arg(long)]
    key: Option<String>,
    /// May join the room.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    room_join: bool,
    /// May publish tracks.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    can_publish: bool,
    /// May subscribe to tracks.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    can_subscribe: bool,
    /// May send data.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    can_publish_data: bool,
    /// May publish only these: camera, microphone, screen_share, screen_share_audio.
    #[arg(long, value_delimiter = ',')]
    can_publish_sources: Vec<String>,
    /// May change its own name, metadata and attributes.
    #[arg(long)]
    can_update_own_metadata: bool,
    /// Is not shown to others.
    #[arg(long)]
    hidden: bool,
    /// May moderate the room.
    #[arg(long)]
    room_admin: bool,
    /// May create and delete rooms.
    #[arg(long)]
    room_create: bool,
    /// May list rooms.
    #[arg(long)]
    room_list: bool,
}

#[derive(Subcommand)]
enum MeetingCommand {
    /// Makes a meeting and prints its link and code.
    Create {
        #[command(flatten)]
        settings: Settings,
        /// The meeting's name.
        #[arg(long)]
        name: String,
        /// When it ends, such as 2026-10-01T18:00:00+08:00.
        #[arg(long, value_name = "RFC 3339 TIME", conflicts_with = "for")]
        ends_at: Option<String>,
        /// How long it lasts from now, such as 90m or 2h.
        #[arg(long, value_name = "DURATION", value_parser = read_duration)]
        r#for: Option<Duration>,
    },
    /// Lists the meetings that are not over.
    List {
        #[command(flatten)]
        settings: Settings,
    },
    /// Ends a meeting: everybody leaves, and nobody can join any more.
    End {
        #[command(flatten)]
        settings: Settings,
        /// The meeting's code.
        code: String,
    },
}

fn read_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 45s, 30m, 6h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = &text[..text.len() - unit.len_utf8()];
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let total = number
        .checked_mul(seconds)
        .filter(|total| *total > 0)
        .ok_or_else(wrong)?;
    if total > 10 * 365 * 24 * 60 * 60 {
        return Err("more than ten years".into());
    }
    Ok(Duration::from_secs(total))
}

impl Settings {
    fn load(&self) -> anyhow::Result<Config> {
        let file = self.config.clone().or_else(|| {
            if self.dev {
                return None;
            }
            ["terrace.toml", "/etc/terrace/terrace.toml"]
                .into_iter()
                .map(PathBuf::from)
                .find(|file| file.is_file())
        });
        Config::load(file.as_deref(), self.dev)
    }

    async fn meetings(&self) -> anyhow::Result<(Config, Meetings)> {
        let config = self.load()?;
        serve::prepare_data_dir(&config.data_dir)?;
        let meetings = Meetings::open(&config.data_dir).await?;
        Ok((config, meetings))
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match run().await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // For people: the words, not where in the program they come from.
            eprintln!("terrace: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    // Before anything that may use TLS: two providers in one program need one to be named.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info,sqlx=warn,str0m=warn,hyper=warn,async_nats=off".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match Terrace::parse().command {
        Command::Serve { settings, check } => {
            let config = settings.load()?;
            if check {
                explain(&config, settings.dev)
            } else {
                serve::run(config, settings.dev).await
            }
        }
        Command::Token(TokenCommand::Create(options)) => create_token(&options),
        Command::Meeting(command) => meeting(command).await,
        Command::Node(command) => node::command::node(command).await,
        Command::Nats(command) => node::command::nats(command).await,
        Command::Audit(AuditCommand::Verify {
            settings,
            heads,
            trust,
        }) => admin::verify_audit(&settings.load()?, &heads, &trust).await,
        Command::Backup { settings, file } => backup::backup(&settings.load()?, &file).await,
        Command::Restore { settings, file } => backup::restore(&settings.load()?, &file).await,
        Command::Admin(AdminCommand::MoveToPostgres { settings }) => {
            admin::move_to_postgres(&settings.load()?).await
        }
        Command::ConfigDoc => {
            print!("{}", config::guide());
            Ok(())
        }
    }
}

fn explain(config: &Config, is_dev: bool) -> anyhow::Result<()> {
    for setting in config::settings(config) {
        let about = setting
            .about
            .split(". ")
            .next()
            .unwrap_or_default()
            .trim_end_matches('.');
        println!("{} = {}\n    {about}.", setting.name, setting.value);
    }
    if config.keys.is_empty() {
        println!(
            "\nNo API keys: only meetings made with `terrace meeting create` can be joined, and the \
             server API is closed."
        );
    }
    config.check(is_dev)?;
    println!("\nThese settings can be run with.");
    Ok(())
}

fn create_token(options: &TokenOptions) -> anyhow::Result<()> {
    let config = options.settings.load()?;
    if options.room_join && options.identity.is_empty() {
        bail!("a token to join needs --identity");
    }
    let mut attributes = HashMap::new();
    for attribute in &options.attributes {
        let (name, value) = attribute
            .split_once('=')
            .with_context(|| format!("{attribute:?} is not KEY=VALUE"))?;
        attributes.insert(name.to_owned(), value.to_owned());
    }
    for source in &options.can_publish_sources {
        if signaling::token::source_from_name(source).is_none() {
            bail!("{source:?} is not camera, microphone, screen_share or screen_share_audio");
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let claims = Claims {
        sub: options.identity.clone(),
        exp: (now + options.valid_for).as_secs(),
        nbf: Some(now.as_secs()),
        name: options.name.clone(),
        metadata: options.metadata.clone(),
        attributes,
        kind: String::new(),
        video: VideoGrant {
            room: options.room.clone().unwrap_or_default(),
            room_join: options.room_join,
            room_create: options.room_create,
            room_list: options.room_list,
            room_admin: options.room_admin,
            can_publish: Some(options.can_publish),
            can_subscribe: Some(options.can_subscribe),
            can_publish_data: Some(options.can_publish_data),
            can_publish_sources: options.can_publish_sources.clone(),
            can_update_own_metadata: Some(options.can_update_own_metadata),
            hidden: options.hidden,
            recorder: false,
        },
        ..Claims::default()
    };
    println!("{}", sign_token(&config, options, claims)?);
    Ok(())
}

/// Signs a token with the deployment's key, or with an API key.
fn sign_token(config: &Config, options: &TokenOptions, claims: Claims) -> anyhow::Result<String> {
    if let Some(conference) = options.conference {
        let organisation = options.organisation;
        let organisation = organisation.context("a token for a conference needs --organisation")?;
        let grant = node::command::Grant {
            conference,
            organisation,
            root: options.root,
            chair_of: options.chair_of,
        };
        return node::command::sign_token(config, grant, claims);
    }
    let (key, secret) = match &options.key {
        Some(key) => config.keys.get_key_value(key),
        None => config.keys.first_key_value(),
    }
    .context("no such API key is configured: set one under [keys], or use --dev")?;
    let iss = key.clone();
    let keys = KeyRing::new([(key.clone(), secret.clone())]);
    Ok(keys.sign(&Claims { iss, ..claims })?)
}

fn show_time(ms: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(ms / 1000)
        .ok()
        .and_then(|time| {
            time.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_default()
}

fn show_meeting(config: &Config, meeting: &Meeting) -> String {
    let end = meeting
        .ends_at
        .map(|end| format!("\n结束 Ends: {}", show_time(end)));
    format!(
        "{}\n链接 Link: {}/m/{}\n会议号 Code: {}{}",
        meeting.name,
        config.public_url(),
        meeting.code,
        meeting.spaced_code(),
        end.unwrap_or_default(),
    )
}

async fn meeting(command: MeetingCommand) -> anyhow::Result<()> {
    match command {
        MeetingCommand::Create {
            settings,
            name,
            ends_at,
            r#for,
        } => {
            let name = read_name(&name)
                .context("a meeting's name has 1 to 64 characters and no control characters")?;
            let now = meetings::now_ms();
            let ends_at = match (ends_at, r#for) {
                (Some(text), _) => {
                    let format = &time::format_description::well_known::Rfc3339;
                    let time = time::OffsetDateTime::parse(&text, format).with_context(|| {
                        format!("{text:?} is not a time such as 2026-10-01T18:00:00+08:00")
                    })?;
                    Some((time.unix_timestamp_nanos() / 1_000_000) as i64)
                }
                (None, Some(duration)) => Some(now + duration.as_millis() as i64),
                (None, None) => None,
            };
            if ends_at.is_some_and(|end| end <= now) {
                bail!("the meeting would be over already");
            }
            let (config, meetings) = settings.meetings().await?;
            let meeting = meetings.create(&name, ends_at).await?;
            println!("{}", show_meeting(&config, &meeting));
        }
        MeetingCommand::List { settings } => {
            let (config, meetings) = settings.meetings().await?;
            for meeting in meetings.list().await? {
                println!("{}\n", show_meeting(&config, &meeting));
            }
        }
        MeetingCommand::End { settings, code } => {
            let (_, meetings) = settings.meetings().await?;
            let code = read_code(&code).context("a code has ten digits")?;
            if !meetings.end(&code).await? {
                bail!("no running meeting has this code");
            }
            println!("已结束 Ended.");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Terrace::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(read_duration("6h"), Ok(Duration::from_secs(21_600)));
        for text in [
            "",
            "6",
            "h",
            "-1h",
            "6y",
            "0s",
            "99999999999999999999d",
            "1时",
        ] {
            assert!(read_duration(text).is_err(), "{text}");
        }
    }
}
