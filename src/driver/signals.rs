//! Signals as something to poll. They are blocked for the whole process (a blocked signal reaches PID 1 too, which
//! would not get it otherwise), and unblocked again for the job. Knows not what a signal means to us.
#![allow(
    unsafe_code,
    reason = "signalfd and sigprocmask have no safe wrapper without a C library of its own"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

/// What came since it was looked at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Arrived {
    /// A child ended or stopped.
    pub(crate) child: bool,
    /// SIGTERM, SIGINT or SIGHUP: we are to stop.
    pub(crate) stop: bool,
}

/// Lets every signal through again: between fork and exec, because a program inherits what is blocked.
pub(crate) fn unblock_all() -> io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        match libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The descriptor of the signals that the driver takes.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the signals and takes them from now on.
    ///
    /// # Errors
    /// Where the system refuses a descriptor.
    pub(crate) fn take() -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before it is used; the descriptor is ours alone.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self {
                fd: OwnedFd::from_raw_fd(fd),
            })
        }
    }

    /// To be polled for reading.
    #[must_use]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What has come.
    #[must_use]
    pub(crate) fn arrived(&self) -> Arrived {
        let mut arrived = Arrived::default();
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        while let Ok(n) = rustix::io::read(&self.fd, &mut record)
            && n == record.len()
        {
            // The signal's number is the first field.
            match i32::from_ne_bytes([record[0], record[1], record[2], record[3]]) {
                libc::SIGCHLD => arrived.child = true,
                _ => arrived.stop = true,
            }
        }
        arrived
    }
}
