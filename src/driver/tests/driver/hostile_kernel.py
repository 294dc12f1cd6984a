"""A scripted kernel: it speaks ZMTP and Jupyter's protocol by itself, well enough to be believed, and then does its deed."""

import hashlib
import hmac
import json
import os
import socket
import sys
import threading
import time

CONNECTION = json.load(open(sys.argv[sys.argv.index("-f") + 1]))
KEY = CONNECTION["key"].encode()
DEED = os.environ["DEED"]
GREETING = (b"\xff" + bytes(8) + b"\x7f\x03\x00NULL").ljust(64, b"\0")
PEERS = {}
SUBSCRIBED = threading.Event()


def frame(flags, body):
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body


def multipart(parts):
    return b"".join(frame(1, part) for part in parts[:-1]) + frame(0, parts[-1])


def message(kind, parent, content, sign=True):
    """Frames of a message; `content` is JSON already, or a value."""
    header = {"msg_id": os.urandom(8).hex(), "msg_type": kind, "session": "s", "username": "k", "version": "5.3"}
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    parts = [json.dumps(header).encode(), json.dumps(parent).encode(), b"{}", body]
    return [b"<IDS|MSG>", signature(parts) if sign else b"0" * 64, *parts]


def signature(parts):
    return hmac.new(KEY, b"".join(parts), hashlib.sha256).hexdigest().encode()


def say(kind, parent, content, **how):
    PEERS["iopub"].sendall(multipart(message(kind, parent, content, **how)))


def answer(kind, parent, content):
    PEERS["shell"].sendall(multipart(message(kind, parent, content)))


def read_exactly(peer, count):
    read = b""
    while len(read) < count:
        more = peer.recv(count - len(read))
        if not more:
            raise EOFError
        read += more
    return read


def read_message(peer):
    """The next multipart message; commands are passed over."""
    parts = []
    while True:
        flags, length = read_exactly(peer, 2)
        if flags & 2:
            length = int.from_bytes(bytes([length]) + read_exactly(peer, 7), "big")
        body = read_exactly(peer, length)
        if flags & 4:
            continue
        parts.append(body)
        if not flags & 1:
            return parts


def endless(peer, bytes_):
    try:
        while True:
            peer.sendall(bytes_)
    except OSError:
        pass


def ok(parent):
    say("status", parent, {"execution_state": "busy"})
    answer("execute_reply", parent, {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}})
    say("status", parent, {"execution_state": "idle"})


def execute(parent):
    """Answers a cell, or does the deed."""
    iopub = PEERS["iopub"]
    text = {"name": "stdout", "text": "x" * 1000 + "\n"}
    if DEED == "garbage":
        iopub.sendall(b"\xff" * 100)
    elif DEED == "forged":
        say("stream", parent, text, sign=False)
    elif DEED == "no_json":
        say("stream", parent, b"{")
        answer("execute_reply", parent, b"[")
    elif DEED == "parts_missing":
        iopub.sendall(multipart([b"<IDS|MSG>", b"0" * 64, b"{}"]))
    elif DEED == "long_header":
        parts = [b'{"msg_type": "' + b"x" * (100 << 20) + b'"}', b"{}", b"{}", b"{}"]
        iopub.sendall(multipart([b"<IDS|MSG>", signature(parts), *parts]))
    elif DEED == "many_frames":
        endless(iopub, frame(1, b"x"))
    elif DEED == "hangs_up":
        iopub.close()
    elif DEED == "terabyte_late":
        iopub.sendall(b"\x02" + (1 << 40).to_bytes(8, "big"))
        endless(iopub, bytes(1 << 20))
    elif DEED == "floods":
        endless(iopub, multipart(message("stream", parent, text)) * 100)
    elif DEED == "floods_states":
        answer("execute_reply", parent, {"status": "ok", "execution_count": 1})
        endless(iopub, multipart(message("comm_msg", parent, {"comm_id": "a", "data": {}})) * 100)
    elif DEED == "never_answers":
        say("status", parent, {"execution_state": "busy"})
    elif DEED == "answers_twice":
        answer("execute_reply", parent, {"status": "ok", "execution_count": 1})
        answer("execute_reply", parent, {"status": "error", "ename": "Late", "evalue": "", "traceback": []})
        say("status", parent, {"execution_state": "idle"})
        say("status", parent, {"execution_state": "idle"})
    elif DEED == "never_idle":
        answer("execute_reply", parent, {"status": "ok", "execution_count": 1})
    elif DEED == "for_nobody":
        say("stream", {"msg_id": "nobody's"}, text)
        say("stream", None, text)
        say("status", {"msg_id": "nobody's"}, {"execution_state": "idle"})
        ok(parent)
    elif DEED == "unknown_kind":
        say("tea_break", parent, {"minutes": [5] * 1000})
        ok(parent)
    elif DEED == "grows_in_memory":
        many = b"[" + b"0," * (40 << 20) + b"0]"
        for kind in ("display_data", "error", "comm_open", "update_display_data"):
            say(kind, parent, b'{"comm_id": "a", "ename": "a", "evalue": "b", "traceback": [], "data": {"state": {}},'
                b'"transient": {"display_id": "d"}, "metadata": {"a": ' + many + b"}}")
        say("stream", parent, b'{"name": "stdout", "text": "' + b"\xff" * (100 << 20) + b'"}')
        ok(parent)
    elif DEED == "largest_message":
        say("display_data", parent, b'{"data": {"text/plain": "' + b"x" * (127 << 20) + b'"}, "metadata": {}}')
        ok(parent)
    else:
        ok(parent)


def serve_shell(peer):
    while True:
        parts = read_message(peer)
        at = parts.index(b"<IDS|MSG>")
        parent = json.loads(parts[at + 2])
        if parent["msg_type"] == "kernel_info_request":
            SUBSCRIBED.wait()
            say("status", parent, {"execution_state": "busy"})
            answer("kernel_info_reply", parent, {"status": "ok", "implementation": "hostile", "language_info": {}})
            say("status", parent, {"execution_state": "idle"})
        elif parent["msg_type"] == "execute_request":
            execute(parent)


def serve_iopub(peer):
    if DEED == "terabyte":
        peer.sendall(b"\x02" + (1 << 40).to_bytes(8, "big"))
        endless(peer, bytes(1 << 20))
    elif DEED == "closes":
        peer.close()
    else:
        SUBSCRIBED.set()


def serve_control(peer):
    while True:
        parts = read_message(peer)
        if b"shutdown_request" in parts[parts.index(b"<IDS|MSG>") + 2]:
            os._exit(0)


def listen(number, name, kind, serve):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{CONNECTION['ip']}-{number}")
    listener.listen()

    def accept():
        peer = PEERS[name] = listener.accept()[0]
        peer.sendall(b"\x00" * 64 if DEED == "greets_wrongly" else GREETING)
        read_exactly(peer, 64)
        peer.sendall(frame(4, b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind))
        try:
            serve(peer)
        except (EOFError, OSError):
            pass
        time.sleep(1000)

    threading.Thread(target=accept).start()


listen(1, "shell", b"ROUTER", serve_shell)
listen(2, "iopub", b"PUB", serve_iopub)
listen(3, "stdin", b"ROUTER", lambda peer: None)
listen(4, "control", b"ROUTER", serve_control)
