"""Run a command in two processes that accept from one socket; {fd} in it is the descriptor.

twice.py PORT COMMAND…; for servers of one process, which are otherwise run behind a proxy.
"""

from __future__ import annotations

import os
import socket
import sys

port, *command = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", int(port)), backlog=2048)
listener.set_inheritable(True)
words = [word.replace("{fd}", str(listener.fileno())) for word in command]
os.fork()
os.execvp(words[0], words)
