use crate::client::{Client, Reply, Request};
use crate::server::Server;

async fn set(client: &Client, status: &str) -> Reply {
    let body =
        format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    client.put("/bucket?versioning", body.as_bytes()).await
}

async fn versioned(server: &Server) -> Client {
    let client = server.with_bucket().await;
    assert_eq!(set(&client, "Enabled").await.status, 200);
    client
}

fn id(reply: &Reply) -> String {
    reply.header("x-amz-version-id").expect("a version id").to_owned()
}

/// Puts an object and answers its version.
async fn put(client: &Client, path: &str, body: &str) -> String {
    let stored = client.put(path, body.as_bytes()).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    id(&stored)
}

#[tokio::test]
async fn what_is_replaced_and_deleted_is_kept() {
    let server = Server::start().await;
    let client = versioned(&server).await;
    assert_eq!(client.get("/bucket?versioning").await.one("Status"), "Enabled");
    let (one, two) =
        (put(&client, "/bucket/k", "one").await, put(&client, "/bucket/k", "two").await);
    assert_ne!(one, two);
    let latest = client.get("/bucket/k").await;
    assert_eq!((latest.text(), id(&latest)), ("two".to_owned(), two.clone()));
    let old = client.get(&format!("/bucket/k?versionId={one}")).await;
    assert_eq!((old.text(), id(&old)), ("one".to_owned(), one.clone()));
    assert_eq!(client.head(&format!("/bucket/k?versionId={one}")).await.status, 200);

    let deleted = client.delete("/bucket/k").await;
    assert_eq!((deleted.status, deleted.header("x-amz-delete-marker")), (204, Some("true")));
    let marker = id(&deleted);
    let gone = client.get("/bucket/k").await;
    assert_eq!(gone.header("x-amz-delete-marker"), Some("true"));
    assert_eq!(gone.error(), (404, "NoSuchKey".to_owned()));
    let of_marker = client.get(&format!("/bucket/k?versionId={marker}")).await;
    assert_eq!(of_marker.error(), (405, "MethodNotAllowed".to_owned()));
    assert!(client.get("/bucket?list-type=2").await.all("Key").is_empty());
    assert_eq!(client.delete("/bucket").await.error(), (409, "BucketNotEmpty".to_owned()));

    // Without the marker the object is there again; without that version, the one before it.
    assert_eq!(client.delete(&format!("/bucket/k?versionId={marker}")).await.status, 204);
    assert_eq!(client.get("/bucket/k").await.text(), "two");
    let removed = client.delete(&format!("/bucket/k?versionId={two}")).await;
    assert_eq!((id(&removed), removed.header("x-amz-delete-marker")), (two.clone(), None));
    assert_eq!(client.get("/bucket/k").await.text(), "one");
    let absent = client.get(&format!("/bucket/k?versionId={two}")).await;
    assert_eq!(absent.error(), (404, "NoSuchVersion".to_owned()));
    let malformed = client.get("/bucket/k?versionId=abc").await;
    assert_eq!(malformed.error(), (400, "InvalidArgument".to_owned()));
    client.delete(&format!("/bucket/k?versionId={one}")).await;
    assert_eq!(client.delete("/bucket").await.status, 204);
}

#[tokio::test]
async fn the_null_version_is_the_one_made_without_versioning() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let before = client.put("/bucket/k", b"before").await;
    assert_eq!(before.header("x-amz-version-id"), None);
    set(&client, "Enabled").await;
    let numbered = put(&client, "/bucket/k", "numbered").await;
    assert_eq!(client.get("/bucket/k?versionId=null").await.text(), "before");
    assert_eq!(set(&client, "Suspended").await.status, 200);
    assert_eq!(put(&client, "/bucket/k", "suspended").await, "null");
    assert_eq!(client.get("/bucket/k?versionId=null").await.text(), "suspended");
    let old = client.get(&format!("/bucket/k?versionId={numbered}")).await;
    assert_eq!(old.text(), "numbered");
    // The marker is the null version, and replaces it.
    let deleted = client.delete("/bucket/k").await;
    assert_eq!(
        (id(&deleted), deleted.header("x-amz-delete-marker")),
        ("null".to_owned(), Some("true"))
    );
    let listed = client.get("/bucket?versions").await;
    assert_eq!(listed.all("VersionId"), ["null", numbered.as_str()], "{}", listed.text());
    client.delete("/bucket/k?versionId=null").await;
    assert_eq!(client.get("/bucket/k").await.text(), "numbered");
}

#[tokio::test]
async fn all_versions_are_listed_in_pages() {
    let server = Server::start().await;
    let client = versioned(&server).await;
    let mut expected = Vec::new();
    for key in ["a", "b/1", "b/2", "c"] {
        let path = format!("/bucket/{key}");
        let mut ids = vec![put(&client, &path, "x").await, put(&client, &path, "yy").await];
        ids.push(id(&client.delete(&path).await));
        expected.extend(ids.into_iter().rev().map(|version| (key.to_owned(), version)));
    }
    let whole = client.get("/bucket?versions").await;
    assert_eq!((whole.all("Version").len(), whole.all("DeleteMarker").len()), (8, 4));
    assert_eq!(whole.all("IsLatest").iter().filter(|latest| *latest == "true").count(), 4);
    for size in 1..=12 {
        let (mut found, mut marker) = (Vec::new(), String::new());
        loop {
            let page = client.get(&format!("/bucket?versions&max-keys={size}{marker}")).await;
            let keys = page.all("Key").into_iter().zip(page.all("VersionId"));
            found.extend(keys);
            if page.one("IsTruncated") == "false" {
                break;
            }
            let (key, version) = (page.one("NextKeyMarker"), page.one("NextVersionIdMarker"));
            marker = format!("&key-marker={}&version-id-marker={version}", key.replace('/', "%2F"));
        }
        found.sort();
        let mut all = expected.clone();
        all.sort();
        assert_eq!(found, all, "pages of {size}");
    }
    let rolled = client.get("/bucket?versions&delimiter=%2F").await;
    assert_eq!(rolled.one("CommonPrefixes"), "<Prefix>b/</Prefix>");
    assert_eq!(rolled.all("VersionId").len(), 6);
    let under = client.get("/bucket?versions&prefix=b%2F").await;
    assert_eq!(under.all("VersionId").len(), 6);
    let lonely = client.get("/bucket?versions&version-id-marker=null").await;
    assert_eq!(lonely.error(), (400, "InvalidArgument".to_owned()));
}

#[tokio::test]
async fn versions_are_copied_and_removed_by_name() {
    let server = Server::start().await;
    let client = versioned(&server).await;
    let (one, two) =
        (put(&client, "/bucket/k", "one").await, put(&client, "/bucket/k", "two").await);
    let copy = Request::new("PUT", "/bucket/k")
        .header("x-amz-copy-source", &format!("/bucket/k?versionId={one}"));
    let copied = client.send(copy).await;
    assert_eq!(copied.status, 200, "{}", copied.text());
    assert_eq!(copied.header("x-amz-copy-source-version-id"), Some(one.as_str()));
    assert!(![&one, &two].contains(&&id(&copied)));
    assert_eq!(client.get("/bucket/k").await.text(), "one");
    let marker = id(&client.delete("/bucket/k").await);
    let copy = Request::new("PUT", "/bucket/other").header("x-amz-copy-source", "/bucket/k");
    assert_eq!(client.send(copy).await.error(), (404, "NoSuchKey".to_owned()));
    let body = format!(
        "<Delete><Object><Key>k</Key><VersionId>{marker}</VersionId></Object>\
         <Object><Key>k</Key><VersionId>{two}</VersionId></Object>\
         <Object><Key>new</Key></Object>\
         <Object><Key>k</Key><VersionId>nonsense</VersionId></Object></Delete>"
    );
    let request = Request::new("POST", "/bucket?delete").body(&body);
    let request = request.header("x-amz-checksum-crc32", &crate::checksums::crc32(body.as_bytes()));
    let deleted = client.send(request).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    // The one is a marker that is gone, the other one a marker that was made.
    assert_eq!(deleted.all("DeleteMarker"), ["true", "true"]);
    assert_eq!(deleted.all("Code"), ["InvalidArgument"]);
    assert_eq!(client.get("/bucket/k").await.text(), "one");
}

#[tokio::test]
async fn what_versioning_cannot_be_is_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    assert_eq!(set(&client, "Off").await.error(), (400, "MalformedXML".to_owned()));
    let with_mfa = "<VersioningConfiguration><Status>Enabled</Status>\
                    <MfaDelete>Enabled</MfaDelete></VersioningConfiguration>";
    let refused = client.put("/bucket?versioning", with_mfa.as_bytes()).await;
    assert_eq!(refused.error(), (501, "NotImplemented".to_owned()));
    assert!(!client.get("/bucket?versioning").await.text().contains("Status"));
}

#[tokio::test]
async fn deletes_are_conditional() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let etag = client.put("/bucket/k", b"one").await.header("etag").unwrap().to_owned();
    let delete = |etag: &str| Request::new("DELETE", "/bucket/k").header("if-match", etag);
    let refused = client.send(delete("\"other\"")).await;
    assert_eq!(refused.error(), (412, "PreconditionFailed".to_owned()));
    assert_eq!(client.head("/bucket/k").await.status, 200);
    let body =
        |etag: &str| format!("<Delete><Object><Key>k</Key><ETag>{etag}</ETag></Object></Delete>");
    let send = async |body: String| {
        let checksum = crate::checksums::crc32(body.as_bytes());
        let request = Request::new("POST", "/bucket?delete").body(&body);
        client.send(request.header("x-amz-checksum-crc32", &checksum)).await
    };
    assert_eq!(send(body("&quot;other&quot;")).await.all("Code"), ["PreconditionFailed"]);
    assert_eq!(client.send(delete(&etag)).await.status, 204);
    assert_eq!(client.send(delete(&etag)).await.error(), (404, "NoSuchKey".to_owned()));
    client.put("/bucket/k", b"one").await;
    assert!(send(body(&etag)).await.all("Code").is_empty());
    assert_eq!(client.head("/bucket/k").await.status, 404);
}
