"""What the embedded Postgres promises, whatever happens to it or to its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from pressrun import unprivileged
from pressrun.embedded_postgres_server import EmbeddedPostgres, EmbeddedPostgresError
from pressrun.postgres_cluster import wheel_bin_dir
from pressrun.processes import is_alive

ROOT = Path(__file__).resolve().parents[2]


class TestEmbeddedPostgres:
    @pytest.fixture(params=["a b", "x" * 120, "comma,comma"], ids=["space", "long", "comma"])
    def data_dir(self, service_dir: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        return service_dir / tmp_path.name / str(request.param)

    @pytest.fixture
    def cluster_dir(self, service_dir: Path, tmp_path: Path) -> Path:
        return service_dir / tmp_path.name

    @pytest.fixture
    def world_dir(self) -> Iterator[Path]:
        """A folder that every account may enter; those of pytest are root's alone."""
        with tempfile.TemporaryDirectory(prefix="pressrun-tests-", dir="/tmp") as name:
            folder = Path(name)
            folder.chmod(0o755)
            yield folder

    def test_rows_outlive_kill_and_stop_whatever_the_path(self, data_dir: Path) -> None:
        with EmbeddedPostgres(data_dir) as server:
            url = server.url
            _write_row(server)
            server.kill()
            assert not server.running
            server.start()
            assert server.url == url
            assert _rows(url) == 1
        assert not server.running
        with EmbeddedPostgres(data_dir) as second:
            assert _rows(second.url) == 1

    def test_the_socket_is_behind_a_private_folder(self, data_dir: Path) -> None:
        with EmbeddedPostgres(data_dir) as server:
            with server.connect() as connection:
                row = connection.execute("SHOW unix_socket_directories").fetchone()
            assert row is not None
            folder = Path(row[0].strip('"'))
            assert folder.stat().st_mode & 0o777 == 0o700

    def test_tcp_wants_the_password(self, cluster_dir: Path) -> None:
        with EmbeddedPostgres(cluster_dir, tcp=True, fsync=False) as server:
            with create_engine(server.tcp_url).connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(
                    host="127.0.0.1", port=server.port, user="postgres", dbname="postgres"
                )

    def test_a_half_made_cluster_is_made_anew(self, cluster_dir: Path) -> None:
        unfinished = cluster_dir / "cluster.new"
        unfinished.mkdir(parents=True)
        (unfinished / "PG_VERSION").write_text("18\n")
        with EmbeddedPostgres(cluster_dir, fsync=False) as server:
            assert _write_row(server) == 1
        assert not unfinished.exists()

    def test_data_of_another_version_are_refused_and_kept(self, cluster_dir: Path) -> None:
        with EmbeddedPostgres(cluster_dir, fsync=False):
            pass
        (cluster_dir / "cluster" / "PG_VERSION").write_text("9\n")
        with pytest.raises(EmbeddedPostgresError, match="made by Postgres 9"):
            EmbeddedPostgres(cluster_dir).start()
        assert (cluster_dir / "cluster" / "base").is_dir()

    def test_one_folder_has_one_server(self, cluster_dir: Path) -> None:
        with EmbeddedPostgres(cluster_dir, fsync=False) as server:
            with pytest.raises(EmbeddedPostgresError, match=f"process {os.getpid()}"):
                EmbeddedPostgres(cluster_dir).start()
            assert _write_row(server) == 1

    def test_a_stale_pid_file_that_names_a_living_stranger_is_no_obstacle(
        self, cluster_dir: Path
    ) -> None:
        with EmbeddedPostgres(cluster_dir, fsync=False) as server:
            server.kill()
            pid_file = cluster_dir / "cluster" / "postmaster.pid"
            lines = pid_file.read_text().splitlines()
            # As after the restart of a container, where process ids come round again.
            pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
            server.start()
            assert _write_row(server) == 1

    def test_an_error_shows_the_end_of_the_log(self, cluster_dir: Path) -> None:
        with EmbeddedPostgres(cluster_dir, fsync=False):
            pass
        with (cluster_dir / "cluster" / "postgresql.conf").open("a") as file:
            file.write("no_such_setting = 1\n")
        server = EmbeddedPostgres(cluster_dir, fsync=False)
        with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
            server.start()
        assert not server.running

    def test_it_dies_with_its_parent_and_the_next_one_finds_the_rows(
        self, cluster_dir: Path
    ) -> None:
        program = (
            "import sys, time; from pathlib import Path\n"
            "from threading import Thread\n"
            "from pressrun.embedded_postgres_server import EmbeddedPostgres\n"
            "server = EmbeddedPostgres(Path(sys.argv[1]))\n"
            # From a thread that ends at once, since that is what the kernel's signal watches.
            "starter = Thread(target=server.start); starter.start(); starter.join()\n"
            "with server.connect('pressrun') as c: c.execute('CREATE TABLE t AS SELECT 1 AS a')\n"
            "print('pid', server.pid, flush=True); time.sleep(600)\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", program, str(cluster_dir)], stdout=subprocess.PIPE, cwd=ROOT
        )
        try:
            assert parent.stdout is not None
            # structlog prints to the same stream.
            line = next(line for line in parent.stdout if line.startswith(b"pid "))
            postmaster = int(line.split()[1])
            assert is_alive(postmaster)
        finally:
            parent.kill()
            parent.communicate()
        # At once, while the orphan still shuts down.
        with EmbeddedPostgres(cluster_dir) as server:
            assert _rows(server.url) == 1
        assert not is_alive(postmaster)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
    def test_root_without_namespaces_drops_to_nobody_and_back(
        self, world_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unprivileged, "_namespace_prefix", lambda uid, gid: ())
        nobody = unprivileged.choose_identity()
        if wall := nobody.barrier((wheel_bin_dir() / "postgres",)):
            pytest.skip(f"nobody may not enter {wall}, where the binaries are")
        data_dir = world_dir / "postgres"
        with EmbeddedPostgres(data_dir, fsync=False) as server:
            assert _write_row(server) == 1
            assert (data_dir / "cluster").stat().st_uid == nobody.owner[0]
        monkeypatch.undo()
        with EmbeddedPostgres(data_dir, fsync=False) as server:
            assert _rows(server.url) == 1

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
    def test_a_folder_that_nobody_may_not_enter_is_named(
        self, world_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unprivileged, "_namespace_prefix", lambda uid, gid: ())
        wall = world_dir / "wall"
        wall.mkdir(mode=0o700)
        with pytest.raises(EmbeddedPostgresError, match="may not enter"):
            EmbeddedPostgres(wall / "postgres").start()

    def test_the_log_holds_no_text_of_tenants(self, cluster_dir: Path) -> None:
        with EmbeddedPostgres(cluster_dir, fsync=False) as server:
            with server.connect() as connection:
                connection.execute("CREATE TABLE t (prompt text PRIMARY KEY)")
                connection.execute("INSERT INTO t VALUES ('a tenant''s words')")
                with pytest.raises(psycopg.errors.UniqueViolation):
                    connection.execute("INSERT INTO t VALUES ('a tenant''s words')")
            log = (cluster_dir / "postgres.log").read_text()
            assert "duplicate key" in log
            assert "words" not in log


def _write_row(server: EmbeddedPostgres) -> int:
    with server.connect(server.database) as connection:
        connection.execute("CREATE TABLE t (a int)")
        return connection.execute("INSERT INTO t VALUES (1)").rowcount


def _rows(url: str) -> int:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM t")) or 0)
    finally:
        engine.dispose()
