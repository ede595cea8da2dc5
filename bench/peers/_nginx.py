"""nginx: checks no token, and is the yardstick for plain speed."""

from __future__ import annotations

from bench.peers.base import Program, said
from bench.processes import free_port

CONFIGURATION = """
daemon off;
user root;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
    access_log {directory}/access.log combined buffer=64k flush=1s;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:10m;
    upstream backend {{
        server unix:{socket};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    map $http_upgrade $connection_header {{ default upgrade; "" ""; }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_header;
            proxy_read_timeout 3600s;
            proxy_buffering off;
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_busy_buffers_size 128k;
            proxy_request_buffering off;
        }}
    }}
}}
"""


class Nginx(Program):
    """Debian's nginx."""

    name = "nginx"
    settings = (
        "one worker, no token check, upstream keep-alive over the unix socket, access log "
        "(buffered) to a file, `proxy_buffering off` and `proxy_request_buffering off` "
        "(as Matrix: nothing of a body on disk), `proxy_buffer_size 64k` (as Matrix's reads)"
    )

    @classmethod
    def version(cls) -> str:
        """As it says."""
        return said(["nginx", "-v"]).rpartition("/")[2]

    def start(self) -> None:
        """As the base class says."""
        self.port = free_port()
        site = self.site
        configuration = self.directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                directory=self.directory,
                cert=site.cert,
                key=site.key,
                socket=site.socket,
                port=self.port,
            )
        )
        error_log = str(self.directory / "error.log")
        self.launch(["nginx", "-p", str(self.directory), "-e", error_log, "-c", str(configuration)])
