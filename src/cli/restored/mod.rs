//! The command `tenantry restored`, for use after the database was restored to an earlier time. A
//! restore makes valid again what ended after that time: sessions, refresh tokens, API keys, and
//! rights that were taken away. This command ends the sessions and the API keys. With
//! `--audit-export`, it also prints the acts that must be done again.

mod end;
mod keys;
mod lost;
mod store;
mod tenants;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use self::{end::Ended, lost::LostEvents, tenants::Tenants};
use crate::{
    clock,
    config::{self, Values, postgres_url},
    db::Db,
    privacy::DataKeys,
    telemetry,
};

pub(super) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Values::arguments(
        Command::new("restored")
            .about(
                "After a restore to an earlier time: check the keys, end all sessions and API keys, \
                 refuse the consistency tokens of before, and print what to look through. Connects \
                 with MIGRATE_DATABASE_URL. Stop all replicas first",
            )
            .arg(flag("keep-api-keys", "Keep API keys, also those that were revoked since the backup"))
            .arg(flag("accept-lost-keys", "Continue although a key file lacks keys"))
            .arg(
                Arg::new("audit-export")
                    .long("audit-export")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help(
                        "Events of the audit trail from before the loss, as JSON lines of `tenantry \
                         audit export`: print what was taken since the backup",
                    ),
            ),
    )
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let values = Values::gather(matches).check_sources()?;
    let source = config::master_keys(&values)?;
    let data_keys = tokio::task::spawn_blocking(move || DataKeys::load(&source)).await?;
    let data_keys = data_keys.context("the master keys can't be read (MASTER_KEY_PATH)")?;
    let db = Db::connect(&postgres_url(&values, "MIGRATE_DATABASE_URL")?, 1)?;
    let db = db.with_data_keys(data_keys);
    db.postgres().check().await?;
    warn_of_replicas(&db).await?;
    require_keys(&keys::missing(&db, &values).await?, matches.get_flag("accept-lost-keys"))?;
    let keep_api_keys = matches.get_flag("keep-api-keys");
    let lost = match matches.get_one::<PathBuf>("audit-export") {
        Some(path) => Some(lost::find(&db, path, keep_api_keys).await?),
        None => None,
    };
    store::begin_epoch(&db).await?;
    let ended = end::all(&db, keep_api_keys).await?;
    print_ended(&ended, keep_api_keys);
    print_lost(lost.as_ref());
    Ok(())
}

async fn warn_of_replicas(db: &Db) -> anyhow::Result<()> {
    let connections = store::connections_of_service(db).await?;
    if connections > 0 {
        telemetry::write_last_line(format!(
            "warning: the service has {connections} connections to this database; stop all replicas \
             before a restore"
        ));
    }
    Ok(())
}

/// Fails when keys are missing, unless `accept` is set. `missing` has a sentence for each missing
/// key.
fn require_keys(missing: &[String], accept: bool) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join("\n");
    if !accept {
        bail!(
            "nothing was changed, because keys are missing:\n{missing}\nrestore the files, or add \
             --accept-lost-keys"
        );
    }
    telemetry::write_last_line(format!("warning: keys are missing:\n{missing}"));
    Ok(())
}

fn print_ended(ended: &Ended, keep_api_keys: bool) {
    out!("{} sessions of {} tenants ended", ended.sessions, ended.tenants);
    if keep_api_keys {
        out!("API keys are kept; a key that was revoked since the backup is valid again");
    } else {
        out!("{} API keys ended", ended.api_keys);
    }
    out!("consistency tokens of before are refused; mails and links that waited are deleted");
    if let Some(time) = ended.newest_event {
        out!("the newest event is of {}; everything later is lost", clock::rfc3339(time));
    }
}

/// Prints the acts that must be done again, one in each line: time, tenant, kind, target, what to
/// do, and the details of the event.
fn print_lost(lost: Option<&LostEvents>) {
    let Some(lost) = lost else {
        out!("to list what was taken since the backup, add --audit-export");
        return;
    };
    let taken = lost.taken.len();
    out!("{} events of the export are lost; {taken} of them took something:", lost.count);
    for (event, instruction) in &lost.taken {
        let (time, tenant, kind) = (&event.create_time, event.tenant_id, &event.kind);
        let target = event.target_id.as_deref().unwrap_or("-");
        out!("{time}  {tenant}  {kind}  {target}  {instruction}  {}", event.detail);
    }
}
