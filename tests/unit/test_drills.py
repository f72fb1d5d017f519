"""The configuration of the failover drill: everything reaches a node by its links, which a partition stops."""

from __future__ import annotations

import re
from importlib.metadata import distributions
from pathlib import Path

from drills.patroni_config import (
    Ports,
    entrance_config,
    etcd_command,
    links_config,
    patroni_config,
)
from drills.upgrade import NEXT, make_next_version

A = Ports(sql=1001, rest=1002, sql_link=1003, rest_link=1004, etcd_link=1005)
B = Ports(sql=2001, rest=2002, sql_link=2003, rest_link=2004, etcd_link=2005)
ETCD = 3001


def test_clients_and_health_checks_use_the_links() -> None:
    text = entrance_config(4001, [A, B])
    servers = re.findall(r"server \w+ 127.0.0.1:(\d+) check port (\d+)", text)
    assert servers == [("1003", "1004"), ("2003", "2004")]
    assert "bind 127.0.0.1:4001" in text


def test_haproxy_closes_connections_to_a_former_leader_unless_it_is_to_leave_them_open() -> None:
    assert "shutdown-sessions" in entrance_config(4001, [A, B])
    assert "shutdown-sessions" not in entrance_config(4001, [A, B], closes=False)


def test_links_forward_to_the_programs_of_the_node() -> None:
    text = links_config(A, ETCD)
    links = re.findall(r"bind 127.0.0.1:(\d+)\n    server target 127.0.0.1:(\d+)", text)
    assert links == [("1003", "1001"), ("1004", "1002"), ("1005", "3001")]


def test_patroni_names_its_links_to_the_others() -> None:
    config = patroni_config("a", A, Path("/home"), Path("/programs"), synchronous=True)
    assert config["etcd3"] == {"host": "127.0.0.1:1005", "use_proxies": True}
    assert config["restapi"]["connect_address"] == "127.0.0.1:1004"
    assert config["postgresql"]["connect_address"] == "127.0.0.1:1003"
    assert config["postgresql"]["listen"] == "127.0.0.1:1001"


def test_time_limits_of_patroni_fit_each_other() -> None:
    for synchronous in (True, False):
        home = Path("/home")
        dynamic = patroni_config("a", A, home, home, synchronous=synchronous)["bootstrap"]["dcs"]
        assert dynamic["synchronous_mode"] is synchronous
        assert dynamic["loop_wait"] + 2 * dynamic["retry_timeout"] <= dynamic["ttl"]


def test_etcd_has_one_member() -> None:
    command = etcd_command(Path("/data"), ETCD, 3002)
    assert "--initial-cluster=drill=http://127.0.0.1:3002" in command
    assert "--listen-client-urls=http://127.0.0.1:3001" in command


def test_the_next_version_of_the_upgrade_drill_fits_the_code(tmp_path: Path) -> None:
    folder = make_next_version(tmp_path)
    (found,) = distributions(name="tocsin", path=[str(folder)])
    assert found.version == NEXT
    sql = folder / "tocsin" / "sql"
    assert "function tocsin.report_process_2(" in (sql / "functions" / "leader.sql").read_text()
    assert len(list((sql / "migrations").glob("000[234]_*.sql"))) == 3
