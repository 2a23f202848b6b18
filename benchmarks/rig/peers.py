"""nginx and HAProxy as they are compared with: one process or worker that carries, one thread, no
access log, the same origins, the same certificate."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rig.programs import RELAY_CORE, running, until
from rig.subjects import Subject
from support.parts.processes import free_port, listens

_NGINX = """\
user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {folder}/nginx.pid;
error_log stderr error;
events {{
    worker_connections {places};
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream origin {{
{origins}
    }}
    server {{
        listen 127.0.0.1:{port} backlog=65535;
        listen 127.0.0.1:{tls_port} ssl backlog=65535;
        ssl_certificate {certificates}/bench.crt;
        ssl_certificate_key {certificates}/bench.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
{buffers}
        }}
    }}
}}
"""

_HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
{tuning}
defaults
    mode http
    backlog 65535
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    timeout http-request 10s
{options}
frontend clients
    bind 127.0.0.1:{port}
    bind 127.0.0.1:{tls_port} ssl crt {certificates}/haproxy/bench ssl-min-ver TLSv1.2
    default_backend origin
backend origin
    balance roundrobin
{origins}
"""

LARGE = 65_536
"""Bytes of an enlarged buffer."""


@contextmanager
def nginx(
    folder: Path, certificates: Path, origins: Sequence[int], *, connections: int, buffer: int = 0
) -> Iterator[Subject]:
    """connections: that it can carry. buffer: bytes per direction; 0 leaves nginx's own."""
    name = f"nginx {buffer // 1024}k" if buffer else "nginx"
    home = folder / name.replace(" ", "-")
    home.mkdir(exist_ok=True)
    port, tls_port = free_port(), free_port()
    buffers = f"proxy_buffer_size {buffer}; proxy_buffers 8 {buffer};" if buffer else ""
    configuration = home / "nginx.conf"
    configuration.write_text(
        _NGINX.format(
            folder=home,
            descriptors=2 * connections + 100,
            # With few places left, nginx closes clients whose request has not come yet.
            places=3 * connections + 100,
            origins="\n".join(f"server 127.0.0.1:{origin};" for origin in origins),
            port=port,
            tls_port=tls_port,
            certificates=certificates,
            buffers=buffers,
        )
    )
    command = ["/usr/sbin/nginx", "-p", home, "-e", "stderr", "-c", configuration]
    with running(command, home / "log", core=RELAY_CORE) as program:
        until(lambda: _serves(program.check_running, port), f"{name} listens")
        yield Subject(name, program.pid, port, tls_port)


@contextmanager
def haproxy(
    folder: Path,
    certificates: Path,
    origins: Sequence[int],
    *,
    connections: int,
    buffer: int = 0,
    splice: bool = False,
) -> Iterator[Subject]:
    """buffer: bytes; 0 leaves HAProxy's own. splice: it may move bytes within the kernel."""
    name = "HAProxy" + (f" {buffer // 1024}k" if buffer else "") + (" splice" if splice else "")
    home = folder / name.replace(" ", "-")
    home.mkdir(exist_ok=True)
    port, tls_port = free_port(), free_port()
    configuration = home / "haproxy.cfg"
    configuration.write_text(
        _HAPROXY.format(
            connections=connections,
            tuning=f"    tune.bufsize {buffer}" if buffer else "",
            options="    option splice-auto" if splice else "",
            origins="\n".join(
                f"    server s{number} 127.0.0.1:{origin}" for number, origin in enumerate(origins)
            ),
            port=port,
            tls_port=tls_port,
            certificates=certificates,
        )
    )
    command = ["/usr/sbin/haproxy", "-db", "-f", configuration]
    with running(command, home / "log", core=RELAY_CORE) as program:
        until(lambda: _serves(program.check_running, port), f"{name} listens")
        yield Subject(name, program.pid, port, tls_port)


def _serves(check_running: Callable[[], None], port: int) -> bool:
    check_running()
    return listens(port)
