use crate::client::{Request, hex};
use crate::server::Server;
use s3s::crypto::{Checksum as _, Md5};

fn quoted_md5(bytes: &[u8]) -> String {
    format!("\"{}\"", hex(&Md5::checksum(bytes)))
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    for (key, size) in [("empty", 0), ("small", 1000), ("big", 3_500_001)] {
        let bytes: Vec<u8> = (0..size).map(|n: u32| (n.wrapping_mul(31) >> 3) as u8).collect();
        let path = format!("/bucket/{key}");
        let put = client.put(&path, &bytes).await;
        assert_eq!(put.status, 200);
        assert_eq!(put.header("etag"), Some(quoted_md5(&bytes).as_str()));
        let got = client.get(&path).await;
        assert_eq!((got.status, got.body == bytes), (200, true));
        assert_eq!(got.header("etag"), put.header("etag"));
        assert_eq!(got.header("content-type"), Some("binary/octet-stream"));
        assert_eq!(got.header("accept-ranges"), Some("bytes"));
        let head = client.head(&path).await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    }
}

#[tokio::test]
async fn keys_of_any_shape_are_distinct() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let keys = ["a", "a/", "a//b", "a/./b", "a/../b", "%C3%BC", "x%20y", "%2B", "a%26b%3Cc"];
    for key in keys {
        assert_eq!(
            client.put(&format!("/bucket/{key}"), key.as_bytes()).await.status,
            200,
            "{key}"
        );
    }
    for key in keys {
        assert_eq!(client.get(&format!("/bucket/{key}")).await.text(), key);
    }
    assert_eq!(client.get("/bucket?list-type=2").await.all("Key").len(), keys.len());
}

#[tokio::test]
async fn headers_and_metadata_are_kept_and_replaced_on_request() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let kept = [
        ("content-type", "text/x-test"),
        ("cache-control", "max-age=60"),
        ("content-disposition", "attachment; filename=\"a.txt\""),
        ("content-language", "de"),
        ("content-encoding", "gzip"),
        ("expires", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ("x-amz-meta-color", "blue"),
        ("x-amz-meta-shape", "round"),
    ];
    let put = Request::new("PUT", "/bucket/key").body("x");
    let put = kept.iter().fold(put, |put, (name, value)| put.header(name, value));
    assert_eq!(client.send(put).await.status, 200);
    for reply in [client.get("/bucket/key").await, client.head("/bucket/key").await] {
        for (name, value) in kept {
            assert_eq!(reply.header(name), Some(value), "{name}");
        }
    }
    let overridden = client.get("/bucket/key?response-content-type=text%2Fplain").await;
    assert_eq!(overridden.header("content-type"), Some("text/plain"));
    let large = Request::new("PUT", "/bucket/key").header("x-amz-meta-a", &"v".repeat(2100));
    assert_eq!(client.send(large).await.error(), (400, "MetadataTooLarge".to_owned()));
}

#[tokio::test]
async fn ranges_are_cut_from_the_object() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    client.put("/bucket/key", b"0123456789").await;
    let cases = [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=8-100", "89", "bytes 8-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
    ];
    for (range, bytes, header) in cases {
        let got = client.send(Request::new("GET", "/bucket/key").header("range", range)).await;
        assert_eq!((got.status, got.text().as_str()), (206, bytes), "{range}");
        assert_eq!(got.header("content-range"), Some(header));
        let head = client.send(Request::new("HEAD", "/bucket/key").header("range", range)).await;
        assert_eq!(head.status, 206);
        assert_eq!(head.header("content-length"), Some(bytes.len().to_string().as_str()));
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
        let got = client.send(Request::new("GET", "/bucket/key").header("range", range)).await;
        assert_eq!(got.error(), (416, "InvalidRange".to_owned()), "{range}");
        assert_eq!(got.header("content-range"), Some("bytes */10"));
    }
}

#[tokio::test]
async fn conditional_reads_follow_the_rfc() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let etag = client.put("/bucket/key", b"x").await.header("etag").unwrap().to_owned();
    let modified = client.head("/bucket/key").await.header("last-modified").unwrap().to_owned();
    let past = "Wed, 21 Oct 2015 07:28:00 GMT";
    let cases = [
        ("if-match", etag.as_str(), 200),
        ("if-match", "*", 200),
        ("if-match", "\"other\"", 412),
        ("if-none-match", etag.as_str(), 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", modified.as_str(), 304),
        ("if-modified-since", past, 200),
        ("if-unmodified-since", modified.as_str(), 200),
        ("if-unmodified-since", past, 412),
    ];
    for (name, value, status) in cases {
        for method in ["GET", "HEAD"] {
            let reply = client.send(Request::new(method, "/bucket/key").header(name, value)).await;
            assert_eq!(reply.status, status, "{method} {name}: {value}");
            if status == 304 {
                assert_eq!(reply.header("etag"), Some(etag.as_str()));
                assert!(reply.body.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn conditional_writes_are_checked() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let put = |name: &str, value: &str| {
        Request::new("PUT", "/bucket/key").header(name, value).body("new")
    };
    assert_eq!(client.send(put("if-none-match", "*")).await.status, 200);
    let refused = client.send(put("if-none-match", "*")).await;
    assert_eq!(refused.error(), (412, "PreconditionFailed".to_owned()));
    let refused = client.send(put("if-match", "\"other\"")).await;
    assert_eq!(refused.error(), (412, "PreconditionFailed".to_owned()));
    assert_eq!(client.send(put("if-match", &quoted_md5(b"new"))).await.status, 200);
    let refused = client.send(put("if-none-match", "\"other\"")).await;
    assert_eq!(refused.error(), (501, "NotImplemented".to_owned()));
}

#[tokio::test]
async fn deleting_is_idempotent_and_in_bulk() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    for key in ["a", "b", "c&d"] {
        client.put(&format!("/bucket/{}", key.replace('&', "%26")), b"x").await;
    }
    assert_eq!(client.delete("/bucket/a").await.status, 204);
    assert_eq!(client.delete("/bucket/a").await.status, 204);
    assert_eq!(client.get("/bucket/a").await.error(), (404, "NoSuchKey".to_owned()));
    let body = "<Delete><Object><Key>b</Key></Object><Object><Key>c&amp;d</Key></Object>\
                <Object><Key>absent</Key></Object><Object><Key></Key></Object></Delete>";
    let bulk = || Request::new("POST", "/bucket?delete").body(body);
    let refused = client.send(bulk()).await;
    assert_eq!(refused.error(), (400, "InvalidRequest".to_owned()), "neither MD5 nor checksum");
    let wrong = bulk().header("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==");
    assert_eq!(client.send(wrong).await.error(), (400, "BadDigest".to_owned()));
    assert_eq!(client.head("/bucket/b").await.status, 200, "nothing was deleted yet");
    let md5 = base64(&Md5::checksum(body.as_bytes()));
    let deleted = client.send(bulk().header("content-md5", &md5)).await;
    assert_eq!(deleted.status, 200);
    assert_eq!(deleted.all("Deleted").len(), 3);
    assert_eq!(deleted.all("Code"), ["UserKeyMustBeSpecified"]);
    assert_eq!(client.get("/bucket?list-type=2").await.one("KeyCount"), "0");
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test]
async fn copies_keep_or_replace_the_attributes() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/a%20b")
        .header("x-amz-meta-color", "blue")
        .header("content-type", "text/plain")
        .body("hello");
    let etag = client.send(put).await.header("etag").unwrap().to_owned();
    let copy = |to: &str| {
        Request::new("PUT", &format!("/bucket/{to}")).header("x-amz-copy-source", "/bucket/a%20b")
    };
    let copied = client.send(copy("kept")).await;
    assert_eq!(copied.status, 200);
    assert_eq!(copied.one("ETag").replace("&quot;", "\""), etag);
    let kept = client.get("/bucket/kept").await;
    assert_eq!((kept.text().as_str(), kept.header("x-amz-meta-color")), ("hello", Some("blue")));
    let replaced =
        copy("new").header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-color", "red");
    assert_eq!(client.send(replaced).await.status, 200);
    let new = client.get("/bucket/new").await;
    assert_eq!((new.text().as_str(), new.header("x-amz-meta-color")), ("hello", Some("red")));
    assert_eq!(new.header("content-type"), Some("binary/octet-stream"));
}

#[tokio::test]
async fn copies_check_their_conditions_and_sources() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let etag = client.put("/bucket/a", b"hello").await.header("etag").unwrap().to_owned();
    let copy = |from: &str, to: &str| {
        Request::new("PUT", &format!("/bucket/{to}")).header("x-amz-copy-source", from)
    };
    let onto_itself = client.send(copy("/bucket/a", "a")).await;
    assert_eq!(onto_itself.error(), (400, "InvalidRequest".to_owned()));
    let absent = client.send(copy("/bucket/absent", "b")).await;
    assert_eq!(absent.error(), (404, "NoSuchKey".to_owned()));
    let matching = copy("bucket/a", "b").header("x-amz-copy-source-if-match", &etag);
    assert_eq!(client.send(matching).await.status, 200);
    let other = copy("bucket/a", "c").header("x-amz-copy-source-if-none-match", &etag);
    assert_eq!(client.send(other).await.error(), (412, "PreconditionFailed".to_owned()));
    assert_eq!(client.head("/bucket/c").await.status, 404);
    let exists = copy("bucket/a", "b").header("if-none-match", "*");
    assert_eq!(client.send(exists).await.error(), (412, "PreconditionFailed".to_owned()));
}

#[tokio::test]
async fn what_would_be_ignored_is_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let cases = [
        ("x-amz-server-side-encryption", "AES256", "NotImplemented"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256", "NotImplemented"),
        ("x-amz-object-lock-mode", "COMPLIANCE", "InvalidRequest"),
        ("x-amz-expected-bucket-owner", "111122223333", "AccessDenied"),
        ("x-amz-acl", "public-read", "AccessControlListNotSupported"),
        ("x-amz-storage-class", "GLACIER", "InvalidStorageClass"),
    ];
    for (name, value, code) in cases {
        let put = Request::new("PUT", "/bucket/key").header(name, value).body("x");
        assert_eq!(client.send(put).await.error().1, code, "{name}");
        assert_eq!(client.head("/bucket/key").await.status, 404);
    }
    let put = Request::new("PUT", "/bucket/key").header("x-amz-acl", "private").body("x");
    assert_eq!(client.send(put).await.status, 200);
    let put = Request::new("PUT", "/bucket/key").header("x-amz-expected-bucket-owner", "onefold");
    assert_eq!(client.send(put).await.status, 200);
}
