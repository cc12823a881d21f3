use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::{Client, Request};
use crate::server::Server;

async fn set(client: &Client, rules: &str) {
    let body = format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>");
    let set = client.put("/bucket?lifecycle", body.as_bytes()).await;
    assert_eq!(set.status, 200, "{}", set.text());
}

/// What a sweep so many days from now removes.
async fn sweep(server: &Server, days: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let then = now + days * 24 * 60 * 60 * 1000;
    onefold_s3::sweep(&*server.files, then, Duration::ZERO).await.unwrap()
}

async fn keys(client: &Client) -> Vec<String> {
    client.get("/bucket?list-type=2").await.all("Key")
}

#[tokio::test]
async fn objects_expire_by_prefix_and_tag() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    for key in ["logs/a", "logs/b", "kept"] {
        client.put(&format!("/bucket/{key}"), b"x").await;
    }
    let tagged = Request::new("PUT", "/bucket/tagged").header("x-amz-tagging", "temp=yes");
    client.send(tagged).await;
    set(
        &client,
        "<Rule><ID>logs</ID><Status>Enabled</Status><Filter><Prefix>logs/</Prefix></Filter>\
         <Expiration><Days>3</Days></Expiration></Rule>\
         <Rule><ID>temp</ID><Status>Enabled</Status>\
         <Filter><Tag><Key>temp</Key><Value>yes</Value></Tag></Filter>\
         <Expiration><Days>10</Days></Expiration></Rule>\
         <Rule><ID>off</ID><Status>Disabled</Status><Filter><Prefix/></Filter>\
         <Expiration><Days>1</Days></Expiration></Rule>",
    )
    .await;
    assert_eq!(sweep(&server, 1).await, 0);
    assert_eq!(sweep(&server, 4).await, 2);
    assert_eq!(keys(&client).await, ["kept", "tagged"]);
    assert_eq!(sweep(&server, 11).await, 1);
    assert_eq!(keys(&client).await, ["kept"]);
}

#[tokio::test]
async fn versions_markers_and_uploads_expire() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let enable = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    client.put("/bucket?versioning", enable).await;
    for body in ["1", "2", "3", "4"] {
        client.put("/bucket/k", body.as_bytes()).await;
    }
    client.put("/bucket/gone", b"x").await;
    client.delete("/bucket/gone").await;
    client.post("/bucket/upload?uploads", "").await;
    set(
        &client,
        "<Rule><Status>Enabled</Status><Filter><Prefix/></Filter>\
         <NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays>\
         <NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration>\
         <Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>\
         <AbortIncompleteMultipartUpload><DaysAfterInitiation>5</DaysAfterInitiation>\
         </AbortIncompleteMultipartUpload></Rule>",
    )
    .await;
    assert_eq!(sweep(&server, 1).await, 0);
    // Two of three older versions of `k`; the one of `gone` is the newest noncurrent one and stays.
    assert_eq!(sweep(&server, 3).await, 2);
    assert_eq!(client.get("/bucket/k").await.text(), "4");
    let listed = client.get("/bucket?versions").await;
    assert_eq!((listed.all("Version").len(), listed.all("DeleteMarker").len()), (3, 1));
    assert_eq!(sweep(&server, 6).await, 1, "the upload");
    // Of `gone` the marker comes first.
    let old = listed.all("VersionId");
    let of_gone = listed.all("Key").iter().rposition(|key| key == "gone").unwrap();
    client.delete(&format!("/bucket/gone?versionId={}", old[of_gone])).await;
    assert_eq!(sweep(&server, 1).await, 1, "the marker that hides nothing any more");
    let expire = "<Rule><Status>Enabled</Status><Filter><Prefix/></Filter>\
                  <Expiration><Days>1</Days></Expiration></Rule>";
    set(&client, expire).await;
    assert_eq!(sweep(&server, 2).await, 1);
    let gone = client.get("/bucket/k").await;
    assert_eq!((gone.status, gone.header("x-amz-delete-marker")), (404, Some("true")));
}

#[tokio::test]
async fn rules_are_shown_and_removed() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let none = client.get("/bucket?lifecycle").await;
    assert_eq!(none.error(), (404, "NoSuchLifecycleConfiguration".to_owned()));
    set(
        &client,
        "<Rule><ID>a</ID><Status>Enabled</Status><Filter><And><Prefix>p/</Prefix>\
         <ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>\
         <Tag><Key>k</Key><Value>v</Value></Tag></And></Filter>\
         <Expiration><Date>2031-05-01T00:00:00Z</Date></Expiration></Rule>",
    )
    .await;
    let shown = client.get("/bucket?lifecycle").await;
    assert_eq!(shown.one("ObjectSizeGreaterThan"), "5");
    assert!(shown.one("Date").starts_with("2031-05-01T00:00:00"), "{}", shown.text());
    let body = shown.text();
    assert_eq!(client.put("/bucket?lifecycle", body.as_bytes()).await.status, 200);
    assert_eq!(client.get("/bucket?lifecycle").await.text(), body);
    assert_eq!(client.delete("/bucket?lifecycle").await.status, 204);
    assert_eq!(client.get("/bucket?lifecycle").await.status, 404);
}

#[tokio::test]
async fn rules_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let rule = |inner: &str| {
        format!(
            "<LifecycleConfiguration><Rule><Status>Enabled</Status>{inner}</Rule>\
             </LifecycleConfiguration>"
        )
    };
    for (inner, status, code) in [
        ("<Filter><Prefix/></Filter>", 400, "MalformedXML"),
        ("<Expiration><Days>1</Days></Expiration>", 400, "MalformedXML"),
        (
            "<Filter><Prefix/></Filter><Expiration><Days>0</Days></Expiration>",
            400,
            "InvalidArgument",
        ),
        (
            "<Filter><Prefix/></Filter><Expiration><Date>2031-05-01T01:00:00Z</Date></Expiration>",
            400,
            "InvalidArgument",
        ),
        (
            "<Filter><Prefix/></Filter><Transition><Days>1</Days>\
             <StorageClass>GLACIER</StorageClass></Transition>",
            501,
            "NotImplemented",
        ),
    ] {
        let refused = client.put("/bucket?lifecycle", rule(inner).as_bytes()).await;
        assert_eq!(refused.error(), (status, code.to_owned()), "{inner}");
    }
}
