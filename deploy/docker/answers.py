#!/usr/bin/env -S python3 -I -S
"""`answers PORT PATH`: exit 0 when http://127.0.0.1:PORT/PATH answers 200 within 3 s.

The health check of the images. By a plain socket, since a check that runs every few seconds in each
container must not load an HTTP library each time. `answers PORT` alone: something listens.
"""

import socket
import sys

port, *path = sys.argv[1:]
with socket.create_connection(("127.0.0.1", int(port)), 3) as connection:
    connection.settimeout(3)
    if path:
        request = f"GET {path[0]} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        if answer.split(b" ", 2)[1:2] != [b"200"]:
            # Docker keeps the output: `docker inspect` then shows the reasons of /readyz.
            sys.exit(answer.decode("utf-8", "replace")[-1000:])
