//! What stands between a sender and the service, and answers in its place: a proxy that refuses,
//! a login page, a balancer that resets streams. Each connection gets one answer, in turn; those
//! after the last one reach the service.

use std::{collections::VecDeque, net::SocketAddr};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, Response};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::JoinSet,
};

/// What a connection gets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// The service itself.
    Pass,
    /// A status of HTTP, with a page or without.
    Http(u16, Option<&'static str>),
    /// A status of gRPC without details.
    Grpc(u16, &'static str),
    /// A stream that is reset.
    Reset(Reason),
    /// A connection that is told to go.
    GoAway(Reason),
}

/// A running one; it and its connections end when it is dropped.
#[derive(Debug)]
pub(crate) struct Between {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Between {
    pub(crate) fn start(upstream: &str, answers: &[Answer]) -> Self {
        // Its own: tests that run the binary block.
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers.iter().copied().collect();
        // Ends with the runtime.
        runtime.spawn(accept(listener, upstream.parse().unwrap(), answers));
        Self {
            address,
            _runtime: runtime,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, mut answers: VecDeque<Answer>) {
    // Dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    while let Ok((caller, _)) = listener.accept().await {
        match answers.pop_front().unwrap_or(Answer::Pass) {
            Answer::Pass => connections.spawn(pass(caller, upstream)),
            answer => connections.spawn(stand_in(caller, answer)),
        };
    }
}

async fn pass(mut caller: TcpStream, upstream: SocketAddr) {
    let mut upstream = TcpStream::connect(upstream).await.unwrap();
    // A connection that fails has ended, as its two sides see.
    copy_bidirectional(&mut caller, &mut upstream).await.ok();
}

async fn stand_in(caller: TcpStream, answer: Answer) {
    let Ok(mut connection) = h2::server::handshake(caller).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        match answer {
            Answer::GoAway(reason) => connection.abrupt_shutdown(reason),
            answer => reply(answer, &request, respond),
        }
    }
}

fn reply(answer: Answer, request: &Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    assert!(request.uri().path().contains('/'));
    let response = Response::builder();
    match answer {
        Answer::Http(status, page) => {
            let response = response.status(status).header("content-type", "text/html");
            let response = response.body(()).unwrap();
            let mut body = respond.send_response(response, page.is_none()).unwrap();
            if let Some(page) = page {
                body.send_data(Bytes::from_static(page.as_bytes()), true)
                    .unwrap();
            }
        }
        Answer::Grpc(status, message) => {
            let response = response
                .header("content-type", "application/grpc")
                .header("grpc-status", status)
                .header("grpc-message", message);
            respond
                .send_response(response.body(()).unwrap(), true)
                .unwrap();
        }
        Answer::Reset(reason) => respond.send_reset(reason),
        Answer::Pass | Answer::GoAway(_) => unreachable!("not for a stream"),
    }
}
