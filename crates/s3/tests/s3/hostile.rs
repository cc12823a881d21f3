use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Payload, Request, exchange};
use crate::server::Server;

#[tokio::test]
async fn a_body_that_ends_early_leaves_nothing() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let payloads = [
        || Payload::Hash,
        || Payload::Unsigned,
        || Payload::SignedChunks(1000),
        || Payload::UnsignedTrailer(1000, None),
    ];
    for payload in payloads {
        let put = Request::new("PUT", "/bucket/key").body(vec![7; 10_000]).payload(payload());
        let (head, body) = client.sign(put);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body[..5000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
        assert_eq!(client.head("/bucket/key").await.status, 404);
    }
}

#[tokio::test]
async fn a_decoded_length_that_is_wrong_leaves_nothing() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    // The signed length says 4, the chunks hold more or less.
    for body in [&b"6\r\nabcdef\r\n0\r\n\r\n"[..], b"2\r\nab\r\n0\r\n\r\n"] {
        let put = Request::new("PUT", "/bucket/key").body("abcd").payload(
            Payload::UnsignedTrailer(4, Some(("x-amz-checksum-crc32", "7YLNEQ==".into()))),
        );
        let (head, framed) = client.sign(put);
        let head = head.replace(
            &format!("content-length: {}\r\nauth", framed.len()),
            &format!("content-length: {}\r\nauth", body.len()),
        );
        let request = [head.as_bytes(), body].concat();
        let reply = exchange(server.address, &request, false).await.unwrap();
        assert_eq!(reply.error(), (400, "IncompleteBody".to_owned()));
        assert_eq!(client.head("/bucket/key").await.status, 404);
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/key")
        .header("transfer-encoding", "chunked")
        .payload(Payload::Unsigned);
    let (head, _) = client.sign(put);
    let request = format!("{head}5\r\nhello\r\n0\r\n\r\n");
    let reply = exchange(server.address, request.as_bytes(), false).await.unwrap();
    assert_eq!(reply.error(), (411, "MissingContentLength".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
}

#[tokio::test]
async fn hostile_xml_is_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    client.put("/bucket/a", b"x").await;
    let entities = "<!DOCTYPE d [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">\
                    <!ENTITY c SYSTEM \"file:///etc/passwd\">]>\
                    <Delete><Object><Key>&b;&c;</Key></Object></Delete>";
    let deep = format!("{}{}", "<Delete>".repeat(10_000), "</Delete>".repeat(10_000));
    let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1001));
    let bodies = [
        entities.to_owned(),
        deep,
        many,
        "<Delete><Object><Key>a</Key>".to_owned(),
        "not xml".to_owned(),
        String::new(),
        "<Delete></Delete>".to_owned(),
        "<Delete><Object><Key>\u{0}</Key></Object".to_owned(),
    ];
    for body in bodies {
        let crc = crate::objects::base64(&<s3s::crypto::Crc32 as s3s::crypto::Checksum>::checksum(
            body.as_bytes(),
        ));
        let request = Request::new("POST", "/bucket?delete").header("x-amz-checksum-crc32", &crc);
        let reply = client.send(request.body(&body)).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(reply.status, 400, "{shown}: {}", reply.text());
    }
    assert_eq!(client.head("/bucket/a").await.status, 200);
}

#[tokio::test]
async fn forms_and_oversized_documents_are_refused_unread() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let form = Request::new("POST", "/bucket")
        .header("content-type", "Multipart/form-data; boundary=x")
        .body("--x\r\n");
    assert_eq!(client.send(form).await.error(), (501, "NotImplemented".to_owned()));
    let large = Request::new("POST", "/bucket?delete").body(vec![b' '; (4 << 20) + 1]);
    let refused = client.send(large.header("x-amz-checksum-crc32", "AAAAAA==")).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[tokio::test]
async fn malformed_requests_get_an_answer_and_harm_nobody() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let long_key = client.put(&format!("/bucket/{}", "k".repeat(1025)), b"x").await;
    assert_eq!(long_key.error(), (400, "KeyTooLongError".to_owned()));
    let not_utf8 = client.put("/bucket/%FF", b"x").await;
    assert_eq!(not_utf8.error(), (400, "InvalidURI".to_owned()));
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let reply = exchange(server.address, garbage.as_bytes(), false).await;
        assert!(reply.is_none_or(|reply| reply.status >= 400), "{garbage:?}");
    }
    let many: String = (0..1000).map(|n| format!("x-h{n}: v\r\n")).collect();
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    let reply = exchange(server.address, request.as_bytes(), false).await;
    assert!(reply.is_none_or(|reply| reply.status == 431));
    let header = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "v".repeat(2 << 20));
    let reply = exchange(server.address, header.as_bytes(), false).await;
    assert!(reply.is_none_or(|reply| reply.status == 431));
    assert_eq!(client.get("/bucket").await.status, 200, "others are served");
}
