use s3s::crypto::{Checksum as _, Crc64Nvme};

use crate::client::Request;
use crate::multipart::complete_body;
use crate::objects::base64;
use crate::server::Server;

const FIRST: usize = 5 << 20;

#[tokio::test]
async fn parts_are_read_by_number() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let upload = client.post("/bucket/k?uploads", "").await.one("UploadId");
    let parts = [vec![1; FIRST], b"the end".to_vec()];
    let mut etags = Vec::new();
    for (number, bytes) in (1..).zip(&parts) {
        let path = format!("/bucket/k?partNumber={number}&uploadId={upload}");
        etags.push(client.put(&path, bytes).await.header("etag").unwrap().to_owned());
    }
    let body = complete_body(&[(1, &etags[0]), (2, &etags[1])]);
    assert_eq!(client.post(&format!("/bucket/k?uploadId={upload}"), &body).await.status, 200);
    let last = client.get("/bucket/k?partNumber=2").await;
    assert_eq!((last.status, last.text()), (206, "the end".to_owned()));
    assert_eq!(last.header("x-amz-mp-parts-count"), Some("2"));
    let range = format!("bytes {FIRST}-{}/{}", FIRST + 6, FIRST + 7);
    assert_eq!(last.header("content-range"), Some(range.as_str()));
    let head = client.head("/bucket/k?partNumber=1").await;
    assert_eq!(head.header("content-length"), Some(FIRST.to_string().as_str()));
    let beyond = client.get("/bucket/k?partNumber=3").await;
    assert_eq!(beyond.error(), (416, "InvalidPartNumber".to_owned()));
    let both = Request::new("GET", "/bucket/k?partNumber=1").header("range", "bytes=0-1");
    assert_eq!(client.send(both).await.error(), (400, "InvalidRequest".to_owned()));
    client.put("/bucket/plain", b"whole").await;
    assert_eq!(client.get("/bucket/plain?partNumber=1").await.text(), "whole");
    assert_eq!(client.get("/bucket/plain?partNumber=2").await.status, 416);

    // Nobody asked for a checksum: the whole object has one.
    let whole = base64(&Crc64Nvme::checksum(&parts.concat()));
    let all = "ETag,Checksum,ObjectParts,StorageClass,ObjectSize";
    let get = Request::new("GET", "/bucket/k?attributes").header("x-amz-object-attributes", all);
    let described = client.send(get).await;
    assert_eq!(described.status, 200, "{}", described.text());
    assert_eq!(described.one("ObjectSize"), (FIRST + 7).to_string());
    assert_eq!(described.one("ChecksumCRC64NVME"), whole);
    assert_eq!(described.one("PartsCount"), "2");
    assert_eq!(described.all("Size"), [FIRST.to_string(), "7".to_owned()]);
    let unknown = Request::new("GET", "/bucket/k?attributes");
    let unknown = client.send(unknown.header("x-amz-object-attributes", "Colour")).await;
    assert_eq!(unknown.error(), (400, "InvalidArgument".to_owned()));
}

#[tokio::test]
async fn an_object_that_came_without_a_checksum_gets_one() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let expected = base64(&Crc64Nvme::checksum(b"the quick brown fox"));
    let stored = client.put("/bucket/k", b"the quick brown fox").await;
    assert_eq!(stored.header("x-amz-checksum-crc64nvme"), Some(expected.as_str()));
    assert_eq!(stored.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    let head = Request::new("HEAD", "/bucket/k").header("x-amz-checksum-mode", "ENABLED");
    let head = client.send(head).await;
    assert_eq!(head.header("x-amz-checksum-crc64nvme"), Some(expected.as_str()));
}
