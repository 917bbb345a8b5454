"""A private RabbitMQ node: its own Erlang port mapper, cookie, data and ports, in one folder."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from tests.services.guard import GuardedProcess
from tests.services.ports import reserve_port

# Not /usr/sbin: the wrapper there changes to the account rabbitmq and forces /var/lib.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GREETING = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = b"\x01"
MEMORY_LIMIT = "512MB"
VHOSTS_AT_ONCE = 8
"""One ``rabbitmqctl`` call costs most of a second; one more vhost in it costs little."""

CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
log.console = true
log.file = false
vm_memory_high_watermark.absolute = {memory_limit}
disk_free_limit.absolute = 50MB
"""


class RabbitMQError(Exception):
    """The node or ``rabbitmqctl`` failed; the message holds the end of what it wrote."""


class RabbitMQ:
    """One node. ``start`` after ``stop`` or ``kill`` serves the same data on the same ports."""

    HOW_TO_INSTALL = (
        "RabbitMQ is not installed: apt-get install rabbitmq-server (the suite runs a private node "
        "of its own; the distribution's service need not run)"
    )

    def __init__(self, folder: Path) -> None:
        self.port = reserve_port()
        self._folder = folder
        self._mapper_port = reserve_port()
        self._distribution_port = reserve_port()
        self._mapper: GuardedProcess | None = None
        self._node: GuardedProcess | None = None
        self._spare_vhosts: list[str] = []
        self._vhosts_made = 0
        self._log_path = folder / "node.log"

    @staticmethod
    def available() -> bool:
        """Whether the programs are on this machine; if not, show ``HOW_TO_INSTALL``."""
        server = PROGRAMS / "rabbitmq-server"
        return server.exists() and shutil.which("epmd", path=SEARCH_PATH) is not None

    @property
    def url(self) -> str:
        """The broker URL of the default vhost."""
        return self.url_of("/")

    def url_of(self, vhost: str, *, port: int | None = None) -> str:
        """The broker URL of a vhost; ``port`` is that of a proxy in between, if any."""
        name = "/" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://guest:guest@127.0.0.1:{port or self.port}/{name}"

    # --- life -------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._node is not None and self._node.running

    def start(self, *, timeout_seconds: float = 120.0) -> None:
        """Starts the node and returns when it speaks AMQP. Raises RabbitMQError."""
        if self.running:
            return
        self._write_configuration()
        if self._mapper is None or not self._mapper.running:
            self._mapper = self._spawn(
                ["epmd", "-port", str(self._mapper_port), "-address", "127.0.0.1"]
            )
        self._node = self._spawn([str(PROGRAMS / "rabbitmq-server")])
        self.wait_ready(timeout_seconds=timeout_seconds)

    def wait_ready(self, *, timeout_seconds: float = 120.0) -> None:
        """Returns when the node answers an AMQP greeting. Raises RabbitMQError."""
        deadline = time.monotonic() + timeout_seconds
        while not self._greets():
            if not self.running or time.monotonic() > deadline:
                tail = "\n".join(self._log_path.read_text(errors="replace").splitlines()[-30:])
                self.close()
                raise RabbitMQError(f"RabbitMQ did not start; the end of its log:\n{tail}")
            time.sleep(0.05)

    def stop(self, *, timeout_seconds: float = 60.0) -> None:
        """Shuts the node down cleanly."""
        if self._node is not None:
            self._node.stop(timeout_seconds=timeout_seconds)
            self._node = None

    def kill(self) -> None:
        """``kill -9`` of the node."""
        if self._node is not None:
            self._node.kill()
            self._node = None

    def close(self) -> None:
        """The end, without ceremony: the data are thrown away with the folder."""
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper = None

    # --- trouble ----------------------------------------------------------------------------

    def stop_app(self) -> None:
        """Closes the broker and its connections in under a second; Erlang stays up."""
        self.ctl("stop_app")

    def start_app(self) -> None:
        """Takes connections again after ``stop_app``."""
        self.ctl("start_app")
        self.wait_ready()

    def raise_memory_alarm(self) -> None:
        """From now on the broker reads nothing from connections that publish."""
        self.ctl("set_vm_memory_high_watermark", "absolute", "1MB")

    def clear_memory_alarm(self) -> None:
        self.ctl("set_vm_memory_high_watermark", "absolute", MEMORY_LIMIT)

    # --- administration ---------------------------------------------------------------------

    def new_vhost(self) -> str:
        """The name of a vhost that nobody has used; ``guest`` may do all in it."""
        if not self._spare_vhosts:
            first = self._vhosts_made + 1
            self._vhosts_made += VHOSTS_AT_ONCE
            names = [f"t{number}" for number in range(first, self._vhosts_made + 1)]
            made = ",".join(f'<<"{name}">>' for name in names)
            self.ctl(
                "eval",
                f'[begin rabbit_vhost:add(V, <<"guest">>), rabbit_auth_backend_internal:'
                'set_permissions(<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"guest">>) end '
                f"|| V <- [{made}]].",
            )
            self._spare_vhosts = names
        return self._spare_vhosts.pop(0)

    def ctl(self, *arguments: str, timeout_seconds: float = 240.0) -> str:
        """Runs ``rabbitmqctl`` and returns what it printed. Raises RabbitMQError."""
        done = subprocess.run(
            [str(PROGRAMS / "rabbitmqctl"), "--quiet", *arguments],
            env=self._environment(),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if done.returncode != 0:
            raise RabbitMQError(f"rabbitmqctl {arguments[0]}: {done.stdout.strip()}")
        return done.stdout

    # --- inside -----------------------------------------------------------------------------

    def _spawn(self, argv: list[str]) -> GuardedProcess:
        return GuardedProcess(
            argv, log_path=self._log_path, environment=self._environment(), folder=self._folder
        )

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(GREETING)
                return connection.recv(1) == METHOD_FRAME
        except OSError:
            return False

    def _write_configuration(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / "rabbitmq.conf").write_text(
            CONFIGURATION.format(port=self.port, memory_limit=MEMORY_LIMIT)
        )
        (self._folder / "enabled_plugins").write_text("[].\n")
        (self._folder / "env.conf").write_text("")

    def _environment(self) -> dict[str, str]:
        """All that the node and ``rabbitmqctl`` see: nothing of the machine's own RabbitMQ."""
        base = self._folder
        return {
            "PATH": SEARCH_PATH,
            "LANG": "C.UTF-8",
            "HOME": str(base),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"pressrun-tests-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "none.config"),
            "RABBITMQ_CONF_ENV_FILE": str(base / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
            "RABBITMQ_MNESIA_DIR": str(base / "mnesia" / "db"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_PID_FILE": str(base / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(base / "gen"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(base / "mnesia" / "ff"),
            "RABBITMQ_QUORUM_DIR": str(base / "mnesia" / "quorum"),
            # One scheduler that sleeps when idle: the machine has other things to do.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none "
                "-kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }
