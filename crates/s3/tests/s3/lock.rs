use crate::client::{Client, Request};
use crate::server::Server;

async fn lockable(server: &Server) -> Client {
    let client = server.client();
    let create = Request::new("PUT", "/bucket").header("x-amz-bucket-object-lock-enabled", "true");
    assert_eq!(client.send(create).await.status, 200);
    client
}

fn retention(mode: &str, year: u16) -> String {
    format!(
        "<Retention><Mode>{mode}</Mode>\
         <RetainUntilDate>{year}-01-01T00:00:00Z</RetainUntilDate></Retention>"
    )
}

async fn put(client: &Client, headers: &[(&str, &str)]) -> String {
    let put = Request::new("PUT", "/bucket/k").body("x");
    let put = headers.iter().fold(put, |put, (name, value)| put.header(name, value));
    let stored = client.send(put).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    format!("/bucket/k?versionId={}", stored.header("x-amz-version-id").unwrap())
}

#[tokio::test]
async fn a_retention_keeps_a_version_from_being_removed() {
    let server = Server::start().await;
    let client = lockable(&server).await;
    let denied = (403, "AccessDenied".to_owned());
    for mode in ["COMPLIANCE", "GOVERNANCE"] {
        let until = ("x-amz-object-lock-retain-until-date", "2100-01-01T00:00:00Z");
        let version = put(&client, &[("x-amz-object-lock-mode", mode), until]).await;
        let head = client.head(&version).await;
        assert_eq!(head.header("x-amz-object-lock-mode"), Some(mode));
        assert!(head.header(until.0).unwrap().starts_with("2100-01-01T00:00:00"));
        assert_eq!(client.delete(&version).await.error(), denied);
        // A marker may hide it; the version stays.
        assert_eq!(client.delete("/bucket/k").await.status, 204);
        assert_eq!(client.get(&version).await.status, 200);
        let path = version.replace('?', "?retention&");
        let shorter = client.put(&path, retention(mode, 2090).as_bytes()).await;
        assert_eq!(shorter.error(), denied);
        let longer = client.put(&path, retention(mode, 2110).as_bytes()).await;
        assert_eq!(longer.status, 200, "{}", longer.text());
        assert!(client.get(&path).await.one("RetainUntilDate").starts_with("2110"));
        let bypass = |method, path: &str| {
            Request::new(method, path).header("x-amz-bypass-governance-retention", "true")
        };
        let shorter = bypass("PUT", &path).body(retention(mode, 2090));
        let expected = if mode == "GOVERNANCE" { 200 } else { 403 };
        assert_eq!(client.send(shorter).await.status, expected);
        let expected = if mode == "GOVERNANCE" { 204 } else { 403 };
        assert_eq!(client.send(bypass("DELETE", &version)).await.status, expected);
    }
}

#[tokio::test]
async fn a_legal_hold_lasts_until_it_is_lifted() {
    let server = Server::start().await;
    let client = lockable(&server).await;
    let version = put(&client, &[("x-amz-object-lock-legal-hold", "ON")]).await;
    let denied = (403, "AccessDenied".to_owned());
    let delete = Request::new("DELETE", &version);
    let delete = delete.header("x-amz-bypass-governance-retention", "true");
    assert_eq!(client.send(delete).await.error(), denied);
    let path = version.replace('?', "?legal-hold&");
    assert_eq!(client.get(&path).await.one("Status"), "ON");
    let off = client.put(&path, b"<LegalHold><Status>OFF</Status></LegalHold>").await;
    assert_eq!(off.status, 200, "{}", off.text());
    assert_eq!(client.delete(&version).await.status, 204);
}

#[tokio::test]
async fn new_versions_get_the_default_of_their_bucket() {
    let server = Server::start().await;
    let client = lockable(&server).await;
    let rule = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
                <DefaultRetention><Mode>GOVERNANCE</Mode><Days>3</Days></DefaultRetention></Rule>\
                </ObjectLockConfiguration>";
    let set = client.put("/bucket?object-lock", rule.as_bytes()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(client.get("/bucket?object-lock").await.one("Days"), "3");
    let version = put(&client, &[]).await;
    assert_eq!(client.head(&version).await.header("x-amz-object-lock-mode"), Some("GOVERNANCE"));
    assert_eq!(client.delete(&version).await.status, 403);
    let suspend = b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
    let refused = client.put("/bucket?versioning", suspend).await;
    assert_eq!(refused.error(), (409, "InvalidBucketState".to_owned()));
    // A copy elsewhere is not locked.
    client.put("/other", b"").await;
    let copy = Request::new("PUT", "/other/k").header("x-amz-copy-source", "/bucket/k");
    assert_eq!(client.send(copy).await.status, 200);
    assert_eq!(client.head("/other/k").await.header("x-amz-object-lock-mode"), None);
}

#[tokio::test]
async fn locks_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    client.put("/bucket/k", b"x").await;
    let refused = client.put("/bucket/k?retention", retention("GOVERNANCE", 2100).as_bytes()).await;
    assert_eq!(refused.error(), (400, "InvalidRequest".to_owned()));
    let enable = b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>\
                   </ObjectLockConfiguration>";
    let refused = client.put("/bucket?object-lock", enable).await;
    assert_eq!(refused.error(), (409, "InvalidBucketState".to_owned()));
    let none = client.get("/bucket?object-lock").await;
    assert_eq!(none.error(), (404, "ObjectLockConfigurationNotFoundError".to_owned()));
    let on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    client.put("/bucket?versioning", on).await;
    assert_eq!(client.put("/bucket?object-lock", enable).await.status, 200);
    let past = client.put("/bucket/k?retention", retention("GOVERNANCE", 2001).as_bytes()).await;
    assert_eq!(past.error(), (400, "InvalidArgument".to_owned()));
    let none = client.get("/bucket/k?retention").await;
    assert_eq!(none.error(), (404, "NoSuchObjectLockConfiguration".to_owned()));
    let half = Request::new("PUT", "/bucket/k").header("x-amz-object-lock-mode", "GOVERNANCE");
    assert_eq!(client.send(half).await.error(), (400, "InvalidArgument".to_owned()));
}
