use crate::client::{Client, Reply, Request, exchange};
use crate::server::Server;

const RULES: &str = "<CORSConfiguration><CORSRule><ID>pages</ID>\
    <AllowedOrigin>http://*.example.com</AllowedOrigin><AllowedMethod>GET</AllowedMethod>\
    <AllowedMethod>PUT</AllowedMethod><AllowedHeader>x-amz-*</AllowedHeader>\
    <ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>600</MaxAgeSeconds></CORSRule>\
    <CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule>\
    </CORSConfiguration>";

/// What a browser sends before the request of a page: nobody signs it.
async fn preflight(server: &Server, origin: &str, method: &str, headers: &str) -> Reply {
    let request = format!(
        "OPTIONS /bucket/key HTTP/1.1\r\nhost: {}\r\norigin: {origin}\r\n\
         access-control-request-method: {method}\r\n{headers}connection: close\r\n\r\n",
        server.address
    );
    exchange(server.address, request.as_bytes(), false).await.expect("an answer")
}

async fn with_rules(server: &Server) -> Client {
    let client = server.with_bucket().await;
    let set = client.put("/bucket?cors", RULES.as_bytes()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    client
}

#[tokio::test]
async fn a_browser_is_told_what_the_rules_say() {
    let server = Server::start().await;
    let client = with_rules(&server).await;
    let asks = "access-control-request-headers: X-Amz-Date, x-amz-acl\r\n";
    let allowed = preflight(&server, "http://www.example.com", "PUT", asks).await;
    assert_eq!(allowed.status, 200, "{}", allowed.text());
    let header = |name: &str| allowed.header(name);
    assert_eq!(header("access-control-allow-origin"), Some("http://www.example.com"));
    assert_eq!(header("access-control-allow-methods"), Some("GET, PUT"));
    assert_eq!(header("access-control-allow-headers"), Some("X-Amz-Date, x-amz-acl"));
    assert_eq!(header("access-control-max-age"), Some("600"));
    let anybody = preflight(&server, "http://other.org", "GET", "").await;
    assert_eq!(anybody.header("access-control-allow-origin"), Some("*"));
    for (origin, method, headers) in [
        ("http://other.org", "PUT", ""),
        ("http://www.example.com", "DELETE", ""),
        ("http://www.example.com", "PUT", "access-control-request-headers: x-other\r\n"),
    ] {
        let refused = preflight(&server, origin, method, headers).await;
        assert_eq!(refused.error(), (403, "AccessForbidden".to_owned()), "{origin} {method}");
    }
    // The answer to the request itself has the headers, too, whether it is good or bad.
    client.put("/bucket/key", b"x").await;
    for (path, status) in [("/bucket/key", 200), ("/bucket/absent", 404)] {
        let get = Request::new("GET", path).header("origin", "http://www.example.com");
        let got = client.send(get).await;
        assert_eq!(got.status, status);
        assert_eq!(got.header("access-control-expose-headers"), Some("ETag"));
    }
    assert_eq!(client.get("/bucket/key").await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn rules_are_shown_and_removed() {
    let server = Server::start().await;
    let client = with_rules(&server).await;
    let shown = client.get("/bucket?cors").await;
    assert_eq!(shown.all("AllowedOrigin"), ["http://*.example.com", "*"]);
    // What was shown can be set.
    assert_eq!(client.put("/bucket?cors", &shown.body).await.status, 200);
    assert_eq!(client.get("/bucket?cors").await.text(), shown.text());
    assert_eq!(client.delete("/bucket?cors").await.status, 204);
    let none = client.get("/bucket?cors").await;
    assert_eq!(none.error(), (404, "NoSuchCORSConfiguration".to_owned()));
    assert_eq!(preflight(&server, "http://a.example.com", "GET", "").await.status, 403);
}

#[tokio::test]
async fn rules_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let client = server.with_bucket().await;
    let rule = |origin: &str, method: &str| {
        format!(
            "<CORSConfiguration><CORSRule><AllowedOrigin>{origin}</AllowedOrigin>\
             <AllowedMethod>{method}</AllowedMethod></CORSRule></CORSConfiguration>"
        )
    };
    for (origin, method) in [("http://*.*", "GET"), ("*", "PATCH")] {
        let refused = client.put("/bucket?cors", rule(origin, method).as_bytes()).await;
        assert_eq!(refused.error(), (400, "InvalidRequest".to_owned()), "{origin} {method}");
    }
}
