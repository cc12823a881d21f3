use crate::client::{Client, Request};
use crate::server::Server;

fn document(tags: &[(&str, &str)]) -> String {
    let tag =
        |(key, value): &(&str, &str)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
    format!("<Tagging><TagSet>{}</TagSet></Tagging>", tags.iter().map(tag).collect::<String>())
}

async fn tags(client: &Client, path: &str) -> Vec<(String, String)> {
    let found = client.get(&format!("{path}?tagging")).await;
    assert_eq!(found.status, 200, "{}", found.text());
    found.all("Key").into_iter().zip(found.all("Value")).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[tokio::test]
async fn objects_are_tagged_at_once_and_later() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let put = Request::new("PUT", "/bucket/k").header("x-amz-tagging", "colour=dark%20blue&size=1");
    let modified = client.send(put).await;
    assert_eq!(modified.status, 200, "{}", modified.text());
    assert_eq!(tags(&client, "/bucket/k").await, [pair("colour", "dark blue"), pair("size", "1")]);
    assert_eq!(client.get("/bucket/k").await.header("x-amz-tagging-count"), Some("2"));
    let etag = client.head("/bucket/k").await.header("etag").unwrap().to_owned();
    let set = client.put("/bucket/k?tagging", document(&[("a", "b")]).as_bytes()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(tags(&client, "/bucket/k").await, [pair("a", "b")]);
    assert_eq!(client.head("/bucket/k").await.header("etag"), Some(etag.as_str()));
    // Copies carry their tags along, unless they get their own.
    let copy = |name: &str| {
        Request::new("PUT", &format!("/bucket/{name}")).header("x-amz-copy-source", "/bucket/k")
    };
    client.send(copy("copy").header("x-amz-metadata-directive", "REPLACE")).await;
    assert_eq!(tags(&client, "/bucket/copy").await, [pair("a", "b")]);
    let own = copy("own").header("x-amz-tagging-directive", "REPLACE");
    assert_eq!(client.send(own.header("x-amz-tagging", "own=1")).await.status, 200);
    assert_eq!(tags(&client, "/bucket/own").await, [pair("own", "1")]);
    assert_eq!(client.delete("/bucket/k?tagging").await.status, 204);
    assert!(tags(&client, "/bucket/k").await.is_empty());
    assert_eq!(client.get("/bucket/absent?tagging").await.error(), (404, "NoSuchKey".to_owned()));
}

#[tokio::test]
async fn an_upload_in_parts_is_tagged_where_it_begins() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let create = Request::new("POST", "/bucket/k?uploads").header("x-amz-tagging", "a=b");
    let upload = client.send(create).await.one("UploadId");
    let part = client.put(&format!("/bucket/k?partNumber=1&uploadId={upload}"), b"x").await;
    let body = crate::multipart::complete_body(&[(1, part.header("etag").unwrap())]);
    client.post(&format!("/bucket/k?uploadId={upload}"), &body).await;
    assert_eq!(tags(&client, "/bucket/k").await, [pair("a", "b")]);
}

#[tokio::test]
async fn versions_have_tags_of_their_own() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    client.put("/bucket?versioning", body).await;
    let one = client.put("/bucket/k", b"one").await.header("x-amz-version-id").unwrap().to_owned();
    client.put("/bucket/k", b"two").await;
    let path = format!("/bucket/k?tagging&versionId={one}");
    let set = client.put(&path, document(&[("old", "yes")]).as_bytes()).await;
    assert_eq!(set.header("x-amz-version-id"), Some(one.as_str()), "{}", set.text());
    assert_eq!(client.get(&path).await.all("Value"), ["yes"]);
    assert!(tags(&client, "/bucket/k").await.is_empty());
}

#[tokio::test]
async fn buckets_are_tagged() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let none = client.get("/bucket?tagging").await;
    assert_eq!(none.error(), (404, "NoSuchTagSet".to_owned()));
    let set = client.put("/bucket?tagging", document(&[("team", "blue & co")]).as_bytes()).await;
    assert_eq!(set.error(), (400, "MalformedXML".to_owned()), "an ampersand is not escaped");
    let set = client.put("/bucket?tagging", document(&[("team", "dark blue")]).as_bytes()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(tags(&client, "/bucket").await, [pair("team", "dark blue")]);
    assert_eq!(client.delete("/bucket?tagging").await.status, 204);
    assert_eq!(client.get("/bucket?tagging").await.status, 404);
}

#[tokio::test]
async fn tags_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    client.put("/bucket/k", b"").await;
    let many: Vec<(String, String)> = (0..11).map(|n| (format!("k{n}"), String::new())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    for bad in [&many[..], &[("a", "1"), ("a", "2")], &[("", "v")], &[("k", "a;b")]] {
        let refused = client.put("/bucket/k?tagging", document(bad).as_bytes()).await;
        assert_eq!(refused.error(), (400, "InvalidTag".to_owned()), "{bad:?}");
    }
    let put = Request::new("PUT", "/bucket/new").header("x-amz-tagging", "a=%zz");
    assert_eq!(client.send(put).await.error(), (400, "InvalidArgument".to_owned()));
    assert_eq!(client.head("/bucket/new").await.status, 404);
}
