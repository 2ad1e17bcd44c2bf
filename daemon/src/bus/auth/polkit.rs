//! Asking polkit.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::Semaphore, time::timeout};
use zbus::{
    Connection,
    fdo::{Error, Result},
    zvariant::Value,
};

use super::Caller;

const NAME: &str = "org.freedesktop.PolicyKit1";
const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";

/// `CheckAuthorization`: the user may be asked for a password.
const ALLOW_USER_INTERACTION: u32 = 1;

/// polkit answers at once where it need not ask anybody.
const LIMIT: Duration = Duration::from_secs(25);

/// A person needs time for a password.
const INTERACTIVE_LIMIT: Duration = Duration::from_secs(300);

/// So many callers wait for polkit at once; more are refused. Those who wait for a password, which can take minutes, are
/// in a place of their own: they do not keep others from an answer that polkit has at once.
static WAITING: Semaphore = Semaphore::const_new(64);
static WAITING_FOR_A_PERSON: Semaphore = Semaphore::const_new(64);

/// What polkit says: whether it is allowed, whether it would be with a password, and details.
type Answer = (bool, bool, HashMap<String, String>);

/// Refuses what polkit does not allow. Where polkit is not there, root alone may do anything.
pub(super) async fn check(
    connection: &Connection,
    caller: &Caller,
    action: &str,
    mount: Option<&str>,
) -> Result<()> {
    let uid = caller.user.uid;
    let places = if caller.interactive { &WAITING_FOR_A_PERSON } else { &WAITING };
    let Ok(_waiting) = places.try_acquire() else {
        return Err(Error::LimitsExceeded("too many callers wait for polkit; try again later".to_owned()));
    };
    let subject = ("system-bus-name", HashMap::from([("name", Value::from(caller.name.as_str()))]));
    let details: HashMap<&str, &str> = mount.map(|mount| ("mount", mount)).into_iter().collect();
    let (flags, limit) = match caller.interactive {
        true => (ALLOW_USER_INTERACTION, INTERACTIVE_LIMIT),
        false => (0, LIMIT),
    };
    let question = (subject, action, details, flags, "");
    let call = connection.call_method(Some(NAME), PATH, Some(INTERFACE), "CheckAuthorization", &question);
    let denied = |why: &str| Error::AccessDenied(format!("uid {uid} may not do this ({action}): {why}"));
    let reply = timeout(limit, call).await.map_err(|_| denied("polkit does not answer"))?;
    let reply =
        reply.map_err(|error| denied(&format!("only root may, as polkit cannot be asked: {error}")))?;
    let answer: Answer = reply.body().deserialize()?;
    match answer {
        (true, ..) => Ok(()),
        (false, true, _) => Err(Error::InteractiveAuthorizationRequired(format!(
            "{action} needs a password; use a client that can ask for it, or be root"
        ))),
        (false, false, _) => Err(denied("polkit does not allow it")),
    }
}
