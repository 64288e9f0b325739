//! Kernels on which Open vSwitch is known to fail.

/// The kernel cannot run Open vSwitch; the message has the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel {release}: {reason}")]
pub struct UnfitKernel {
    release: String,
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ipv6 {
    Enabled,
    Disabled,
}

/// Refuses the kernels that upstream's start scripts refuse.
pub fn check_kernel() -> Result<(), UnfitKernel> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disabled = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
        .is_ok_and(|value| value.trim() == "1");
    let absent = !std::path::Path::new("/proc/sys/net/ipv6").exists();
    let ipv6 = if disabled || absent { Ipv6::Disabled } else { Ipv6::Enabled };
    judge(release.trim(), ipv6)
}

fn judge(release: &str, ipv6: Ipv6) -> Result<(), UnfitKernel> {
    let unfit = |reason| Err(UnfitKernel { release: release.to_owned(), reason });
    if release.starts_with("3.10.0-862") {
        return unfit("its network stack panics with overlay traffic; upgrade it (yum update)");
    }
    if release.starts_with("3.10.") && ipv6 == Ipv6::Disabled {
        return unfit("geneve needs IPv6 there; set net.ipv6.conf.all.disable_ipv6=0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_kernels() {
        assert!(judge("3.10.0-862.el7.x86_64", Ipv6::Enabled).is_err());
        assert!(judge("3.10.0-1160.el7", Ipv6::Disabled).is_err());
        assert!(judge("3.10.0-1160.el7", Ipv6::Enabled).is_ok());
        assert!(judge("6.1.0", Ipv6::Disabled).is_ok());
    }
}
