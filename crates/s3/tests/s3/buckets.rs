use crate::client::Request;
use crate::server::Server;

#[tokio::test]
async fn buckets_are_created_listed_and_deleted() {
    let server = Server::start().await;
    let client = server.client();
    let created = client.put("/one", b"").await;
    assert_eq!((created.status, created.header("location")), (200, Some("/one")));
    assert_eq!(client.put("/two", b"").await.status, 200);
    let listed = client.get("/").await;
    assert_eq!(listed.all("Name"), ["one", "two"]);
    assert_eq!(client.head("/one").await.status, 200);
    assert_eq!(client.head("/one").await.header("x-amz-bucket-region"), Some("us-east-1"));
    assert_eq!(client.delete("/one").await.status, 204);
    assert_eq!(client.head("/one").await.status, 404);
    assert_eq!(client.get("/").await.all("Name"), ["two"]);
}

#[tokio::test]
async fn pages_of_buckets_continue_where_they_ended() {
    let server = Server::start().await;
    let client = server.client();
    for name in ["aaa", "bbb", "ccc"] {
        client.put(&format!("/{name}"), b"").await;
    }
    let first = client.get("/?max-buckets=2").await;
    assert_eq!(first.all("Name"), ["aaa", "bbb"]);
    let token = first.one("ContinuationToken");
    let second = client.get(&format!("/?continuation-token={token}&max-buckets=2")).await;
    assert_eq!(second.all("Name"), ["ccc"]);
    assert!(second.all("ContinuationToken").is_empty());
    assert_eq!(client.get("/?prefix=b").await.all("Name"), ["bbb"]);
}

#[tokio::test]
async fn errors_of_buckets_have_the_codes_of_s3() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let again = client.put("/bucket", b"").await;
    assert_eq!(again.error(), (409, "BucketAlreadyOwnedByYou".to_owned()));
    assert_eq!(client.delete("/absent").await.error(), (404, "NoSuchBucket".to_owned()));
    assert_eq!(client.get("/absent?location").await.error(), (404, "NoSuchBucket".to_owned()));
    client.put("/bucket/key", b"x").await;
    assert_eq!(client.delete("/bucket").await.error(), (409, "BucketNotEmpty".to_owned()));
    for name in ["UPPER", "ab", "a..b", "192.168.0.1", "xn--a", "a_b", "abc-s3alias", "-ab"] {
        let refused = client.put(&format!("/{name}"), b"").await;
        assert_eq!(refused.error(), (400, "InvalidBucketName".to_owned()), "{name}");
    }
}

#[tokio::test]
async fn any_region_is_accepted_and_one_is_reported() {
    let server = Server::start().await;
    let mut client = server.client();
    client.region = "eu-central-1".to_owned();
    let body = "<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint>\
                </CreateBucketConfiguration>";
    assert_eq!(client.send(Request::new("PUT", "/bucket").body(body)).await.status, 200);
    let location = client.get("/bucket?location").await;
    assert_eq!(location.status, 200);
    assert!(location.text().contains("LocationConstraint"), "{}", location.text());
    assert!(!location.text().contains("eu-central-1"));
}

#[tokio::test]
async fn what_is_absent_says_so() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    for path in ["/bucket?policy", "/bucket?website"] {
        assert_eq!(client.get(path).await.error(), (501, "NotImplemented".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn lists_of_access_are_what_they_are_when_the_owner_owns_all() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    client.put("/bucket/key", b"").await;
    for path in ["/bucket?acl", "/bucket/key?acl"] {
        let acl = client.get(path).await;
        assert_eq!((acl.status, acl.one("Permission")), (200, "FULL_CONTROL".to_owned()));
        // What was read can be written back, and nothing else.
        assert_eq!(client.put(path, &acl.body).await.status, 200, "{path}");
        let other = acl.text().replace("<ID>onefold", "<ID>somebody");
        let refused = client.put(path, other.as_bytes()).await;
        assert_eq!(refused.error(), (400, "AccessControlListNotSupported".to_owned()));
        for (acl, status) in [("private", 200), ("public-read", 400)] {
            let put = Request::new("PUT", path).header("x-amz-acl", acl);
            assert_eq!(client.send(put).await.status, status, "{path} {acl}");
        }
    }
    let absent = client.get("/bucket/absent?acl").await;
    assert_eq!(absent.error(), (404, "NoSuchKey".to_owned()));
}

#[tokio::test]
async fn a_bucket_without_versions_says_so() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let versioning = client.get("/bucket?versioning").await;
    assert_eq!(versioning.status, 200);
    assert!(!versioning.text().contains("Status"), "{}", versioning.text());
    let absent = client.get("/absent?versioning").await;
    assert_eq!(absent.error(), (404, "NoSuchBucket".to_owned()));
}
