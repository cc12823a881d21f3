use std::time::Duration;

use onefold_s3::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Payload, Request, parse};
use crate::server::Server;

fn impatient() -> Config {
    Config {
        admission_wait: Duration::from_millis(20),
        header_timeout: Duration::from_millis(100),
        body_idle_timeout: Duration::from_millis(100),
        ..Config::default()
    }
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn more_requests_than_places_are_told_to_slow_down() {
    let server = Server::start_with(Config {
        requests_max: 1,
        body_idle_timeout: Duration::from_secs(60),
        ..impatient()
    })
    .await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/key").body(vec![7; 1000]).payload(Payload::Unsigned);
    let (head, body) = client.sign(put);
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    loop {
        let reply = client.get("/").await;
        if reply.status != 200 {
            assert_eq!(reply.error(), (503, "SlowDown".to_owned()));
            break;
        }
    }
    slow.write_all(&body).await.unwrap();
    assert_eq!(parse(&read_all(&mut slow).await, false).unwrap().status, 200);
    assert_eq!(client.get("/").await.status, 200, "the place is free again");
}

#[tokio::test]
async fn bodies_beyond_the_memory_are_told_to_slow_down() {
    let server = Server::start_with(Config {
        body_bytes_max: 1000,
        body_idle_timeout: Duration::from_secs(60),
        ..impatient()
    })
    .await;
    let client = server.with_bucket().await;
    let put =
        |size| Request::new("PUT", "/bucket/key").body(vec![7; size]).payload(Payload::Unsigned);
    let (head, body) = client.sign(put(800));
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    loop {
        let reply = client.send(put(300)).await;
        if reply.status != 200 {
            assert_eq!(reply.error(), (503, "SlowDown".to_owned()));
            break;
        }
    }
    slow.write_all(&body).await.unwrap();
    assert_eq!(parse(&read_all(&mut slow).await, false).unwrap().status, 200);
    assert_eq!(client.send(put(5000)).await.status, 200, "a large body takes all there is");
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let server = Server::start_with(impatient()).await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/key").body(vec![7; 1000]).payload(Payload::Unsigned);
    let (head, body) = client.sign(put);
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&body[..500]).await.unwrap();
    let reply = parse(&read_all(&mut slow).await, false).expect("an answer");
    assert_eq!(reply.error(), (400, "RequestTimeout".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let server = Server::start_with(Config {
        body_grace: Duration::from_millis(200),
        body_idle_timeout: Duration::from_secs(60),
        ..impatient()
    })
    .await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/key").body(vec![7; 1000]).payload(Payload::Unsigned);
    let (head, body) = client.sign(put);
    let slow = TcpStream::connect(server.address).await.unwrap();
    let (mut reading, mut writing) = slow.into_split();
    writing.write_all(head.as_bytes()).await.unwrap();
    let trickle = tokio::spawn(async move {
        for byte in body {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = reading.read_to_end(&mut answer).await;
    trickle.abort();
    let reply = parse(&answer, false).expect("an answer");
    assert_eq!(reply.error(), (400, "RequestTimeout".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
}

#[tokio::test]
async fn headers_that_never_end_are_given_up() {
    let server = Server::start_with(impatient()).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    let answer = read_all(&mut slow).await;
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    read_all(&mut idle).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let server = Server::start_with(Config {
        requests_max: 1,
        response_stall_timeout: Duration::from_millis(200),
        ..impatient()
    })
    .await;
    let client = server.with_bucket().await;
    client.put("/bucket/key", &vec![7; 30 << 20]).await;
    let (head, _) = client.sign(Request::new("GET", "/bucket/key"));
    let mut deaf = TcpStream::connect(server.address).await.unwrap();
    deaf.write_all(head.as_bytes()).await.unwrap();
    while client.head("/bucket").await.status == 200 {}
    while client.head("/bucket").await.status != 200 {}
}

#[tokio::test]
async fn an_upload_beyond_the_bounds_is_refused_before_its_body() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/key")
        .header("content-length", &((5u64 << 30) + 1).to_string())
        .header("expect", "100-continue")
        .payload(Payload::Unsigned);
    let (head, _) = client.sign(put);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(!answer.starts_with(b"HTTP/1.1 100"));
    assert_eq!(parse(&answer, false).unwrap().error(), (400, "EntityTooLarge".to_owned()));
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for round in 0..3 {
        let put = Request::new("PUT", "/bucket/key").body(format!("round {round}"));
        let (head, body) = client.sign(put);
        let head = head.replace("connection: close\r\n", "");
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        assert_eq!(client.get("/bucket/key").await.text(), format!("round {round}"));
    }
}

#[tokio::test]
async fn a_shutdown_lets_open_requests_end() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/key").header("expect", "100-continue");
    let put = put.body(vec![7; 1000]);
    let (head, body) = client.sign(put);
    let mut open = TcpStream::connect(server.address).await.unwrap();
    open.write_all(head.as_bytes()).await.unwrap();
    let address = server.address;
    let mut go_on = [0; 25];
    open.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    drop(server);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    open.write_all(&body).await.unwrap();
    assert_eq!(parse(&read_all(&mut open).await, false).unwrap().status, 200);
}
