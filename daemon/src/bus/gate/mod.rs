//! The connection to the bus, and what may come in through it: so many calls at once, none of them large, and none of a
//! client that does not read what it is answered. The bus bounds none of this for us: its largest message has 32 MiB, which
//! unpacked is ten times as much, calls that want no reply are not counted by it, and what is not read is ours.

mod flight;
mod socket;
mod unread;

use std::{
    collections::HashMap,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    net::UnixStream,
    sync::{Notify, mpsc},
    time::{timeout, timeout_at},
};
use zbus::{
    Address, Connection, Message,
    address::transport::{Transport, UnixSocket},
    connection::Builder,
    zvariant::OwnedValue,
};

use self::{
    flight::Flight,
    socket::{GatedSocket, lock},
    unread::{Look, Unread},
};

/// Refusals that wait for being written; with more of them nothing is read.
const REFUSALS: usize = 16;

/// The error of a refused call.
const LIMITS_EXCEEDED: &str = "org.freedesktop.DBus.Error.LimitsExceeded";

/// The error for a client that has left.
const NO_OWNER: &str = "org.freedesktop.DBus.Error.NameHasNoOwner";

/// The errors of a bus that does not tell how much it keeps for a client.
const NOT_TOLD: [&str; 4] = [
    "org.freedesktop.DBus.Error.UnknownMethod",
    "org.freedesktop.DBus.Error.UnknownInterface",
    "org.freedesktop.DBus.Error.NotSupported",
    "org.freedesktop.DBus.Error.AccessDenied",
];

/// The bus answers at once, or is busy.
const STATS_LIMIT: Duration = Duration::from_secs(5);

/// What goes through the connection, known to both of its halves and to who looks after it.
#[derive(Debug, Default)]
struct Traffic {
    flight: Mutex<Flight>,
    unread: Mutex<Unread>,
    /// There may be a client to look at.
    wake: Notify,
}

const UNREAD: &str = "you have left too many replies unread; there are no more of them until you have read";

/// A call that is not let in, and why.
type Refusal = (Message, &'static str);

/// Connects to the system bus.
pub(crate) async fn connect() -> zbus::Result<Connection> {
    let path = socket_path(&Address::system()?)?;
    let stream = UnixStream::connect(path).await.map_err(|error| zbus::Error::InputOutput(error.into()))?;
    let (refuse, refusals) = mpsc::channel(REFUSALS);
    let traffic = Arc::new(Traffic::default());
    let connection = Builder::socket(GatedSocket::new(stream, Arc::clone(&traffic), refuse)).build().await?;
    tokio::spawn(refuse_all(connection.clone(), Arc::clone(&traffic), refusals));
    tokio::spawn(look_at_readers(connection.clone(), traffic));
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
async fn refuse_all(connection: Connection, traffic: Arc<Traffic>, mut refusals: mpsc::Receiver<Refusal>) {
    while let Some((call, why)) = refusals.recv().await {
        refuse(&connection, &traffic, &call, why).await;
    }
}

async fn refuse(connection: &Connection, traffic: &Traffic, call: &Message, why: &str) {
    let header = call.header();
    let Some(client) = header.sender() else { return };
    lock(&traffic.flight).refuse(client, header.primary().serial_num().get());
    if let Err(error) = connection.reply_error(&header, LIMITS_EXCEEDED, &why).await {
        tracing::debug!("a refusal cannot be written: {error}");
    }
}

/// Asks the bus, where there is reason to, how much it keeps for a client. Ends where the bus does not tell: dbus-broker has
/// an account for each client of its own.
async fn look_at_readers(connection: Connection, traffic: Arc<Traffic>) {
    loop {
        let look = lock(&traffic.unread).look(Instant::now());
        let client = match look {
            Look::At(client) => client,
            Look::Later(then) => {
                drop(timeout_at(then.into(), traffic.wake.notified()).await);
                continue;
            }
            Look::Nobody => {
                traffic.wake.notified().await;
                continue;
            }
        };
        let waiting = match timeout(STATS_LIMIT, waiting_for(&connection, &client)).await {
            Ok(Ok(waiting)) => Some(waiting),
            Ok(Err(zbus::Error::MethodError(error, ..))) if error == NO_OWNER => None,
            Ok(Err(zbus::Error::MethodError(error, ..))) if NOT_TOLD.contains(&error.as_str()) => {
                tracing::info!("the bus does not tell how much its clients have not read ({error})");
                let held = lock(&traffic.unread).give_up();
                for (client, serial) in held {
                    refuse_held(&connection, &traffic, &client, serial).await;
                }
                return;
            }
            Ok(Err(_)) | Err(_) => {
                lock(&traffic.unread).missed(&client);
                continue;
            }
        };
        let held = lock(&traffic.unread).looked(&client, waiting);
        for serial in held {
            refuse_held(&connection, &traffic, &client, serial).await;
        }
    }
}

/// Answers a call that is known by its number alone: its client had to read first.
async fn refuse_held(connection: &Connection, traffic: &Traffic, client: &str, serial: u32) {
    let Some(serial) = NonZeroU32::new(serial) else { return };
    let call =
        Message::method_call("/", "Call").and_then(|call| call.sender(client)?.serial(serial).build(&()));
    if let Ok(call) = call {
        refuse(connection, traffic, &call, UNREAD).await;
    }
}

/// So many bytes wait for a client to be read.
async fn waiting_for(connection: &Connection, client: &str) -> zbus::Result<u64> {
    let (bus, path, stats) =
        ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Debug.Stats");
    let reply =
        connection.call_method(Some(bus), path, Some(stats), "GetConnectionStats", &(client,)).await?;
    let known: HashMap<String, OwnedValue> = reply.body().deserialize()?;
    let bytes = known.get("OutgoingBytes").and_then(|bytes| u32::try_from(bytes).ok());
    bytes.map(u64::from).ok_or_else(|| zbus::Error::Failure("there is no OutgoingBytes".to_owned()))
}
