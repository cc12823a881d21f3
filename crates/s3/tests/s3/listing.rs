use crate::server::Server;

#[tokio::test]
async fn pages_cover_every_key_once_and_in_order() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let mut keys: Vec<String> = (0..25).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        client.put(&format!("/bucket/{key}"), b"x").await;
    }
    keys.sort();
    let mut listed = Vec::new();
    let mut token = String::new();
    loop {
        let path = match token.as_str() {
            "" => "/bucket?list-type=2&max-keys=7".to_owned(),
            token => format!("/bucket?continuation-token={token}&list-type=2&max-keys=7"),
        };
        let page = client.get(&path).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.one("KeyCount"), page.all("Key").len().to_string());
        listed.extend(page.all("Key"));
        if page.one("IsTruncated") == "false" {
            break;
        }
        token = page.one("NextContinuationToken");
    }
    assert_eq!(listed, keys);
    let after = client.get("/bucket?list-type=2&start-after=k22").await;
    assert_eq!(after.all("Key"), ["k23", "k24"]);
    let none = client.get("/bucket?list-type=2&max-keys=0").await;
    assert_eq!((none.one("KeyCount"), none.one("IsTruncated")), ("0".into(), "false".into()));
}

#[tokio::test]
async fn a_delimiter_rolls_keys_up() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    for key in ["a/1", "a/2", "a/b/3", "b", "c/4"] {
        client.put(&format!("/bucket/{key}"), b"x").await;
    }
    let page = client.get("/bucket?delimiter=%2F&list-type=2&prefix=").await;
    assert_eq!(page.all("Key"), ["b"]);
    let prefixes: Vec<String> = page.all("CommonPrefixes");
    assert_eq!(prefixes, ["<Prefix>a/</Prefix>", "<Prefix>c/</Prefix>"]);
    let page = client.get("/bucket?delimiter=%2F&list-type=2&prefix=a%2F").await;
    assert_eq!(page.all("Key"), ["a/1", "a/2"]);
    assert_eq!(page.all("CommonPrefixes"), ["<Prefix>a/b/</Prefix>"]);
    let one = client.get("/bucket?delimiter=%2F&list-type=2&max-keys=1").await;
    assert_eq!(one.all("CommonPrefixes"), ["<Prefix>a/</Prefix>"]);
    let token = one.one("NextContinuationToken");
    let path = format!("/bucket?continuation-token={token}&delimiter=%2F&list-type=2&max-keys=1");
    assert_eq!(client.get(&path).await.all("Key"), ["b"]);
}

#[tokio::test]
async fn the_first_version_of_the_listing_works_with_markers() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    for key in ["a", "b", "c"] {
        client.put(&format!("/bucket/{key}"), b"x").await;
    }
    let page = client.get("/bucket?max-keys=2").await;
    assert_eq!(
        (page.all("Key"), page.one("IsTruncated")),
        (vec!["a".into(), "b".into()], "true".into())
    );
    let marker = page.one("NextMarker");
    let page = client.get(&format!("/bucket?marker={marker}")).await;
    assert_eq!((page.all("Key"), page.one("IsTruncated")), (vec!["c".into()], "false".into()));
}

#[tokio::test]
async fn keys_are_url_encoded_on_request_and_escaped_otherwise() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    assert_eq!(client.put("/bucket/a%20%3C%26%C3%BC/z", b"x").await.status, 200);
    let plain = client.get("/bucket?list-type=2").await;
    assert_eq!(plain.one("Key"), "a &lt;&amp;ü/z");
    let encoded = client.get("/bucket?encoding-type=url&list-type=2").await;
    assert_eq!(encoded.one("Key"), "a%20%3C%26%C3%BC/z");
    assert_eq!(encoded.one("EncodingType"), "url");
}

#[tokio::test]
async fn wrong_arguments_are_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let cases = ["max-keys=-1", "continuation-token=%21%21", "encoding-type=base64", "max-keys=x"];
    for case in cases {
        let mut pairs = [case, "list-type=2"];
        pairs.sort_unstable();
        let page = client.get(&format!("/bucket?{}", pairs.join("&"))).await;
        assert_eq!(page.error(), (400, "InvalidArgument".to_owned()), "{case}");
    }
    let absent = client.get("/absent?list-type=2").await;
    assert_eq!(absent.error(), (404, "NoSuchBucket".to_owned()));
    let absent = client.get("/absent?list-type=2&max-keys=0").await;
    assert_eq!(absent.error(), (404, "NoSuchBucket".to_owned()));
}
