//! The messages, servers and clients of the published API, compiled from `proto/`.
//!
//! Fields are named as in etcd's API reference, in snake case.

use std::sync::LazyLock;

/// Records and events.
pub mod mvccpb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("mvccpb");
}

/// Users and roles.
pub mod authpb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("authpb");
}

/// The services and their messages.
pub mod etcdserverpb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("etcdserverpb");
}

/// Locks.
pub mod v3lockpb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("v3lockpb");
}

/// Elections.
pub mod v3electionpb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("v3electionpb");
}

/// gRPC's health checking protocol.
pub mod health {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("grpc.health.v1");
}

/// What the files say of themselves: services, methods, messages, fields.
pub(crate) fn descriptors() -> &'static prost_reflect::DescriptorPool {
    static POOL: LazyLock<prost_reflect::DescriptorPool> = LazyLock::new(|| {
        let compiled = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
        prost_reflect::DescriptorPool::decode(&compiled[..]).expect("the build compiled them")
    });
    &POOL
}
