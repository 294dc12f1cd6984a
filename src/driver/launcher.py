# Starts IPython's kernel so that it never drops a message: its iopub socket would do so without a word
# where we read more slowly than it speaks. With XPUB_NODROP it waits instead.
import codecs
import gc
import os
import select
import sys
import threading

# Looking for garbage among modules that are just being made is a tenth of the start. They are never looked through
# again: not while a cell runs, and not at the end, where that took longer than a small notebook.
gc.disable()

# As ipykernel_launcher does: the working folder comes back later, and must not shadow what is imported here.
if sys.path and sys.path[0] == "":
    del sys.path[0]

import zmq
from ipykernel import iostream
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel


def running(child):
    try:
        return child.status() != "zombie"
    except Exception:
        return False


def children(kernel, listed=getattr(Kernel, "_process_children", lambda kernel: [])):
    """What the kernel ends before itself. One that has ended and that the notebook never waited for is in the list, too:
    the kernel would send it signals for half a minute."""
    return [child for child in listed(kernel) if running(child)]


Kernel._process_children = children

# All that a pipe holds.
PIPE = 64 << 10


class OutStream(iostream.OutStream):
    """What cells print. Text that is written to the file descriptors themselves is theirs, too. ipykernel takes it from a
    pipe, may miss it where the cell is over at once, and copies it to where the kernel was started from: it would be
    said twice. We take it before the cell is over, and copy nothing. Standard error is left alone: it is read where the
    kernel was started from, so that the last words of a process that crashes are heard."""

    # A slow reader is waited for as long as it takes; the cell's time-out and an interrupt end that. After ten seconds a
    # flush would go on, and write a complaint into the middle of what the cell prints.
    flush_timeout = None

    def __init__(self, session, pub_thread, name, *args, watchfd=True, **kwargs):
        self._taken = threading.Condition()
        self._times = 0
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        super().__init__(session, pub_thread, name, *args, watchfd=watchfd and name == "stdout", **kwargs)
        if not self._should_watch:
            # For `fileno`, which programs are given to write to.
            self._original_stdstream_copy = os.dup(getattr(sys, f"__{name}__").fileno())

    def _holds_text(self, patience=0):
        return bool(select.select([self._fid], [], [], patience)[0])

    def _watch_pipe_fd(self):
        said = True
        while said and self._holds_text(None):
            with self._taken:
                said = os.read(self._fid, PIPE)
                if self._should_watch and self.pub_thread.thread.is_alive():
                    self.write(self._characters.decode(said))
                else:
                    # The kernel ends, and shows nothing any more. It wakes us with a zero.
                    os.write(self._original_stdstream_copy, said.rstrip(b"\0"))
                    said = said and self._should_watch
                self._times += 1
                self._taken.notify_all()

    def flush(self):
        """With what the file descriptor was given until now. A fork has no thread that would take it."""
        if self._should_watch and self._is_master_process():
            with self._taken:
                times = self._times
                self._taken.wait_for(lambda: self._times > times or not self._holds_text(), timeout=1)
        super().flush()


OutStream.__module__ = iostream.__name__
iostream.OutStream = OutStream


class KernelApp(IPKernelApp):
    def _bind_socket(self, s, port):
        if s.type in (zmq.PUB, zmq.XPUB):
            s.setsockopt(zmq.XPUB_NODROP, 1)
            # A kernel that ends waits, too, until its last words are read.
            s.linger = -1
        return super()._bind_socket(s, port)

    def start(self):
        gc.freeze()
        gc.enable()
        super().start()
        # Who answers the last request is heard out before the thread is stopped that sends what is said: ipykernel stops
        # that one first, and now and then both wait for each other until the kernel is killed.
        for name in ("control_thread", "shell_channel_thread"):
            thread = getattr(self, name, None)
            if thread and thread.is_alive():
                thread.stop()
                thread.join()

    def log_connection_info(self):
        """Nobody is to connect: the lines for people at a terminal would stand in the job's log."""


KernelApp.launch_instance(
    argv=[
        *sys.argv[1:],
        # The history of a notebook is the notebook: no file of it in anybody's home.
        "--HistoryManager.hist_file=:memory:",
        # A pause after each cell, for clients that do not wait for what was said.
        "--IPythonKernel._execute_sleep=0",
    ]
)
