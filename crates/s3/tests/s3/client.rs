//! A small S3 client: one connection a request, Signature Version 4, and knobs to get it wrong.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use s3s::crypto::{Checksum as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) region: String,
    /// Seconds that the client's clock is ahead.
    pub(crate) clock_ahead: i64,
}

/// How the body is signed and framed.
pub(crate) enum Payload {
    Hash,
    WrongHash,
    Unsigned,
    /// `aws-chunked` without signatures: chunk size, and the trailer line.
    UnsignedTrailer(usize, Option<(&'static str, String)>),
    /// `aws-chunked` with a signature for each chunk.
    SignedChunks(usize),
}

pub(crate) struct Request {
    method: &'static str,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    unsigned_headers: Vec<(String, String)>,
    body: Vec<u8>,
    payload: Payload,
}

impl Request {
    /// The path is percent-encoded already.
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self {
            method,
            path: path.to_owned(),
            query: query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            headers: Vec::new(),
            unsigned_headers: Vec::new(),
            body: Vec::new(),
            payload: Payload::Hash,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sent, and not covered by the signature.
    pub(crate) fn unsigned_header(mut self, name: &str, value: &str) -> Self {
        self.unsigned_headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text of every element of that name, in order.
    pub(crate) fn all(&self, element: &str) -> Vec<String> {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let text = self.text();
        let parts = text.split(&open).skip(1);
        parts.map(|part| part.split(&close).next().unwrap().to_owned()).collect()
    }

    pub(crate) fn one(&self, element: &str) -> String {
        self.all(element)
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!("no <{element}> in {}: {}", self.status, self.text()))
    }

    /// Status and error code, with words beside them.
    pub(crate) fn error(&self) -> (u16, String) {
        assert!(!self.one("Message").is_empty() && !self.one("RequestId").is_empty());
        (self.status, self.one("Code"))
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, access_key: &str, secret_key: &str) -> Self {
        Self {
            address,
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            region: "us-east-1".to_owned(),
            clock_ahead: 0,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::new("GET", path)).await
    }

    pub(crate) async fn head(&self, path: &str) -> Reply {
        self.send(Request::new("HEAD", path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Request::new("DELETE", path)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &[u8]) -> Reply {
        self.send(Request::new("PUT", path).body(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        self.send(Request::new("POST", path).body(body)).await
    }

    pub(crate) async fn send(&self, request: Request) -> Reply {
        let is_head = request.method == "HEAD";
        let (head, body) = self.sign(request);
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        exchange(self.address, &bytes, is_head).await.expect("an answer")
    }

    /// The request's head, ready to send, and its framed body.
    pub(crate) fn sign(&self, request: Request) -> (String, Vec<u8>) {
        let time = amz_date(self.clock_ahead);
        let mut headers = request.headers;
        headers.push(("host".to_owned(), self.address.to_string()));
        headers.push(("x-amz-date".to_owned(), time.clone()));
        let hash = match &request.payload {
            Payload::Hash => hex(&Sha256::checksum(&request.body)),
            Payload::WrongHash => hex(&Sha256::checksum(b"something else")),
            Payload::Unsigned => "UNSIGNED-PAYLOAD".to_owned(),
            Payload::UnsignedTrailer(_, trailer) => {
                headers.push((
                    "x-amz-decoded-content-length".to_owned(),
                    request.body.len().to_string(),
                ));
                headers.push(("content-encoding".to_owned(), "aws-chunked".to_owned()));
                let name = trailer.as_ref().map_or("x-amz-checksum-crc32", |(name, _)| name);
                headers.push(("x-amz-trailer".to_owned(), name.to_owned()));
                "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned()
            }
            Payload::SignedChunks(_) => {
                headers.push((
                    "x-amz-decoded-content-length".to_owned(),
                    request.body.len().to_string(),
                ));
                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD".to_owned()
            }
        };
        headers.push(("x-amz-content-sha256".to_owned(), hash.clone()));
        headers.sort();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let query = query_text(&request.query);
        let canonical =
            format!("{}\n{}\n{query}\n{lines}\n{names}\n{hash}", request.method, request.path);
        let scope = format!("{}/{}/s3/aws4_request", &time[..8], self.region);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
            hex(&Sha256::checksum(canonical.as_bytes()))
        );
        let key = self.signing_key(&time[..8]);
        let signature = hex(&hmac(&key, to_sign.as_bytes()));
        let body = match request.payload {
            Payload::UnsignedTrailer(size, trailer) => frame(&request.body, size, trailer),
            Payload::SignedChunks(size) => {
                signed_frames(&request.body, size, &key, &format!("{time}\n{scope}"), &signature)
            }
            _ => request.body,
        };
        let target =
            if query.is_empty() { request.path } else { format!("{}?{query}", request.path) };
        let mut head = format!("{} {target} HTTP/1.1\r\nconnection: close\r\n", request.method);
        for (name, value) in headers.iter().chain(&request.unsigned_headers) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let is_set = |wanted: &str| headers.iter().any(|(name, _)| name == wanted);
        if !is_set("content-length") && !is_set("transfer-encoding") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str(&format!(
            "authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, \
             Signature={signature}\r\n\r\n",
            self.access_key
        ));
        (head, body)
    }

    /// A presigned URL's path and query.
    pub(crate) fn presign(&self, method: &str, path: &str, expires_s: u64) -> String {
        let time = amz_date(self.clock_ahead);
        let scope = format!("{}/{}/s3/aws4_request", &time[..8], self.region);
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}%2F{}&X-Amz-Date={time}\
             &X-Amz-Expires={expires_s}&X-Amz-SignedHeaders=host",
            self.access_key,
            scope.replace('/', "%2F")
        );
        let canonical =
            format!("{method}\n{path}\n{query}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD", self.address);
        let hash = hex(&Sha256::checksum(canonical.as_bytes()));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
        let signature = hex(&hmac(&self.signing_key(&time[..8]), to_sign.as_bytes()));
        format!("{path}?{query}&X-Amz-Signature={signature}")
    }

    fn signing_key(&self, date: &str) -> [u8; 32] {
        let key = hmac(format!("AWS4{}", self.secret_key).as_bytes(), date.as_bytes());
        let key = hmac(&key, self.region.as_bytes());
        hmac(&hmac(&key, b"s3"), b"aws4_request")
    }
}

/// Sends bytes and reads the answer until the connection closes. `None` when there was none.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8], is_head: bool) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may stop reading; its answer counts.
    let (mut reading, mut writing) = stream.split();
    let mut received = Vec::new();
    let send = writing.write_all(bytes);
    let (_, _) = tokio::join!(send, reading.read_to_end(&mut received));
    parse(&received, is_head)
}

pub(crate) fn parse(received: &[u8], is_head: bool) -> Option<Reply> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let body = &received[end + 4..];
    if status == 100 {
        return parse(body, is_head);
    }
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let body = match length.map(|(_, length)| length.parse::<usize>().unwrap()) {
        _ if is_head => Vec::new(),
        Some(length) => body[..length.min(body.len())].to_vec(),
        None => body.to_vec(),
    };
    Some(Reply { status, headers, body })
}

fn query_text(pairs: &[(String, String)]) -> String {
    let mut pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.sort();
    pairs.join("&")
}

fn frame(body: &[u8], size: usize, trailer: Option<(&str, String)>) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(size) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n");
    if let Some((name, value)) = trailer {
        framed.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
    }
    framed.extend_from_slice(b"\r\n");
    framed
}

fn signed_frames(body: &[u8], size: usize, key: &[u8], scope: &str, seed: &str) -> Vec<u8> {
    let mut framed = Vec::new();
    let mut previous = seed.to_owned();
    for chunk in body.chunks(size).chain([&b""[..]]) {
        let to_sign = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{scope}\n{previous}\n{}\n{}",
            hex(&Sha256::checksum(b"")),
            hex(&Sha256::checksum(chunk))
        );
        previous = hex(&hmac(key, to_sign.as_bytes()));
        let header = format!("{:x};chunk-signature={previous}\r\n", chunk.len());
        framed.extend_from_slice(header.as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed
}

pub(crate) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::checksum(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |byte: u8| block.iter().map(|key| key ^ byte).collect::<Vec<u8>>();
    let inner = Sha256::checksum(&[pad(0x36), message.to_vec()].concat());
    Sha256::checksum(&[pad(0x5c), inner.to_vec()].concat())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Now, as `YYYYMMDDTHHMMSSZ`.
fn amz_date(ahead_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + ahead_s;
    let (days, second) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    // Civil date from days (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}
