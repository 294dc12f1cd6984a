//! A wall clock that is wrong: in a process that has this library in `LD_PRELOAD`, it is off by as many milliseconds as
//! the file `$TRAINYARD_TEST_CLOCK` says at that moment. Clocks that only measure time are the system's.

use std::ffi::{OsString, c_int};
use std::sync::OnceLock;

const FILE: &str = "TRAINYARD_TEST_CLOCK";
const SECOND: i64 = 1_000_000_000;

/// In the place of the C library's.
///
/// # Safety
/// `time` points to a `timespec` of the caller's, as the C library's function wants it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // SAFETY: the kernel checks both.
    let answer = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if answer != 0 {
        return -1;
    }
    if !matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE) {
        return 0;
    }
    // SAFETY: the kernel has just written to it.
    let time = unsafe { &mut *time };
    let ahead = ahead();
    let nanoseconds = time.tv_nsec + ahead % 1_000 * (SECOND / 1_000);
    time.tv_sec += ahead / 1_000 + nanoseconds.div_euclid(SECOND);
    time.tv_nsec = nanoseconds.rem_euclid(SECOND);
    0
}

/// In milliseconds; what cannot be read is no step.
fn ahead() -> i64 {
    static PATH: OnceLock<Option<OsString>> = OnceLock::new();
    let path = PATH.get_or_init(|| std::env::var_os(FILE));
    let text = path
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
