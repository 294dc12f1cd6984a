# Starts IPython's kernel so that it never drops a message: its iopub socket would do so without a word
# where we read more slowly than it speaks. With XPUB_NODROP it waits instead.
import gc
import sys

# Looking for garbage among modules that are just being made is a tenth of the start. They are never looked through
# again: not while a cell runs, and not at the end, where that took longer than a small notebook.
gc.disable()

# As ipykernel_launcher does: the working folder comes back later, and must not shadow what is imported here.
if sys.path and sys.path[0] == "":
    del sys.path[0]

import zmq
from ipykernel.iostream import OutStream
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

# A slow reader is waited for as long as it takes; the cell's time-out and an interrupt end that. After ten seconds a flush
# would go on, and write a complaint into the middle of what the cell prints.
OutStream.flush_timeout = None


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
