//! The program as its users meet it: separate processes, real disks and sockets, real clients.

mod aws;
mod bad_input;
mod dev;
mod etcdctl;
mod faults;
mod jobs;
mod local_cluster;
