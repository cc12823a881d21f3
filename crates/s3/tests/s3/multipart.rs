use crate::client::{Client, Reply, Request};
use crate::server::Server;

const PART_MIN: usize = 5 << 20;

pub(crate) async fn start(client: &Client, request: Request) -> String {
    let started = client.send(request).await;
    assert_eq!(started.status, 200, "{}", started.text());
    started.one("UploadId")
}

pub(crate) fn complete_body(parts: &[(usize, &str)]) -> String {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        })
        .collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

async fn part(client: &Client, upload: &str, number: usize, bytes: &[u8]) -> String {
    let path = format!("/bucket/key?partNumber={number}&uploadId={upload}");
    let put = client.put(&path, bytes).await;
    assert_eq!(put.status, 200, "{}", put.text());
    put.header("etag").unwrap().to_owned()
}

async fn complete(client: &Client, upload: &str, parts: &[(usize, &str)]) -> Reply {
    client.post(&format!("/bucket/key?uploadId={upload}"), &complete_body(parts)).await
}

#[tokio::test]
async fn parts_in_any_order_become_one_object() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let create = Request::new("POST", "/bucket/key?uploads")
        .header("content-type", "text/x-big")
        .header("x-amz-meta-color", "blue");
    let upload = start(&client, create).await;
    let (first, second, last) = (vec![1; PART_MIN], vec![2; PART_MIN + 7], vec![3; 10]);
    let third = part(&client, &upload, 30, &last).await;
    let one = part(&client, &upload, 1, &first).await;
    part(&client, &upload, 2, b"replaced").await;
    let two = part(&client, &upload, 2, &second).await;
    part(&client, &upload, 17, b"left out").await;
    assert_eq!(client.get("/bucket/key").await.status, 404, "not visible yet");
    let parts = client.get(&format!("/bucket/key?uploadId={upload}")).await;
    assert_eq!(parts.all("PartNumber"), ["1", "2", "17", "30"]);
    let bare = two.trim_matches('"');
    let done = complete(&client, &upload, &[(1, &one), (2, bare), (30, &third)]).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.one("ETag").contains("-3"));
    let got = client.get("/bucket/key").await;
    assert_eq!(got.body, [first, second, last].concat());
    assert_eq!(got.header("content-type"), Some("text/x-big"));
    assert_eq!(got.header("x-amz-meta-color"), Some("blue"));
    let again = complete(&client, &upload, &[(1, &one), (2, &two), (30, &third)]).await;
    assert_eq!(again.status, 200, "a completion whose answer was lost can be repeated");
    let other = complete(&client, &upload, &[(1, &one)]).await;
    assert_eq!(other.error(), (404, "NoSuchUpload".to_owned()));
}

#[tokio::test]
async fn wrong_completions_change_nothing() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let upload = start(&client, Request::new("POST", "/bucket/key?uploads")).await;
    let one = part(&client, &upload, 1, b"small").await;
    let two = part(&client, &upload, 2, b"small too").await;
    let wrong = "\"00000000000000000000000000000000\"";
    let cases: [(&[(usize, &str)], &str); 6] = [
        (&[(2, &two), (1, &one)], "InvalidPartOrder"),
        (&[(1, &one), (1, &one)], "InvalidPartOrder"),
        (&[(1, &one), (3, &two)], "InvalidPart"),
        (&[(1, wrong)], "InvalidPart"),
        (&[(1, &one), (2, &two)], "EntityTooSmall"),
        (&[], "MalformedXML"),
    ];
    for (parts, code) in cases {
        let refused = complete(&client, &upload, parts).await;
        assert_eq!(refused.error(), (400, code.to_owned()));
    }
    assert_eq!(client.head("/bucket/key").await.status, 404);
    assert_eq!(complete(&client, &upload, &[(2, &two)]).await.status, 200);
    assert_eq!(client.get("/bucket/key").await.text(), "small too");
}

#[tokio::test]
async fn uploads_are_listed_and_aborted() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    for key in ["a", "b/1", "b/2", "c"] {
        start(&client, Request::new("POST", &format!("/bucket/{key}?uploads"))).await;
    }
    let listed = client.get("/bucket?uploads").await;
    assert_eq!(listed.all("Key"), ["a", "b/1", "b/2", "c"]);
    let rolled = client.get("/bucket?delimiter=%2F&max-uploads=2&uploads").await;
    assert_eq!(rolled.all("Key"), ["a"]);
    assert_eq!(rolled.all("CommonPrefixes"), ["<Prefix>b/</Prefix>"]);
    assert_eq!(rolled.one("IsTruncated"), "true");
    let path = format!(
        "/bucket?delimiter=%2F&key-marker={}&upload-id-marker={}&uploads",
        rolled.one("NextKeyMarker").replace('/', "%2F"),
        rolled.one("NextUploadIdMarker")
    );
    assert_eq!(client.get(&path).await.all("Key"), ["c"]);
    let upload = &listed.all("UploadId")[0];
    let path = format!("/bucket/a?uploadId={upload}");
    assert_eq!(client.delete(&path).await.status, 204);
    assert_eq!(client.delete(&path).await.error(), (404, "NoSuchUpload".to_owned()));
    let late = client.put(&format!("/bucket/a?partNumber=1&uploadId={upload}"), b"x").await;
    assert_eq!(late.error(), (404, "NoSuchUpload".to_owned()));
    assert_eq!(client.get("/bucket?uploads").await.all("Key"), ["b/1", "b/2", "c"]);
    assert_eq!(client.delete("/bucket").await.error(), (409, "BucketNotEmpty".to_owned()));
}

#[tokio::test]
async fn parts_can_be_copied_from_objects() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    client.put("/bucket/source", b"0123456789").await;
    let upload = start(&client, Request::new("POST", "/bucket/key?uploads")).await;
    let path = format!("/bucket/key?partNumber=1&uploadId={upload}");
    let copy = |range: &str| {
        Request::new("PUT", &path)
            .header("x-amz-copy-source", "/bucket/source")
            .header("x-amz-copy-source-range", range)
    };
    assert_eq!(client.send(copy("bytes=5-10")).await.error(), (416, "InvalidRange".to_owned()));
    assert_eq!(client.send(copy("bytes=5-")).await.status, 416);
    assert_eq!(client.send(copy("bytes=-5")).await.error(), (400, "InvalidArgument".to_owned()));
    let copied = client.send(copy("bytes=2-4")).await;
    assert_eq!(copied.status, 200);
    let etag = copied.one("ETag").replace("&quot;", "\"");
    assert_eq!(complete(&client, &upload, &[(1, &etag)]).await.status, 200);
    assert_eq!(client.get("/bucket/key").await.text(), "234");
}

#[tokio::test]
async fn numbers_out_of_range_and_halves_of_requests_are_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let upload = start(&client, Request::new("POST", "/bucket/key?uploads")).await;
    for number in ["0", "10001", "-1", "99999999999"] {
        let path = format!("/bucket/key?partNumber={number}&uploadId={upload}");
        assert_eq!(client.put(&path, b"x").await.error(), (400, "InvalidArgument".to_owned()));
    }
    let half = client.put("/bucket/key?partNumber=1", b"x").await;
    assert_eq!(half.error(), (400, "InvalidRequest".to_owned()));
    assert_eq!(client.head("/bucket/key").await.status, 404);
    let absent = client.send(Request::new("POST", "/absent/key?uploads")).await;
    assert_eq!(absent.error(), (404, "NoSuchBucket".to_owned()));
}
