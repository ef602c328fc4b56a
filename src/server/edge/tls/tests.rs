use std::sync::Mutex;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tonic::{
    Request,
    service::interceptor::InterceptedService,
    transport::{Endpoint, Server, Uri, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{
    testing::{Authority, Issued, client_config, tls},
    *,
};
use crate::server::edge::first_byte;

/// What a request tells of its connection: the caller's first certificate, and whether its address
/// is known.
type Told = (Option<Vec<u8>>, bool);

#[tokio::test]
async fn a_request_tells_the_certificate_of_its_caller() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let tls = tls(&authority, directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told: Arc<Mutex<Vec<Told>>> = Arc::default();
    let heard = Arc::clone(&told);
    let listen = move |request: Request<()>| {
        let certificate = request.peer_certs().map(|certs| certs[0].to_vec());
        let is_known = request.remote_addr().is_some();
        heard.lock().unwrap().push((certificate, is_known));
        Ok(request)
    };
    let (_reporter, health) = tonic_health::server::health_reporter();
    let health = InterceptedService::new(health, listen);
    let incoming = tls.connections(TcpIncoming::from(listener));
    let serving = Server::builder().add_service(health);
    // Ends with the test's runtime.
    tokio::spawn(serving.serve_with_incoming(first_byte::connections(incoming)));

    let caller = authority.issue("caller");
    for own in [Some(&caller), None] {
        ask(&authority, own, address).await;
        let expected = own.map(|own| own.certificate.to_vec());
        assert_eq!(told.lock().unwrap().pop(), Some((expected, true)));
    }
}

async fn ask(authority: &Authority, own: Option<&Issued>, address: std::net::SocketAddr) {
    let connector = TlsConnector::from(client_config(authority, own));
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").expect("it is a name");
            let tls = connector.connect(name, tcp).await?;
            io::Result::Ok(hyper_util::rt::TokioIo::new(tls))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connect).await.unwrap();
    let mut client = HealthClient::new(channel);
    client.check(HealthCheckRequest::default()).await.unwrap();
}
