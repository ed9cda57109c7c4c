//! The program: arguments, configuration, wiring, the private PostgreSQL and the commands. No
//! business rule and no SQL lives here.

pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod credentials;
pub mod dashboard;
pub mod data_dir;
pub mod deliver;
pub mod folder_tree;
pub mod heartbeat;
mod oidc_config;
pub mod private_postgres;
pub mod probe;
pub mod server;
pub mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use command::Ending;
use picloud_counting_alloc::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    run_arguments(std::env::args_os())
}

/// Runs `picloud serve --role ROLE` with the arguments of this process.
pub fn run_role(role: &str) -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let serve = ["serve", "--role", role].map(std::ffi::OsString::from);
    run_arguments(std::iter::once(program).chain(serve).chain(arguments))
}

fn run_arguments(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    if let Some(phase) = command::git_hook::phase() {
        return end(command::git_hook::run(phase));
    }
    if let Some(memory) = command::executor_child::memory() {
        return end(command::executor_child::run(memory));
    }
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and end with 0; mistakes with 2.
            let code = error.exit_code();
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    end(dispatch(&cli.command))
}

fn parse(arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<cli::Cli, clap::Error> {
    let mut command = without_empty_variables(cli::Cli::command());
    let matches = command.try_get_matches_from_mut(arguments)?;
    cli::Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// A variable that is set but empty counts as absent, as in a compose file.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty =
        |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| {
        if argument.get_env().is_some_and(is_empty) {
            argument.env(clap::builder::Resettable::Reset)
        } else {
            argument
        }
    });
    command.mut_subcommands(without_empty_variables)
}

fn end(done: anyhow::Result<Ending>) -> ExitCode {
    match done {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Failed) => ExitCode::from(1),
        Ok(Ending::Changes) => ExitCode::from(3),
        Err(error) => {
            let style = terminal::Style::stderr();
            complain(&format!("{}: {error:#}\n", style.red("error")));
            ExitCode::from(1)
        }
    }
}

pub(crate) fn complain(text: &str) {
    use std::io::Write;
    // Standard error is the last place to tell anybody; where it is closed there is no other.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn dispatch(command: &cli::Command) -> anyhow::Result<Ending> {
    use cli::Command as C;
    match command {
        C::Up(args) => command::up::up(args),
        C::Dev(args) => command::up::dev(args),
        C::Serve(args) => command::up::serve(args),
        C::Init(args) => command::init::run(args),
        C::Validate(args) => command::validate::run(args),
        C::Test(args) => command::test::run(args),
        C::Plan(args) => command::plan::run(args),
        C::Status(args) => command::status::run(args),
        C::History(args) => command::history::run(args),
        C::Runs(args) => command::runs::run(args),
        C::Run(args) => command::run::run(args),
        C::Logs(args) => command::logs::run(args),
        C::Replay(args) => command::replay::replay(args),
        C::Invoke(args) => command::replay::invoke(args),
        C::Triggers(args) => command::triggers::run(args),
        C::DeadLetters(command) => command::dead_letters::run(command),
        C::Keys(args) => command::keys::run(args),
        C::Login(args) => command::login::login(args),
        C::Logout(args) => command::login::logout(args),
        C::Schedule(args) => command::schedule::run(args),
        C::Secrets(args) => command::secrets::run(args),
        C::Sync(args) => command::sync::run(args),
        C::Drift(args) => command::drift::run(args),
        C::Heal(args) => command::drift::heal(args),
        C::Rollback(args) => command::rollback::run(args),
        C::Suspend(args) => command::rollback::suspend(args),
        C::Resume(args) => command::rollback::resume(args),
        C::Wait(args) => command::wait::run(args),
        C::Approve(args) => command::approve::run(args),
        C::Sources(args) => command::sources::run(args),
        C::Backup(args) => command::backup::run(args),
        C::Restore(args) => command::restore::run(args),
        C::Previews(args) => command::previews::run(args),
        C::Schema(args) => command::schema::run(args),
        C::Migrate(args) => command::migrate::run(args),
        C::Doctor(args) => command::doctor::run(args),
        C::Completions { shell } => command::completions::run(*shell),
    }
}

/// A text as a part of an address.
pub(crate) fn url_encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
