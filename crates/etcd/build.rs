//! Compiles the `.proto` files, without protoc.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use prost::Message;

const ROOT: &str = "proto";
const FILES: [&str; 6] = [
    "mvccpb/kv.proto",
    "authpb/auth.proto",
    "etcdserverpb/rpc.proto",
    "v3lockpb/lock.proto",
    "v3electionpb/election.proto",
    "grpc/health.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let descriptors = protox::compile(FILES, [ROOT])?;
    // The JSON gateway translates by what the messages say of themselves.
    let path = Path::new(&env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(path, descriptors.encode_to_vec())?;
    // Keys and values are slices of the received message, not copies.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
