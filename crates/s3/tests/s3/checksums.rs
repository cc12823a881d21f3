use s3s::crypto::{Checksum as _, Crc32, Crc64Nvme, Md5, Sha1, Sha256};

use crate::client::{Payload, Request};
use crate::multipart::{complete_body, start};
use crate::objects::base64;
use crate::server::Server;

const BODY: &[u8] = b"the quick brown fox";

fn put() -> Request {
    Request::new("PUT", "/bucket/key").body(BODY)
}

/// As the header has it.
pub(crate) fn crc32(bytes: &[u8]) -> String {
    base64(&Crc32::checksum(bytes))
}

#[tokio::test]
async fn content_md5_is_verified_before_anything_is_visible() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let wrong = client.send(put().header("content-md5", &base64(&Md5::checksum(b"x")))).await;
    assert_eq!(wrong.error(), (400, "BadDigest".to_owned()));
    let malformed = client.send(put().header("content-md5", "AAAA")).await;
    assert_eq!(malformed.error(), (400, "InvalidDigest".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
    let right = client.send(put().header("content-md5", &base64(&Md5::checksum(BODY)))).await;
    assert_eq!(right.status, 200);
}

#[tokio::test]
async fn checksums_are_verified_kept_and_returned_on_request() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let cases = [
        ("x-amz-checksum-crc32", base64(&Crc32::checksum(BODY))),
        ("x-amz-checksum-crc64nvme", base64(&Crc64Nvme::checksum(BODY))),
        ("x-amz-checksum-sha1", base64(&Sha1::checksum(BODY))),
        ("x-amz-checksum-sha256", base64(&Sha256::checksum(BODY))),
    ];
    for (name, value) in &cases {
        let stored = client.send(put().header(name, value)).await;
        assert_eq!((stored.status, stored.header(name)), (200, Some(value.as_str())));
        let get = Request::new("GET", "/bucket/key").header("x-amz-checksum-mode", "ENABLED");
        let got = client.send(get).await;
        assert_eq!(got.header(name), Some(value.as_str()));
        assert_eq!(got.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
        assert_eq!(client.get("/bucket/key").await.header(name), None);
        assert_eq!(client.delete("/bucket/key").await.status, 204);
    }
    let wrong = client.send(put().header("x-amz-checksum-crc32", "AAAAAA==")).await;
    assert_eq!(wrong.error(), (400, "BadDigest".to_owned()));
    let malformed = client.send(put().header("x-amz-checksum-crc32", "AAAA")).await;
    assert_eq!(malformed.error(), (400, "InvalidRequest".to_owned()));
    let two = put().header(cases[0].0, &cases[0].1).header(cases[2].0, &cases[2].1);
    assert_eq!(client.send(two).await.error(), (400, "InvalidRequest".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
}

#[tokio::test]
async fn trailing_checksums_are_verified() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let bytes: Vec<u8> = (0..2_500_000u32).map(|n| (n >> 5) as u8).collect();
    let value = base64(&Crc32::checksum(&bytes));
    let put = |chunk, trailer| {
        let payload = Payload::UnsignedTrailer(chunk, trailer);
        Request::new("PUT", "/bucket/key").body(&bytes).payload(payload)
    };
    let name = "x-amz-checksum-crc32";
    let wrong = client.send(put(65_536, Some((name, "AAAAAA==".to_owned())))).await;
    assert_eq!(wrong.error(), (400, "BadDigest".to_owned()));
    let missing = client.send(put(65_536, None)).await;
    assert_eq!(missing.error(), (400, "MalformedTrailerError".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
    for chunk in [1000, 65_536, bytes.len()] {
        let stored = client.send(put(chunk, Some((name, value.clone())))).await;
        assert_eq!((stored.status, stored.header(name)), (200, Some(value.as_str())));
        let got = client.get("/bucket/key").await;
        assert!(got.body == bytes);
        assert_eq!(got.header("content-encoding"), None);
    }
}

#[tokio::test]
async fn multipart_objects_have_the_checksum_of_their_parts() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let (one, two) = (vec![1; 5 << 20], b"end".to_vec());
    let whole = [one.clone(), two.clone()].concat();
    let crcs = [Crc32::checksum(&one), Crc32::checksum(&two)];
    let composite = format!("{}-2", base64(&Crc32::checksum(&crcs.concat())));
    let full = base64(&Crc32::checksum(&whole));
    for (kind, expected) in [("COMPOSITE", composite), ("FULL_OBJECT", full)] {
        let create = Request::new("POST", "/bucket/key?uploads")
            .header("x-amz-checksum-algorithm", "CRC32")
            .header("x-amz-checksum-type", kind);
        let upload = start(&client, create).await;
        let mut etags = Vec::new();
        for (number, bytes) in [(1, &one), (2, &two)] {
            let path = format!("/bucket/key?partNumber={number}&uploadId={upload}");
            let part = Request::new("PUT", &path).body(bytes);
            let part = part.header("x-amz-checksum-crc32", &base64(&Crc32::checksum(bytes)));
            etags.push(client.send(part).await.header("etag").unwrap().to_owned());
        }
        let body = complete_body(&[(1, &etags[0]), (2, &etags[1])]);
        let complete = |checksum: &str| {
            let request = Request::new("POST", &format!("/bucket/key?uploadId={upload}"));
            request.body(&body).header("x-amz-checksum-crc32", checksum)
        };
        let wrong = client.send(complete("AAAAAA==")).await;
        assert_eq!(wrong.error(), (400, "BadDigest".to_owned()));
        let value = expected.trim_end_matches("-2");
        let done = client.send(complete(value)).await;
        assert_eq!(done.status, 200, "{}", done.text());
        assert_eq!(done.one("ChecksumCRC32"), expected);
        let head = Request::new("HEAD", "/bucket/key").header("x-amz-checksum-mode", "ENABLED");
        let head = client.send(head).await;
        assert_eq!(head.header("x-amz-checksum-crc32"), Some(expected.as_str()));
        assert_eq!(head.header("x-amz-checksum-type"), Some(kind));
    }
    let create = Request::new("POST", "/bucket/key?uploads")
        .header("x-amz-checksum-algorithm", "SHA1")
        .header("x-amz-checksum-type", "FULL_OBJECT");
    assert_eq!(client.send(create).await.error(), (400, "InvalidRequest".to_owned()));
}
