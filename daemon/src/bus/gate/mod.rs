//! The connection to the bus, and what may come in through it: so many calls at once, and none of them large. The bus
//! bounds neither for us: its largest message has 32 MiB, which unpacked is ten times as much, and calls that want no
//! reply are not counted by it.

mod flight;
mod socket;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{net::UnixStream, sync::mpsc};
use zbus::{
    Address, Connection, Message,
    address::transport::{Transport, UnixSocket},
    connection::Builder,
};

use self::{flight::Flight, socket::GatedSocket};

/// Refusals that wait for being written; with more of them nothing is read.
const REFUSALS: usize = 16;

/// The error of a refused call.
const LIMITS_EXCEEDED: &str = "org.freedesktop.DBus.Error.LimitsExceeded";

/// A call that is not let in, and why.
type Refusal = (Message, &'static str);

/// Connects to the system bus.
pub(crate) async fn connect() -> zbus::Result<Connection> {
    let path = socket_path(&Address::system()?)?;
    let stream = UnixStream::connect(path).await.map_err(|error| zbus::Error::InputOutput(error.into()))?;
    let (refuse, refusals) = mpsc::channel(REFUSALS);
    let flight = Arc::new(Mutex::new(Flight::default()));
    let connection = Builder::socket(GatedSocket::new(stream, flight, refuse)).build().await?;
    tokio::spawn(refuse_all(connection.clone(), refusals));
    Ok(connection)
}

fn socket_path(address: &Address) -> zbus::Result<PathBuf> {
    match address.transport() {
        Transport::Unix(socket) => match socket.path() {
            UnixSocket::File(path) => Ok(Path::new(path).to_owned()),
            _ => Err(zbus::Error::Address("the system bus has no socket with a path".to_owned())),
        },
        _ => Err(zbus::Error::Address("the system bus is not on a Unix socket".to_owned())),
    }
}

/// Answers calls that are not let in. The reader waits for it when there are many: they cost their senders time, and
/// the daemon no memory.
async fn refuse_all(connection: Connection, mut refusals: mpsc::Receiver<Refusal>) {
    while let Some((call, why)) = refusals.recv().await {
        if let Err(error) = connection.reply_error(&call.header(), LIMITS_EXCEEDED, &why).await {
            tracing::debug!("a refusal cannot be written: {error}");
        }
    }
}
