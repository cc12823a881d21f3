//! The program as its users meet it: separate processes, real disks and sockets, real clients.

// Nothing of a test can be reached from outside it.
#![allow(unreachable_pub)]

mod aws;
mod bad_input;
mod dev;
mod etcd_clients;
mod etcd_programs;
mod etcdctl;
mod etcdctl_same;
mod faults;
mod hostile;
mod jobs;
mod keyspace_users;
mod keyspaces;
mod local_cluster;
mod membership;
mod moving;
mod s3_clients;
mod surface;
mod torture;
