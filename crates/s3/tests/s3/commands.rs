//! The AWS CLI, where it is installed.

use std::path::Path;
use std::process::{Command, Output};

use crate::server::{ACCESS_KEY, SECRET_KEY, Server};

/// Debian's place first: a shim of another installation may be in the path.
fn aws_program() -> Option<&'static str> {
    let works = |program: &&str| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    ["/usr/bin/aws", "aws"].into_iter().find(works)
}

struct Aws {
    program: &'static str,
    endpoint: String,
    home: tempfile::TempDir,
}

impl Aws {
    fn run(&self, arguments: &[&str]) -> Output {
        let output = Command::new(self.program)
            .args(["--endpoint-url", &self.endpoint])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output();
        output.expect("the AWS CLI starts")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, arguments: &[&str], code: &str) {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(code), "{arguments:?}: {error}");
    }
}

fn write(path: &Path, bytes: &[u8]) -> String {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_copies_lists_syncs_and_removes() {
    let Some(program) = aws_program() else {
        eprintln!("SKIPPED: the AWS CLI is not installed (Debian: apt-get install awscli)");
        return;
    };
    let server = Server::start().await;
    let endpoint = format!("http://{}", server.address);
    let session = tokio::task::spawn_blocking(move || {
        let aws = Aws { program, endpoint, home: tempfile::tempdir().unwrap() };
        let folder = aws.home.path().join("data");
        let big: Vec<u8> = (0..20u32 << 20).map(|n| (n ^ (n >> 9)) as u8).collect();
        let big_path = write(&folder.join("big"), &big);
        write(&folder.join("docs/a b.txt"), b"one");
        write(&folder.join("docs/deep/ü&<x>.txt"), b"two");
        let folder = folder.to_str().unwrap();
        aws.ok(&["s3", "mb", "s3://cli-bucket"]);
        aws.fails(&["s3", "mb", "s3://cli-bucket"], "BucketAlreadyOwnedByYou");
        aws.ok(&["s3", "cp", &big_path, "s3://cli-bucket/big"]);
        let back = aws.home.path().join("back");
        aws.ok(&["s3", "cp", "s3://cli-bucket/big", back.to_str().unwrap()]);
        assert!(std::fs::read(&back).unwrap() == big, "a multipart upload comes back");
        aws.ok(&["s3", "cp", "s3://cli-bucket/big", "s3://cli-bucket/copy"]);
        aws.ok(&["s3", "sync", folder, "s3://cli-bucket/tree"]);
        let again = aws.ok(&["s3", "sync", folder, "s3://cli-bucket/tree"]);
        assert!(!again.contains("upload:"), "nothing changed: {again}");
        let listed = aws.ok(&["s3", "ls", "--recursive", "s3://cli-bucket/tree/"]);
        assert_eq!(listed.lines().count(), 3, "{listed}");
        assert!(listed.contains("tree/docs/deep/ü&<x>.txt"), "{listed}");
        let top = aws.ok(&["s3", "ls", "s3://cli-bucket/"]);
        assert!(top.contains("PRE tree/") && top.contains(" big"), "{top}");
        let down = aws.home.path().join("down");
        aws.ok(&["s3", "sync", "s3://cli-bucket/tree", down.to_str().unwrap()]);
        assert_eq!(std::fs::read(down.join("docs/a b.txt")).unwrap(), b"one");
        aws.fails(&["s3", "rb", "s3://cli-bucket"], "BucketNotEmpty");
        aws.ok(&["s3", "rm", "--recursive", "s3://cli-bucket"]);
        aws.ok(&["s3", "rb", "s3://cli-bucket"]);
    });
    session.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_understands_the_single_operations() {
    let Some(program) = aws_program() else {
        eprintln!("SKIPPED: the AWS CLI is not installed (Debian: apt-get install awscli)");
        return;
    };
    let server = Server::start().await;
    let endpoint = format!("http://{}", server.address);
    let session = tokio::task::spawn_blocking(move || {
        let aws = Aws { program, endpoint, home: tempfile::tempdir().unwrap() };
        let path = write(&aws.home.path().join("file"), b"0123456789");
        let out = aws.home.path().join("out");
        let out = out.to_str().unwrap();
        let api = |arguments: &[&str]| aws.ok(&[&["s3api"], arguments].concat());
        api(&["create-bucket", "--bucket", "api-bucket"]);
        assert!(api(&["list-buckets"]).contains("api-bucket"));
        assert!(api(&["get-bucket-location", "--bucket", "api-bucket"]).contains("null"));
        let at = ["--bucket", "api-bucket", "--key", "key"];
        let put = ["put-object", "--body", &path, "--metadata", "color=blue"];
        api(&[&put[..], &at[..], &["--checksum-algorithm", "SHA256"]].concat());
        let head = api(&[&["head-object", "--checksum-mode", "ENABLED"], &at[..]].concat());
        assert!(head.contains("\"color\": \"blue\"") && head.contains("ChecksumSHA256"), "{head}");
        api(&[&["get-object", "--range", "bytes=2-4"], &at[..], &[out]].concat());
        assert_eq!(std::fs::read(out).unwrap(), b"234");
        let delete = "{\"Objects\":[{\"Key\":\"key\"},{\"Key\":\"absent\"}]}";
        let deleted = api(&["delete-objects", "--bucket", "api-bucket", "--delete", delete]);
        assert_eq!(deleted.matches("\"Key\"").count(), 2, "{deleted}");
        aws.fails(&[&["s3api", "head-object"], &at[..]].concat(), "404");
        aws.fails(&[&["s3api", "get-object"], &at[..], &[out]].concat(), "NoSuchKey");
        assert!(api(&["get-bucket-acl", "--bucket", "api-bucket"]).contains("FULL_CONTROL"));
        let website = ["s3api", "get-bucket-website", "--bucket", "api-bucket"];
        aws.fails(&website, "NotImplemented");
        let created = api(&[&["create-multipart-upload"], &at[..]].concat());
        let upload = created.split("\"UploadId\": \"").nth(1).unwrap().split('"').next().unwrap();
        let listed = api(&["list-multipart-uploads", "--bucket", "api-bucket"]);
        assert!(listed.contains(upload), "{listed}");
        let upload = ["--upload-id", upload];
        let part = ["upload-part", "--part-number", "1", "--body", &path];
        api(&[&part[..], &at[..], &upload[..]].concat());
        assert!(api(&[&["list-parts"], &at[..], &upload[..]].concat()).contains("\"Size\": 10"));
        api(&[&["abort-multipart-upload"], &at[..], &upload[..]].concat());
        api(&["delete-bucket", "--bucket", "api-bucket"]);
    });
    session.await.unwrap();
}
