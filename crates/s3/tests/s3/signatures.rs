use crate::client::{Client, Payload, Request, exchange};
use crate::server::{SECRET_KEY, Server};

#[tokio::test]
async fn wrong_keys_and_clocks_are_refused() {
    let server = Server::start().await;
    let get = |access: &str, secret: &str| Client::new(server.address, access, secret);
    let wrong = get("onefold", "wrong").get("/").await;
    assert_eq!(wrong.error(), (403, "SignatureDoesNotMatch".to_owned()));
    let unknown = get("nobody", SECRET_KEY).get("/").await;
    assert_eq!(unknown.error(), (403, "InvalidAccessKeyId".to_owned()));
    let long = get(&"k".repeat(500), SECRET_KEY).get("/").await;
    assert_eq!(long.error(), (403, "InvalidAccessKeyId".to_owned()));
    let broken = get("broken", SECRET_KEY).get("/").await;
    assert_eq!(broken.error(), (503, "ServiceUnavailable".to_owned()));
    assert_eq!(get("remote", SECRET_KEY).get("/").await.status, 200);
    for ahead in [-1000, 1000] {
        let mut late = server.client();
        late.clock_ahead = ahead;
        assert_eq!(late.get("/").await.error(), (403, "RequestTimeTooSkewed".to_owned()));
    }
}

#[tokio::test]
async fn unsigned_requests_are_denied() {
    let server = Server::start().await;
    server.with_bucket().await;
    for head in ["GET / ", "GET /bucket ", "PUT /bucket/key ", "DELETE /bucket "] {
        let request = format!("{head}HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let reply = exchange(server.address, request.as_bytes(), false).await.unwrap();
        assert_eq!(reply.error(), (403, "AccessDenied".to_owned()), "{head}");
    }
    let version_2 = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                     date: Wed, 21 Oct 2026 07:28:00 GMT\r\nauthorization: AWS onefold:AAAA\r\n\r\n";
    let reply = exchange(server.address, version_2.as_bytes(), false).await.unwrap();
    assert_eq!(reply.status, 403);
}

#[tokio::test]
async fn a_header_outside_the_signature_is_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    client.put("/bucket/secret", b"secret").await;
    let put = Request::new("PUT", "/bucket/key").unsigned_header("x-amz-meta-a", "b").body("x");
    assert_eq!(client.send(put).await.error(), (403, "AccessDenied".to_owned()));
    let url = client.presign("PUT", "/bucket/key", 60);
    let request = format!(
        "PUT {url} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 0\r\n\
         x-amz-copy-source: /bucket/secret\r\n\r\n",
        server.address
    );
    let reply = exchange(server.address, request.as_bytes(), false).await.unwrap();
    assert_eq!(reply.error(), (403, "AccessDenied".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
}

#[tokio::test]
async fn presigned_urls_work_until_they_expire() {
    let server = Server::start().await;
    let mut client = server.with_bucket().await;
    client.put("/bucket/key", b"hello").await;
    let get = |url: String| {
        let request =
            format!("GET {url} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.address);
        async move { exchange(server.address, request.as_bytes(), false).await.unwrap() }
    };
    let url = client.presign("GET", "/bucket/key", 60);
    assert_eq!(get(url.clone()).await.text(), "hello");
    let other = url.replace("/bucket/key", "/bucket/other");
    assert_eq!(get(other).await.error(), (403, "SignatureDoesNotMatch".to_owned()));
    client.clock_ahead = -100;
    let expired = client.presign("GET", "/bucket/key", 60);
    assert_eq!(get(expired).await.error(), (403, "AccessDenied".to_owned()));
}

#[tokio::test]
async fn a_body_that_is_not_the_signed_one_is_not_stored() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/key").body("hello").payload(Payload::WrongHash);
    let refused = client.send(put).await;
    assert_eq!(refused.error(), (400, "XAmzContentSHA256Mismatch".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
    let body = "<Delete><Object><Key>a</Key></Object></Delete>";
    client.put("/bucket/a", b"x").await;
    let delete = Request::new("POST", "/bucket?delete").body(body).payload(Payload::WrongHash);
    let refused = client.send(delete.header("x-amz-checksum-crc32", "AAAAAA==")).await;
    assert_eq!(refused.error(), (400, "XAmzContentSHA256Mismatch".to_owned()));
    assert_eq!(client.head("/bucket/a").await.status, 200);
}

#[tokio::test]
async fn chunks_are_verified_one_by_one() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n >> 4) as u8).collect();
    let put =
        || Request::new("PUT", "/bucket/key").body(&bytes).payload(Payload::SignedChunks(65_536));
    let (head, mut body) = client.sign(put());
    body[100_000] ^= 1;
    let tampered = [head.as_bytes(), &body].concat();
    let reply = exchange(server.address, &tampered, false).await.unwrap();
    assert_eq!(reply.error(), (403, "SignatureDoesNotMatch".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
    assert_eq!(client.send(put()).await.status, 200);
    assert_eq!(client.get("/bucket/key").await.body, bytes);
}

#[tokio::test]
async fn a_region_that_cannot_be_is_answered_with_one_that_can() {
    let server = Server::start().await;
    let mut client = server.client();
    client.region = "US".to_owned();
    let refused = client.get("/").await;
    assert_eq!(refused.error(), (400, "AuthorizationHeaderMalformed".to_owned()));
    assert_eq!(refused.one("Region"), "us-east-1");
}
