//! Which etcd this is to its clients.

use tonic::Status;

use crate::errors;

/// The etcd version whose API this is. Clients choose by it what to use: since 3.5.13, for example,
/// Kubernetes trusts the progress of watches.
pub(crate) const SERVER: &str = "3.5.21";

/// The version that all members understand, and that the stored data is of.
pub(crate) const CLUSTER: &str = "3.5.0";

/// Whether a cluster may be prepared to go back to `target`: to the minor version before this one.
///
/// # Errors
/// Etcd's, when `target` is no version or another one.
pub(crate) fn check_downgrade(target: &str) -> Result<String, Status> {
    let target = minor(target).ok_or_else(errors::wrong_downgrade_format)?;
    let own = minor(CLUSTER).expect("it is well-formed");
    if target != (own.0, own.1 - 1) {
        return Err(errors::invalid_downgrade_target());
    }
    Ok(format!("{}.{}.0", target.0, target.1))
}

/// The major and minor number of a version, which may have a patch number, too.
fn minor(version: &str) -> Option<(u32, u32)> {
    let numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let numbers: Vec<u32> = numbers.collect::<Option<_>>()?;
    match numbers[..] {
        [major, minor] | [major, minor, _] => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_minor_version_before_is_a_target() {
        assert_eq!(check_downgrade("3.4").expect("it is the one before"), "3.4.0");
        assert_eq!(check_downgrade("3.4.0").expect("it is the one before"), "3.4.0");
        for (target, text) in [
            ("3.5.0", "etcdserver: invalid downgrade target version"),
            ("3.3.0", "etcdserver: invalid downgrade target version"),
            ("", "etcdserver: wrong downgrade target version format"),
            ("3", "etcdserver: wrong downgrade target version format"),
            ("3.x", "etcdserver: wrong downgrade target version format"),
        ] {
            assert_eq!(check_downgrade(target).expect_err(target).message(), text);
        }
    }
}
