//! `monitor`: what happens, as it happens.

use std::collections::HashMap;

use futures_util::StreamExt;
use memcharge_dbus::{BUS_NAME, ROOT_PATH, TARGET_INTERFACE, target_path};
use tokio::signal::unix::{SignalKind, signal};
use zbus::{
    MatchRule, MessageStream,
    fdo::{DBusProxy, NameOwnerChangedStream},
    message::Type,
    zvariant::Value,
};

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    happening::Happening,
    output::{Report, complain, json_text, print_on},
    time,
};

/// Signals that wait here while a line is written.
const MAX_QUEUED: usize = 1024;

/// Paths of targets that are remembered.
const MAX_TARGETS: usize = 256;

/// Prints a line for each signal until it is interrupted, the reader is gone, or the daemon is.
pub(crate) async fn run(view: View) -> Result<Report, ClientError> {
    let catch = |kind| signal(kind).map_err(ClientError::Signals);
    let (mut interrupt, mut terminate) = (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(Report::default()),
        _ = terminate.recv() => Ok(Report::default()),
        followed = follow(view) => followed.map(|()| Report::default()),
    }
}

/// Returns when nobody reads the output any more.
async fn follow(view: View) -> Result<(), ClientError> {
    let bus = Bus::connect().await?;
    let names = DBusProxy::new(&bus.connection).await?;
    let mut owners = names.receive_name_owner_changed_with_args(&[(0, BUS_NAME)]).await?;
    // The rule names the owner as it is now: others may send signals of the same name.
    let owner = names
        .get_name_owner(BUS_NAME.try_into().map_err(zbus::Error::from)?)
        .await
        .map_err(zbus::Error::from)?;
    let rule =
        MatchRule::builder().msg_type(Type::Signal).sender(owner.as_str())?.path_namespace(ROOT_PATH)?;
    let mut signals = MessageStream::for_match_rule(rule.build(), &bus.connection, Some(MAX_QUEUED)).await?;
    // Answers must not queue up behind signals that are not read while they are waited for.
    let mut targets = Targets { bus: Bus::connect().await?, paths: HashMap::new() };
    loop {
        let Some(happening) = next(&mut signals, &mut owners).await? else { continue };
        let target = targets.path_of(&happening).await;
        if !print_on(&render(&happening, target.as_deref(), time::now()?, view))? {
            return Ok(());
        }
    }
}

/// The next signal; `None` for one that is not shown. What had been said before the daemon went away comes first.
async fn next(
    signals: &mut MessageStream,
    owners: &mut NameOwnerChangedStream,
) -> Result<Option<Happening>, ClientError> {
    tokio::select! {
        biased;
        message = signals.next() => {
            let message = message.ok_or(ClientError::BusGone)?.map_err(|_| ClientError::BusGone)?;
            Ok(Happening::read(&message).unwrap_or_else(|error| {
                // One signal that is not understood does not end the others.
                complain(&error.to_string());
                None
            }))
        }
        changed = owners.next() => Err(changed.map_or(ClientError::BusGone, |_| ClientError::Gone)),
    }
}

fn render(happening: &Happening, target: Option<&str>, now_usec: u64, view: View) -> String {
    json_text(view, || happening.json(now_usec, target))
        .unwrap_or_else(|| format!("{}\n", happening.line(now_usec, target)))
}

/// The paths of targets, whose signals carry ids only.
struct Targets {
    bus: Bus,
    paths: HashMap<u64, String>,
}

impl Targets {
    /// The path of the target that this is about; `None` where it is about none, or the target is gone already.
    async fn path_of(&mut self, happening: &Happening) -> Option<String> {
        let Happening::MemoryEvent { target_id, .. } = happening else { return None };
        if let Some(path) = self.paths.get(target_id) {
            return Some(path.clone());
        }
        let value = self.bus.property(&target_path(*target_id), TARGET_INTERFACE, "Path").await.ok()?;
        let Value::Str(path) = &*value else { return None };
        if self.paths.len() >= MAX_TARGETS {
            self.paths.clear();
        }
        self.paths.insert(*target_id, path.to_string());
        Some(path.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        cli::JsonMode,
        event::{
            Recorded,
            tests::{details, event},
        },
        schema::assert_valid,
    };

    #[test]
    fn each_line_ends_and_json_stays_on_one() {
        let view = |json| View { json, ..View::default() };
        let happening = Happening::MountNew { mount: "m".into() };
        assert_eq!(render(&happening, None, 0, view(JsonMode::Off)), "1970-01-01 00:00:00Z m: new\n");
        assert_eq!(
            render(&happening, None, 0, view(JsonMode::Short)),
            "{\"mount\":\"m\",\"received_usec\":0,\"signal\":\"mount_new\"}\n"
        );
        let recorded = Recorded::read(details(&event())).unwrap();
        for happening in [
            happening,
            Happening::RemoteOom(Box::new(recorded)),
            Happening::MountRemoved { mount: "m".into() },
            Happening::State { mount: "m".into(), state: "active".into(), reason: None },
            Happening::State { mount: "m".into(), state: "frozen".into(), reason: Some("why".into()) },
            Happening::MemoryEvent { target_id: 7, deltas: BTreeMap::from([("max".into(), 3)]) },
        ] {
            assert_valid("monitor", &render(&happening, None, 0, view(JsonMode::Short)));
        }
    }
}
