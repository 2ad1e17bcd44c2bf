//! Who may change something: root alone, until polkit is asked.

use zbus::{
    Connection,
    fdo::{self, DBusProxy},
    message::Header,
    names::BusName,
};

/// Refuses callers that are not root. The bus policy refuses them too; this holds if that was loosened.
pub(super) async fn require_root(connection: &Connection, call: &Header<'_>) -> fdo::Result<()> {
    let denied = |why: &str| Err(fdo::Error::AccessDenied(format!("only root may do this; {why}")));
    let Some(sender) = call.sender() else { return denied("the caller is not known") };
    let bus = DBusProxy::new(connection).await?;
    match bus.get_connection_unix_user(BusName::from(sender.clone())).await? {
        0 => Ok(()),
        uid => denied(&format!("the caller has uid {uid}")),
    }
}
