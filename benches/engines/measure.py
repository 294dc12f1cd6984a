"""Runs a program and says what it took: wall and CPU seconds, and the peak memory of its own process.

The kernel stops the program at the moment of its exit (PTRACE_O_TRACEEXIT), where its peak memory can still be read:
what `wait4` says of memory is that of the greatest child, which is the notebook's kernel. Knows nothing of notebooks.
"""

import ctypes
import dataclasses
import errno
import os
import pathlib
import signal
import threading
import time

SEIZE, CONT, LISTEN, TRACE_EXIT = 0x4206, 7, 0x4208, 0x40
EVENT_EXIT, EVENT_STOP = 6, 128
# linux/wait.h: children that are threads as well.
WALL = 0x40000000
TICKS = os.sysconf("SC_CLK_TCK")


class MeasureError(Exception):
    """It could not be measured, or did not do what it was to do."""


@dataclasses.dataclass
class Took:
    """What a run took. Seconds; bytes of memory."""

    wall: float
    ended_at: float
    """Seconds since 1970."""
    cpu: float
    """Of the program alone."""
    cpu_all: float
    """With all processes that it waited for: with its kernel."""
    peak: int
    code: int
    """Exit code; below zero a signal."""
    timed_out: bool
    output: str


def run(command, *, env, cwd, limit=3600.0, stall=None):
    """Runs the program to its end, or kills it after `limit` seconds.

    `stall`: a file and seconds; when the file is there the program, without its children, stands still for so long.
    """
    log = pathlib.Path(cwd, ".output")
    pid = start_stopped([str(part) for part in command], env, cwd, log)
    over = threading.Event()
    timer = threading.Timer(limit, kill, [pid, over])
    timer.daemon = True
    timer.start()
    if stall:
        threading.Thread(target=stand_still, args=[pid, over, *stall], daemon=True).start()
    try:
        ptrace(SEIZE, pid, TRACE_EXIT)
        began = time.perf_counter()
        os.kill(pid, signal.SIGCONT)
        peak, children, status, usage = follow(pid)
    finally:
        timer.cancel()
        timed_out = over.is_set()
        over.set()
    wall = time.perf_counter() - began
    total = usage.ru_utime + usage.ru_stime
    return Took(
        wall=wall,
        ended_at=time.time(),
        cpu=max(0.0, total - children),
        cpu_all=total,
        peak=peak,
        code=os.waitstatus_to_exitcode(status),
        timed_out=timed_out,
        output=log.read_text(errors="replace"),
    )


def start_stopped(command, env, cwd, log):
    """A process of a session of its own that waits for SIGCONT before it becomes the program: however soon that ends,
    it is followed from its start."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, os.WUNTRACED)
        return pid
    try:
        os.setsid()
        os.chdir(cwd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.execve(command[0], command, env)
    except OSError as error:
        os.write(2, f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def kill(pid, over):
    """Ends what runs too long. It is not reaped before its end is seen, so that the id is still its own."""
    over.set()
    os.killpg(pid, signal.SIGKILL)


def stand_still(pid, over, file, seconds):
    """Stops a process for a while once the file is there; not at all where it ends before."""
    while not file.exists():
        if over.wait(0.005):
            return
    os.kill(pid, signal.SIGSTOP)
    if not over.wait(seconds):
        os.kill(pid, signal.SIGCONT)


def follow(pid):
    """Follows a child to its end: peak memory in bytes, CPU seconds of its own children, status and usage."""
    peak, children = 0, 0.0
    while True:
        _, status, usage = os.wait4(pid, WALL)
        if not os.WIFSTOPPED(status):
            return peak, children, status, usage
        event = status >> 16
        if event == EVENT_EXIT:
            peak, children = look(pid)
        if event == EVENT_STOP and os.WSTOPSIG(status) == signal.SIGSTOP:
            ptrace(LISTEN, pid, 0)  # it stays stopped until SIGCONT
        else:
            ptrace(CONT, pid, 0 if event else os.WSTOPSIG(status))


def look(pid):
    """Peak memory in bytes and the CPU seconds of children that were waited for, of a process that is about to end."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # proc(5): cutime and cstime are the fields 16 and 17, the state is field 3.
    return peak, (int(fields[13]) + int(fields[14])) / TICKS


def ptrace(request, pid, data):
    """Of ptrace(2) what is needed here; a process that is gone already is no error."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, pid, None, data) != -1:
        return
    error = ctypes.get_errno()
    if error == errno.ESRCH:
        return
    raise MeasureError(f"ptrace of our own child is not allowed here: {os.strerror(error)}")
