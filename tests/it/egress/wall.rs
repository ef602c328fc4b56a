//! A company's network: nothing leaves but through its proxy, and the proxy's word is that of the
//! company's own certificate authority.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::support::certificates::Authority;

/// The name under which LaunchDarkly is looked for; only the proxy knows where it is.
pub(crate) const OUTSIDE: &str = "ld.example";

/// Speaks TLS as a host.
fn host(authority: &Authority, name: &str) -> TlsAcceptor {
    let issued = authority.issue(name);
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

/// The proxy, and behind it something that speaks plain HTTP where it is and TLS as [`OUTSIDE`].
#[derive(Clone)]
pub(crate) struct Wall {
    pub(crate) address: SocketAddr,
    /// The head of each request.
    heads: Arc<Mutex<Vec<String>>>,
}

/// What a proxy is like.
pub(crate) struct Door {
    /// Callers speak TLS to the proxy itself.
    pub(crate) tls: bool,
    /// What `Proxy-Authorization` must be.
    pub(crate) pass: Option<&'static str>,
}

impl Wall {
    /// Lets callers through to `inside`. Its task ends with the test's runtime.
    pub(crate) fn start(authority: &Authority, door: Door, inside: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let wall = Self {
            address: listener.local_addr().unwrap(),
            heads: Arc::default(),
        };
        let passage = Arc::new(Passage {
            front: door.tls.then(|| host(authority, "localhost")),
            outside: host(authority, OUTSIDE),
            pass: door.pass,
            inside,
            heads: Arc::clone(&wall.heads),
        });
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let passage = Arc::clone(&passage);
                // Callers hang up as they like.
                tokio::spawn(async move { passage.admit(caller).await.ok() });
            }
        });
        wall
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

struct Passage {
    front: Option<TlsAcceptor>,
    outside: TlsAcceptor,
    pass: Option<&'static str>,
    inside: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Passage {
    async fn admit(&self, caller: TcpStream) -> io::Result<()> {
        match &self.front {
            Some(front) => self.tunnel(front.accept(caller).await?).await,
            None => self.tunnel(caller).await,
        }
    }

    async fn tunnel(&self, mut caller: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let head = head(&mut caller).await?;
        self.heads.lock().unwrap().push(head.clone());
        let admitted = self.pass.is_none_or(|pass| head.contains(pass));
        if !admitted || !head.starts_with("CONNECT ") {
            let refusal =
                b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
            return caller.write_all(refusal).await;
        }
        caller.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        let mut caller = self.outside.accept(caller).await?;
        let mut inside = TcpStream::connect(self.inside).await?;
        tokio::io::copy_bidirectional(&mut caller, &mut inside).await?;
        Ok(())
    }
}

/// A request up to its empty line. Nothing follows it before it is answered.
async fn head(caller: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(caller.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}
