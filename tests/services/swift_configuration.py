"""The files from which the four Swift servers start: one device, one replica, one account."""

from __future__ import annotations

import subprocess
from pathlib import Path

ACCOUNT = "test"
NAME = "tester"
KEY = "testing"
REGION = "us-east-1"
STORAGE_SERVERS = ("account", "container", "object")

_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
log_level = WARNING
"""
_STORAGE = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo \
versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{name} = {key} .admin
[filter:s3api]
use = egg:swift#s3api
location = {region}
max_upload_part_num = 10000
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
"""
_PLAIN_FILTERS = (
    *("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "bulk", "copy", "dlo"),
    *("versioned_writes", "symlink"),
)
_HASHES = """\
[swift-hash]
swift_hash_path_suffix = tests
swift_hash_path_prefix = tests
[storage-policy:0]
name = only
default = yes
"""
# Run by Swift's own Python.
_MAKE_RINGS = """\
import sys
from swift.common.ring import RingBuilder
folder = sys.argv[1]
for kind, port in zip(("account", "container", "object"), map(int, sys.argv[2:]), strict=True):
    builder = RingBuilder(2, 1, 0)
    builder.add_dev({
        "id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "disk", "meta": "",
        "ip": "127.0.0.1", "port": port,
        "replication_ip": "127.0.0.1", "replication_port": port,
    })
    builder.rebalance(seed="tests")
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""


def write_configuration(folder: Path, ports: dict[str, int], python: Path) -> dict[str, Path]:
    """Writes everything below ``folder``; returns the configuration file of each server.

    ``ports`` has one for ``proxy`` and for each of STORAGE_SERVERS. Raises
    subprocess.CalledProcessError when the rings can't be built.
    """
    (folder / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    (folder / "swift.conf").write_text(_HASHES)
    files = {}
    for kind, port in ports.items():
        text = _COMMON.format(port=port, folder=folder)
        text += _proxy() if kind == "proxy" else _STORAGE.format(kind=kind)
        files[kind] = folder / f"{kind}-server.conf"
        files[kind].write_text(text)
    storage_ports = [str(ports[kind]) for kind in STORAGE_SERVERS]
    subprocess.run(
        [str(python), "-I", "-c", _MAKE_RINGS, str(folder), *storage_ports],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        timeout=60,
        check=True,
    )
    return files


def _proxy() -> str:
    text = _PROXY.format(account=ACCOUNT, name=NAME, key=KEY, region=REGION)
    return text + "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _PLAIN_FILTERS)
