//! What the build script of `etcd-client` asks of `protoc`, so that nobody has to install that.

use prost::Message;

fn main() {
    let (mut includes, mut files, mut output) = (Vec::new(), Vec::new(), None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-I" => includes.extend(arguments.next()),
            "-o" => output = arguments.next(),
            // Both are how a compiled set always is here.
            "--include_imports" | "--include_source_info" => {}
            flag if flag.starts_with('-') => panic!("{flag} is not known here"),
            _ => files.push(argument),
        }
    }
    let compiled = protox::compile(files, includes).expect("the files are valid");
    let output = output.expect("-o names a file");
    std::fs::write(output, compiled.encode_to_vec()).expect("the file can be written");
}
