//! A proxy for TCP connections, with which a test cuts a program off from a server.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct TcpProxy {
    address: SocketAddr,
    traffic: watch::Sender<Traffic>,
    accepting: JoinHandle<()>,
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Passes,
    /// Nothing passes, as while a cable is unplugged. What was sent in the meantime passes
    /// afterwards, even if its sender has hung up.
    Held,
    /// Connections are closed, and new ones are closed at once.
    Refused,
}

impl TcpProxy {
    /// Everything passes.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (traffic, observed) = watch::channel(Traffic::Passes);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut traffic = observed.clone();
                tokio::spawn(async move {
                    let refused = traffic.clone();
                    tokio::select! {
                        biased;
                        _ = traffic.wait_for(|it| *it == Traffic::Refused) => {}
                        () = pass(client, server, refused) => {}
                    }
                });
            }
        });
        Ok(Self { address, traffic, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for all connections.
    pub fn set(&self, traffic: Traffic) {
        self.traffic.send_replace(traffic);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, server: SocketAddr, mut traffic: watch::Receiver<Traffic>) {
    if until_it_passes(&mut traffic).await.is_none() {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    // Each direction ends by itself: what one end has sent reaches the other one.
    tokio::join!(
        copy(from_client, to_server, traffic.clone()),
        copy(from_server, to_client, traffic)
    );
}

/// To the end of the connection, or to an error, which ends it for the other side too.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut traffic: watch::Receiver<Traffic>,
) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        let read = from.read_buf(&mut buffer).await.unwrap_or(0);
        if until_it_passes(&mut traffic).await.is_none() {
            return;
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&buffer).await.is_err() {
            return;
        }
    }
}

/// `None` once the proxy is gone.
async fn until_it_passes(traffic: &mut watch::Receiver<Traffic>) -> Option<()> {
    traffic.wait_for(|it| *it == Traffic::Passes).await.ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection through the proxy, and its other end.
    async fn connected(proxy: &TcpProxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_was_held_passes_afterwards_although_its_sender_has_hung_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = TcpProxy::start(listener.local_addr().unwrap()).await.unwrap();
        let (mut client, mut server) = connected(&proxy, &listener).await;
        let mut received = [0; 2];
        client.write_all(b"1").await.unwrap();
        server.read_exact(&mut received[..1]).await.unwrap();
        proxy.set(Traffic::Held);
        client.write_all(b"2").await.unwrap();
        drop(client);
        tokio::select! {
            biased;
            read = server.read(&mut received[1..]) => panic!("{read:?} bytes passed"),
            () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
        }
        proxy.set(Traffic::Passes);
        server.read_exact(&mut received[1..]).await.unwrap();
        assert_eq!(received, *b"12");
        assert_eq!(server.read(&mut received).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn connections_end_while_they_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = TcpProxy::start(listener.local_addr().unwrap()).await.unwrap();
        let (mut client, _server) = connected(&proxy, &listener).await;
        proxy.set(Traffic::Refused);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        let mut another = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(another.read(&mut [0]).await.unwrap_or(0), 0);
        proxy.set(Traffic::Passes);
        connected(&proxy, &listener).await;
    }
}
