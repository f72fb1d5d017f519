"""The configuration of Patroni, etcd and HAProxy for two nodes on loopback. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from faults.server import HOST, PASSWORD, free_port
from tocsin.dev.postgres_cluster import SUPERUSER

HAPROXY = """
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 2s
    timeout check 2s
    timeout client 30m
    timeout server 30m
"""
ENTRANCE = """
listen primary
    bind {host}:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    option clitcpka
    option srvtcpka
    default-server inter 1s fall 2 rise 1{closing}
"""
CLOSING = " on-marked-down shutdown-sessions"
LINK = """
listen {source}
    bind {host}:{source}
    server target {host}:{target}
"""
DYNAMIC: dict[str, Any] = {
    "ttl": 20,
    "loop_wait": 2,
    "retry_timeout": 5,
    "maximum_lag_on_failover": 16 * 2**20,
    "postgresql": {
        "use_pg_rewind": True,
        "use_slots": True,
        "parameters": {
            "max_connections": 200,
            "wal_keep_size": "256MB",
            "wal_sender_timeout": "5s",
            "wal_retrieve_retry_interval": "200ms",
        },
    },
}


class Ports(Struct, frozen=True):
    """The ports of one node's programs, and of the links by which all others reach them."""

    sql: int
    rest: int
    sql_link: int
    rest_link: int
    etcd_link: int  # from the node to etcd


def free_ports() -> Ports:
    return Ports(*(free_port() for _ in range(5)))


def links_config(ports: Ports, etcd: int) -> str:
    """Returns the configuration of a node's links: a HAProxy that only forwards."""
    links = ((ports.sql_link, ports.sql), (ports.rest_link, ports.rest), (ports.etcd_link, etcd))
    return HAPROXY + "".join(
        LINK.format(host=HOST, source=source, target=target) for source, target in links
    )


def entrance_config(port: int, nodes: Sequence[Ports], *, closes: bool = True) -> str:
    """Returns the configuration of the HAProxy to which clients connect; `closes` connections to a former leader."""
    servers = (
        f"    server {name} {HOST}:{ports.sql_link} check port {ports.rest_link}\n"
        for name, ports in zip("ab", nodes, strict=True)
    )
    entrance = ENTRANCE.format(host=HOST, port=port, closing=CLOSING if closes else "")
    return HAPROXY + entrance + "".join(servers)


def patroni_config(
    name: str, ports: Ports, home: Path, binaries: Path, *, synchronous: bool
) -> dict[str, Any]:
    login = {"username": SUPERUSER, "password": PASSWORD}
    return {
        "scope": "drill",
        "name": name,
        "restapi": {
            "listen": f"{HOST}:{ports.rest}",
            "connect_address": f"{HOST}:{ports.rest_link}",
        },
        # without use_proxies, Patroni uses the address that etcd names, and not the link
        "etcd3": {"host": f"{HOST}:{ports.etcd_link}", "use_proxies": True},
        "bootstrap": {"dcs": DYNAMIC | {"synchronous_mode": synchronous}},
        "postgresql": {
            "listen": f"{HOST}:{ports.sql}",
            "connect_address": f"{HOST}:{ports.sql_link}",
            "data_dir": str(home / "data"),
            "bin_dir": str(binaries / "bin"),
            "pgpass": str(home / "pgpass"),
            "authentication": {"superuser": login, "replication": login, "rewind": login},
            "pg_hba": [
                f"host all all {HOST}/32 scram-sha-256",
                f"host replication all {HOST}/32 scram-sha-256",
            ],
            # fsync=off: if processes are killed, the kernel loses nothing
            "parameters": {"unix_socket_directories": "", "timezone": "UTC", "fsync": "off"},
            "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            "remove_data_directory_on_rewind_failure": True,
            "remove_data_directory_on_diverged_timelines": True,
        },
    }


def etcd_command(folder: Path, port: int, peers: int) -> list[str]:
    """Returns the command of an etcd with timeouts for a busy machine: no other member could replace it."""
    clients, members = f"http://{HOST}:{port}", f"http://{HOST}:{peers}"
    options = {
        "name": "drill",
        "data-dir": str(folder / "data"),
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": members,
        "initial-advertise-peer-urls": members,
        "initial-cluster": f"drill={members}",
        "heartbeat-interval": "500",
        "election-timeout": "5000",
    }
    return ["etcd", *(f"--{name}={value}" for name, value in options.items())]
