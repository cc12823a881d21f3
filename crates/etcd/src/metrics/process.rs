//! What the system says about this process, under the names that Prometheus' clients use.

use std::fs;
use std::time::UNIX_EPOCH;

use super::page::Page;

/// The unit of time in `/proc/self/stat`, which Linux keeps for the sake of its readers.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds what the system tells; elsewhere than on Linux it tells nothing.
pub(super) fn add(page: &mut Page) {
    let Some(stat) = stat() else { return };
    let ticks = TICKS_PER_SECOND;
    page.counter(
        "process_cpu_seconds_total",
        "Seconds of processor time, in user mode and in the kernel.",
        stat.cpu_ticks as f64 / ticks,
    );
    if let Some(bytes) = memory("VmRSS:") {
        page.gauge("process_resident_memory_bytes", "Bytes of memory that the process has.", bytes);
    }
    if let Some(bytes) = memory("VmSize:") {
        page.gauge("process_virtual_memory_bytes", "Bytes of address space reserved.", bytes);
    }
    if let Some(booted) = boot_time() {
        page.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            booted + stat.start_ticks as f64 / ticks,
        );
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Open file descriptors.", open.count() as f64);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(limit) = limit.current {
        page.gauge("process_max_fds", "File descriptors that may be open.", limit as f64);
    }
}

/// The numbers of `/proc/self/stat`, as in proc(5).
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
}

fn stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold anything; the third field follows it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)? })
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// When the system started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some(UNIX_EPOCH.elapsed().ok()?.as_secs_f64() - uptime)
}
