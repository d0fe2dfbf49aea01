//! One module for each command, or for a few that belong together.

pub mod agent;
mod apply;
mod audit;
mod backup;
mod ca;
mod dev;
mod diff;
mod doctor;
mod events;
mod explain;
mod fmt;
mod hands;
mod history;
mod init;
mod login;
mod logs;
mod machine;
mod man;
mod plan_file;
mod recover;
mod rollout;
mod schema;
mod secret;
mod server;
mod snapshot;
mod status;
mod token;
mod validate;
mod workspace;

use crate::args::{Cli, Command, Output, PlanArgs, PlanCommand};
use crate::error::CliError;
use crate::out::{Exit, Style};
use crate::render::plan::PlanView;

/// What every command is given.
pub struct Env<'a> {
    /// The chosen context.
    pub context: Option<&'a str>,
    /// How to print.
    pub output: Output,
    /// Show more.
    pub verbose: bool,
    /// What the terminal can show.
    pub style: &'a Style,
    /// How a plan is to be shown.
    pub plan: PlanArgs,
}

impl Env<'_> {
    /// How a plan is shown.
    pub fn plan_view(&self) -> PlanView {
        PlanView::of(self)
    }
}

/// Runs a command.
pub fn run(cli: Cli, style: &Style) -> Result<Exit, CliError> {
    let env = Env {
        context: cli.context.as_deref(),
        output: cli.output,
        verbose: cli.verbose,
        style,
        plan: cli.command.plan_args(),
    };
    match cli.command {
        Command::Validate(args) => validate::run(&args, &env),
        Command::Explain { code } => explain::run(code.as_deref(), &env),
        Command::Fmt(args) => fmt::run(&args, &env),
        Command::Init { folder, name } => init::run(&folder, name.as_ref(), &env),
        Command::Schema {
            kind,
            coverage: true,
        } => schema::coverage(kind.as_deref(), &env),
        Command::Schema { kind, .. } => schema::run(kind.as_deref()),
        Command::Completions { shell } => Ok(man::completions(shell)),
        Command::Man { out } => man::run(out.as_deref()),
        Command::Backup(args) => on_one_thread(backup::backup(&args, &env)),
        Command::Restore(args) => backup::restore(&args, &env),
        Command::Doctor(args) => on_one_thread(doctor::run(&args, &env)),
        Command::Server(args) => on_few_threads(server::run(&args, &env)),
        Command::Dev(dev) => on_threads(dev::run(&dev, &env)),
        Command::Agent(agent) => on_one_thread(agent::run(agent, &env)),
        Command::Machine { command } => on_one_thread(machine::run(&command, &env)),
        Command::Ca { command } => on_one_thread(ca::run(&command, &env)),
        Command::Events(args) => on_one_thread(events::run(&args, &env)),
        Command::Recover(args) => on_one_thread(recover::run(&args, &env)),
        Command::Secret { command } => on_one_thread(secret::run(&command, &env)),
        Command::Rollout { command } => on_one_thread(rollout::run(&command, &env)),
        Command::Plan {
            command: Some(PlanCommand::Verify { file, key }),
            ..
        } => plan_file::verify(&file, key.as_deref(), &env),
        Command::Plan {
            command: Some(PlanCommand::Key),
            ..
        } => plan_file::key(&env),
        Command::Show { file, .. } => plan_file::show(&file, &env),
        Command::Plan {
            blueprints,
            ask,
            detailed_exitcode,
            snapshot: Some(snapshot),
            ..
        } => apply::plan_offline(&blueprints, &ask, &snapshot, detailed_exitcode, &env),
        Command::Plan {
            blueprints,
            ask,
            detailed_exitcode,
            snapshot: None,
            into,
            command: None,
            ..
        } => on_one_thread(apply::plan(
            &blueprints,
            &ask,
            &into,
            detailed_exitcode,
            &env,
        )),
        Command::Diff {
            commits,
            blueprints,
            detailed_exitcode,
            ..
        } => diff::run(&commits, &blueprints, detailed_exitcode, &env),
        Command::Snapshot { out } => on_one_thread(snapshot::run(&out, &env)),
        Command::Apply {
            blueprints,
            ask,
            apply,
            file,
        } if plan_file::is_one(&blueprints.path) => {
            on_one_thread(plan_file::apply(&blueprints, &ask, &apply, &file, &env))
        }
        Command::Apply {
            blueprints,
            ask,
            apply,
            file,
        } => {
            plan_file::refuse_for_blueprints(&file, &blueprints.path)?;
            on_one_thread(apply::apply(&blueprints, &ask, &apply, &env))
        }
        Command::Rollback {
            app,
            release,
            apply,
        } => on_one_thread(apply::rollback(&app, release, &apply, &env)),
        Command::Destroy { apply } => on_one_thread(apply::destroy(&apply, &env)),
        Command::Status { watch } => on_one_thread(status::run(watch, &env)),
        Command::Stop(args) => on_one_thread(hands::order(hands::Verb::Stop, &args, &env)),
        Command::Start(args) => on_one_thread(hands::order(hands::Verb::Start, &args, &env)),
        Command::Restart(args) => on_one_thread(hands::order(hands::Verb::Restart, &args, &env)),
        Command::Reconcile(args) => on_one_thread(hands::reconcile(&args, &env)),
        Command::Hold(args) => on_one_thread(hands::hold(&args, &env)),
        Command::Logs {
            app,
            follow,
            since,
            tail,
            process,
        } => on_one_thread(logs::run(
            &app,
            process.as_ref(),
            follow,
            since.as_deref(),
            tail,
            &env,
        )),
        Command::History { app, limit } => on_one_thread(history::run(app.as_ref(), limit, &env)),
        Command::Token { command } => on_one_thread(token::run(&command, &env)),
        Command::Login(args) => on_one_thread(login::login(&args, &env)),
        Command::Logout => login::logout(&env),
        Command::Context { command } => login::context(&command, &env),
        Command::Workspace { command } => on_one_thread(workspace::run(&command, &env)),
        Command::Audit(args) => on_one_thread(audit::run(&args, &env)),
    }
}

fn runtime(builder: &mut tokio::runtime::Builder) -> Result<tokio::runtime::Runtime, CliError> {
    builder.enable_all().build().map_err(|e| {
        CliError::Other(format!(
            "cannot start: {e}; see the limits of this user (ulimit -a)"
        ))
    })
}

/// One thread: all that a client or an agent needs, and the least memory.
fn on_one_thread(work: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    runtime(&mut tokio::runtime::Builder::new_current_thread())?.block_on(work)
}

/// So many threads of a control plane may block at once: more than uploads and backups take, and enough for commits to gather. Each
/// that ever ran leaves pages of memory behind that nobody else fills.
const MAX_BLOCKING: usize = 32;

/// For a control plane.
fn on_few_threads(work: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    runtime(builder.max_blocking_threads(MAX_BLOCKING))?.block_on(work)
}

fn on_threads(work: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    runtime(&mut tokio::runtime::Builder::new_multi_thread())?.block_on(work)
}
