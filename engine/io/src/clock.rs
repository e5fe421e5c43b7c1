//! Clocks that the standard library lacks, and the one that the kernel stamps datagrams with.
//!
//! Not here: the monotonic clock of the loop (`run`).

use std::mem::zeroed;
use std::time::SystemTime;

/// The time that `sys::Received::stamp_us` is compared with.
pub fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// CPU time of the calling thread, seconds.
pub fn thread_cpu_s() -> f64 {
    let time = thread_cpu();
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// CPU time of the calling thread, microseconds.
pub fn thread_cpu_us() -> u64 {
    let time = thread_cpu();
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

fn thread_cpu() -> libc::timespec {
    // SAFETY: timespec is plain data, and the clock exists on every Linux.
    unsafe {
        let mut time: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
        time
    }
}
