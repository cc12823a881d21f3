//! The `onefold` program: everything that a person types goes through here.
//!
//! Each verb has a file of its own. A verb parses its arguments, talks to the cluster through
//! [`onefold_client`], and prints. What a verb can't do ends in one line on standard error that
//! says what, why and what to do, and in exit code 1; wrong usage ends in exit code 2.

// Nothing of a program can be reached from outside it.
#![allow(unreachable_pub)]

mod config_file;
mod demo;
mod dev;
mod etcd_options;
mod fs;
mod kv;
mod local;
mod log_output;
mod mr;
mod node;
mod output;
mod s3;
mod start;
mod status;
mod store_options;
mod torture;
mod transfer;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use log_output::LogOutput;
use onefold_client::Client;
use output::{Format, Output};

/// Requests allocate on one thread and free on another; the system's allocator spends an eighth of
/// a put's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One binary that makes a few machines behave as one: a key-value store with the etcd API, files
/// with the S3 API, and MapReduce over them.
///
/// To see it work: `onefold demo`. To play with a cluster on this machine: `onefold dev`.
#[derive(Parser)]
#[command(name = "onefold", version, max_term_width = 100, args_override_self = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every verb takes.
#[derive(clap::Args)]
struct Global {
    /// Any nodes' peer addresses, separated by commas.
    #[arg(
        long,
        global = true,
        env = "ONEFOLD_ENDPOINT",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:7000"
    )]
    endpoint: Vec<String>,

    /// How tables are printed: table or json. For `mr run` also the folder to write.
    #[arg(long, global = true, env = "ONEFOLD_OUTPUT", value_name = "FORMAT")]
    output: Vec<Output>,

    /// A TOML file with defaults for flags: `[start]`, `[dev]`, … with the flags' long names.
    #[arg(long, global = true, env = "ONEFOLD_CONFIG", value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

impl Global {
    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(self.endpoint.clone())?)
    }

    /// The format asked for last.
    fn format(&self) -> Format {
        let mut formats = self.output.iter().rev().filter_map(|output| match output {
            Output::Format(format) => Some(*format),
            Output::Path(_) => None,
        });
        formats.next().unwrap_or_default()
    }

    /// The path given as `--output`, which only `mr run` takes.
    fn output_path(&self) -> Option<&str> {
        self.output.iter().find_map(|output| match output {
            Output::Path(path) => Some(path.as_str()),
            Output::Format(_) => None,
        })
    }
}

#[derive(Subcommand)]
enum Command {
    /// Show in a minute that it works: a three-node cluster, real files, a killed node.
    Demo(demo::DemoArgs),
    /// Run a local cluster of separate node processes.
    Dev(dev::DevArgs),
    /// Run one node of a cluster.
    Start(start::StartArgs),
    /// Show the cluster's nodes, groups and files at a glance.
    Status,
    /// List, add, drain and remove nodes.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Read and write the key-value store.
    Kv(kv::KvArgs),
    /// Work with files; a path is /BUCKET/KEY.
    #[command(subcommand)]
    Fs(fs::FsCommand),
    /// Run MapReduce jobs over files.
    #[command(subcommand)]
    Mr(mr::MrCommand),
    /// Manage access keys of the S3 API.
    #[command(subcommand)]
    S3(s3::S3Command),
    /// Break a real cluster in every way while clients use it, and check what they saw.
    Torture(torture::TortureArgs),
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let arguments = match config_file::expand(std::env::args_os().collect(), &Cli::command()) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&error, 2),
    };
    let cli = Cli::parse_from(arguments);
    if let Some(path) = cli.global.output_path()
        && !matches!(cli.command, Command::Mr(mr::MrCommand::Run(_)))
    {
        return fail(&anyhow::anyhow!("--output is table or json, not {path:?}"), 2);
    }
    let log = match start_logging(matches!(cli.command, Command::Start(_))) {
        Ok(log) => log,
        Err(error) => return fail(&anyhow::Error::new(error), 1),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error), 1),
    };
    let outcome = runtime.block_on(run(cli));
    // A read of standard input cannot be interrupted; the process must not wait for it.
    runtime.shutdown_background();
    log.flush();
    match outcome {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Demo(arguments) => return demo::run(arguments).await,
        Command::Dev(arguments) => dev::run(arguments, global.format()).await?,
        Command::Start(arguments) => start::run(arguments).await?,
        Command::Status => return status::run(&global.client()?, global.format()).await,
        Command::Node(command) => {
            node::run(command, &global.client()?, global.format()).await?;
        }
        Command::Kv(command) => return kv::run(command, &global.client()?, global.format()).await,
        Command::Fs(command) => fs::run(command, &global.client()?, global.format()).await?,
        Command::Mr(command) => return mr::run(command, global).await,
        Command::S3(command) => s3::run(command, &global.client()?, global.format()).await?,
        Command::Torture(arguments) => return torture::run(arguments, global.format()).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "onefold", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A node tells what it does; a client only what is wrong.
fn start_logging(is_node: bool) -> std::io::Result<LogOutput> {
    let default = if is_node { "info" } else { "error" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ONEFOLD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let filter = match onefold_node::QUIET_DIRECTIVE.parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let output = LogOutput::start(std::io::stderr())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output.clone())
        .with_ansi(color)
        .init();
    Ok(output)
}

/// Prints the whole chain of an error in one line.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Many errors already quote their source.
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    eprintln!("error: {}", line.replace('\n', " "));
    ExitCode::from(code)
}

/// `onefold fs cat … | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
