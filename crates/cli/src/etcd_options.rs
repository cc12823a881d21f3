//! What can be chosen about the etcd API, for `start` and `dev` alike.

use clap::Args;
use clap::builder::{RangedU64ValueParser, TypedValueParser};
use onefold_kv::limits::{
    REQUEST_BYTES_LIMIT, REQUEST_BYTES_MAX, TXN_OPERATIONS_LIMIT, TXN_OPERATIONS_MAX,
};
use onefold_node::EtcdOptions;

/// The flags.
#[derive(Args, Clone, Copy, Debug)]
pub struct EtcdArgs {
    /// Most bytes in a request of an etcd client; up to 4128768.
    #[arg(
        long,
        env = "ONEFOLD_ETCD_MAX_REQUEST_BYTES",
        default_value_t = REQUEST_BYTES_MAX,
        value_name = "BYTES",
        value_parser = up_to(REQUEST_BYTES_LIMIT)
    )]
    etcd_max_request_bytes: usize,

    /// Most operations in a transaction of an etcd client; up to 8192.
    #[arg(
        long,
        env = "ONEFOLD_ETCD_MAX_TXN_OPS",
        default_value_t = TXN_OPERATIONS_MAX,
        value_name = "COUNT",
        value_parser = up_to(TXN_OPERATIONS_LIMIT)
    )]
    etcd_max_txn_ops: usize,
}

fn up_to(limit: usize) -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(1..=limit as u64)
}

impl Default for EtcdArgs {
    fn default() -> Self {
        Self { etcd_max_request_bytes: REQUEST_BYTES_MAX, etcd_max_txn_ops: TXN_OPERATIONS_MAX }
    }
}

impl EtcdArgs {
    /// What a node is told.
    pub fn options(&self) -> EtcdOptions {
        EtcdOptions {
            request_bytes_max: self.etcd_max_request_bytes,
            txn_operations_max: self.etcd_max_txn_ops,
            ..EtcdOptions::default()
        }
    }

    /// The same flags for another process.
    pub fn arguments(&self) -> [String; 2] {
        [
            format!("--etcd-max-request-bytes={}", self.etcd_max_request_bytes),
            format!("--etcd-max-txn-ops={}", self.etcd_max_txn_ops),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_limits() {
        use clap::CommandFactory;
        #[derive(clap::Parser)]
        struct Test {
            #[command(flatten)]
            etcd: EtcdArgs,
        }
        let help = Test::command().render_help().to_string();
        // Wherever its lines end.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for limit in [REQUEST_BYTES_LIMIT, TXN_OPERATIONS_LIMIT] {
            assert!(help.contains(&format!("up to {limit}")), "{help}");
        }
    }
}
