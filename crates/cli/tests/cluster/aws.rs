//! The AWS CLI, as Debian ships it, against each node.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::local_cluster::{LocalCluster, client_program};

struct Aws {
    program: String,
    endpoint: String,
    home: std::path::PathBuf,
}

impl Aws {
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program)
            .env("HOME", &self.home)
            .env("AWS_ACCESS_KEY_ID", "onefold")
            .env("AWS_SECRET_ACCESS_KEY", "onefold-secret")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .args(["--endpoint-url", &format!("http://{}", self.endpoint), "--output", "json"])
            .args(arguments)
            .output()
            .expect("aws starts")
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "aws {arguments:?} at {}: {}{}",
            self.endpoint,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    fn fails_with(&self, arguments: &[&str], code: &str) {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(code), "aws {arguments:?}: {error}");
    }
}

/// Bytes that no compression or sparse file makes easy.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        noise.extend(next());
    }
    noise.truncate(bytes);
    noise
}

#[test]
fn works_against_each_node() {
    let Some(program) = client_program("/usr/bin/aws", "awscli") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let aws: Vec<Aws> = cluster
        .nodes
        .iter()
        .map(|node| Aws {
            program: program.clone(),
            endpoint: node.s3.clone(),
            home: folder.path().to_owned(),
        })
        .collect();
    aws[0].must(&["s3", "mb", "s3://shelf"]);
    aws[1].fails_with(&["s3api", "create-bucket", "--bucket", "Not_A_Bucket"], "InvalidBucketName");
    copy_list_and_remove(&aws, folder.path());
    sync(&aws, folder.path());
    api(&aws[1], folder.path());
    aws[2].fails_with(&["s3", "cp", "s3://shelf/none", "-"], "404");
    aws[2].must(&["s3", "rb", "s3://shelf", "--force"]);
    aws[0].fails_with(&["s3api", "head-bucket", "--bucket", "shelf"], "404");
    cluster.stop();
}

fn copy_list_and_remove(aws: &[Aws], folder: &Path) {
    // Larger than the client's threshold for multipart uploads, and not a multiple of anything.
    let large = folder.join("large");
    let content = noise((20 << 20) + 4321);
    fs::write(&large, &content).expect("the folder is writable");
    aws[0].must(&["s3", "cp", large.to_str().expect("plain"), "s3://shelf/large"]);
    for aws in aws {
        let back = folder.join("back");
        aws.must(&["s3", "cp", "s3://shelf/large", back.to_str().expect("plain")]);
        assert!(fs::read(&back).expect("it was fetched") == content, "{}", aws.endpoint);
        let listing = aws.must(&["s3", "ls", "s3://shelf/"]);
        assert!(listing.contains(&content.len().to_string()), "{listing}");
    }
    aws[1].must(&["s3", "mv", "s3://shelf/large", "s3://shelf/deep/er/large"]);
    let listing = aws[2].must(&["s3", "ls", "s3://shelf/"]);
    assert_eq!(listing.trim(), "PRE deep/");
    aws[2].must(&["s3", "rm", "s3://shelf/deep", "--recursive"]);
    assert_eq!(aws[0].must(&["s3", "ls", "s3://shelf/", "--recursive"]), "");
}

fn sync(aws: &[Aws], folder: &Path) {
    let tree = folder.join("tree");
    for (name, size) in [("a.txt", 10), ("sub/b.txt", 5_000), ("sub/c/d.txt", 300_000)] {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().expect("below the tree")).expect("writable");
        fs::write(path, noise(size)).expect("writable");
    }
    let tree = tree.to_str().expect("plain").to_owned();
    aws[0].must(&["s3", "sync", &tree, "s3://shelf/tree"]);
    assert_eq!(aws[1].must(&["s3", "sync", &tree, "s3://shelf/tree"]), "", "nothing has changed");
    let back = folder.join("tree-back");
    aws[2].must(&["s3", "sync", "s3://shelf/tree", back.to_str().expect("plain")]);
    for name in ["a.txt", "sub/b.txt", "sub/c/d.txt"] {
        let there = fs::read(back.join(name)).expect("it was fetched");
        assert!(there == fs::read(Path::new(&tree).join(name)).expect("it exists"), "{name}");
    }
    fs::remove_file(Path::new(&tree).join("a.txt")).expect("it exists");
    aws[1].must(&["s3", "sync", &tree, "s3://shelf/tree", "--delete"]);
    let listing = aws[0].must(&["s3", "ls", "s3://shelf/tree/", "--recursive"]);
    assert_eq!(listing.lines().count(), 2, "{listing}");
}

fn api(aws: &Aws, folder: &Path) {
    let file = folder.join("range");
    let (path, body) = (file.to_str().expect("plain"), "0123456789");
    fs::write(&file, body).expect("writable");
    let put = [
        "s3api",
        "put-object",
        "--bucket",
        "shelf",
        "--key",
        "digits",
        "--body",
        path,
        "--metadata",
        "colour=blue",
        "--content-type",
        "text/digits",
    ];
    let etag = aws.must(&put);
    assert!(etag.contains("781e5e245d69b566979b86e28d23f2c7"), "the ETag is the MD5: {etag}");
    let head = aws.must(&["s3api", "head-object", "--bucket", "shelf", "--key", "digits"]);
    assert!(head.contains("blue") && head.contains("text/digits"), "{head}");
    let part = folder.join("part");
    let part = part.to_str().expect("plain");
    aws.must(&[
        "s3api",
        "get-object",
        "--bucket",
        "shelf",
        "--key",
        "digits",
        "--range",
        "bytes=3-5",
        part,
    ]);
    assert_eq!(fs::read(part).expect("it was fetched"), b"345");
    aws.must(&[
        "s3api",
        "copy-object",
        "--bucket",
        "shelf",
        "--key",
        "copy",
        "--copy-source",
        "shelf/digits",
    ]);
    let delete = r#"{"Objects":[{"Key":"copy"},{"Key":"digits"},{"Key":"never-there"}]}"#;
    let deleted = aws.must(&["s3api", "delete-objects", "--bucket", "shelf", "--delete", delete]);
    assert!(deleted.contains("copy") && deleted.contains("digits"), "{deleted}");
    aws.fails_with(
        &["s3api", "get-object", "--bucket", "shelf", "--key", "digits", part],
        "NoSuchKey",
    );
}
