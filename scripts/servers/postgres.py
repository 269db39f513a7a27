"""A PostgreSQL of our own: the wheel's binaries as a child process, with its data in a folder of ours."""

import hashlib
import os
import pwd
import shutil
import signal
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg2

from scripts.servers.processes import Child, wait_until
from scripts.servers.programs import POSTGRES_FOLDERS, postgres_programs
from scripts.servers.server import Server, ServerError, private_folder

DATABASE = "guichet"
_SETTINGS = {
    # what we promise rests on these two
    "fsync": "on",
    "synchronous_commit": "on",
    "listen_addresses": "",  # only the socket: no port to collide with, nobody else to let in
    "unix_socket_permissions": "0700",
    "shared_buffers": "256MB",  # taken as it is filled; with less, those who store files write other people's pages
    # A new segment of the log is not filled with zeros first: everyone who commits would wait for that.
    "wal_init_zero": "off",
    "max_wal_size": "2GB",
    "max_connections": "100",  # the pools of an API and two workers may hold 58
    "max_parallel_workers_per_gather": "0",
    "jit": "off",  # to compile costs more than our short statements
    # Whole rows would stand in its log when a statement fails: people's features.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_SOCKET_PATH_LIMIT = 103  # bytes: 107 on Linux, 103 on macOS


class Postgres(Server):
    """A PostgreSQL cluster in `<data_dir>/postgres` that listens on a private Unix socket.

    The kernel says who connects (peer), and only the user who started it is let in, as any role. PostgreSQL refuses to
    run as root; under root it runs as `nobody` (or whoever owns the cluster already), whose other processes may enter
    the socket's folder and are refused.
    """

    name = "postgres"
    end_signal = signal.SIGINT  # fast shutdown: connections are cut, everything is flushed

    def __init__(self, data_dir: Path, *, keep_open: tuple[int, ...] = ()) -> None:
        super().__init__(data_dir, keep_open=keep_open)
        digest = hashlib.sha256(os.fsencode(self.data_dir.resolve())).hexdigest()[:12]
        self.socket_dir = _short_folder() / f"guichet-{os.geteuid()}-{digest}"
        self._owner: tuple[int, int] | None = None  # user and group if they are not ours

    @property
    def url(self) -> str:
        """Return the SQLAlchemy URL of the service's database."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database of this cluster."""
        return f"postgresql+psycopg2://postgres@/{quote(database)}?host={quote(str(self.socket_dir))}"

    def launch(self) -> None:
        """Start it (the first time, after `initdb`) without waiting until it answers."""
        self._owner = self._choose_owner()
        version = self._version()
        programs = postgres_programs(version, self._owner)
        if not self.folder.exists():
            self._create(programs, version)
        self._forget_dead_server()
        private_folder(self.socket_dir, self._owner)
        self._write_access()
        settings = _SETTINGS | {"unix_socket_directories": str(self.socket_dir)}
        command = [str(programs / "postgres"), "-D", self._seen(self.folder)]
        command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.child = self._command(self.folder, command)
        self.child.start()

    def answers(self) -> bool:
        """Connect, and create the service's database if it does not exist."""
        try:
            self.create(DATABASE)
        except psycopg2.OperationalError:
            return False
        return True

    def create(self, database: str) -> str:
        """Create a database if it is missing and return its SQLAlchemy URL."""
        with closing(
            psycopg2.connect(user="postgres", host=str(self.socket_dir), dbname="postgres", connect_timeout=2)
        ) as connection:
            connection.autocommit = True  # CREATE DATABASE cannot run in a transaction
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
                if cursor.fetchone() is None:
                    cursor.execute('CREATE DATABASE "{}"'.format(database.replace('"', '""')))
        return self.url_of(database)

    def kill(self) -> None:
        """SIGKILL all of its processes, as a crash would; after a clean end nothing but the data is left."""
        super().kill()
        with suppress(OSError):  # there is none, or a crash left the socket in it
            self.socket_dir.rmdir()

    def stop_at_once(self) -> None:
        """Shut down without a checkpoint (PostgreSQL's immediate mode): the next start recovers from the log."""
        if self.child is not None:
            self.child.send(signal.SIGQUIT)
            self.child.wait(self.patience)
        self.kill()

    def _choose_owner(self) -> tuple[int, int] | None:
        """Return the user that the server runs as: None for ourselves; under root, the cluster's owner or `nobody`."""
        status = self.folder.stat() if self.folder.exists() else None
        if os.geteuid() != 0:
            if status is not None and status.st_uid != os.geteuid():
                raise ServerError(
                    f"{self.folder} belongs to the user with id {status.st_uid}: run as that user (or as root),"
                    " or set DATA_DIR to another folder"
                )
            return None
        if sys.platform != "linux":
            raise ServerError("PostgreSQL does not run as root: start this as an ordinary user")
        if status is not None and status.st_uid != 0:
            return status.st_uid, status.st_gid
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise ServerError(
                "PostgreSQL does not run as root, and there is no user `nobody` as whom it could run:"
                " start this as an ordinary user"
            ) from None
        return nobody.pw_uid, nobody.pw_gid

    def _version(self) -> str:
        """Return the major version of the cluster on disk, or the one that a new cluster gets."""
        with suppress(FileNotFoundError):
            return (self.folder / "PG_VERSION").read_text().strip()
        return next(iter(POSTGRES_FOLDERS))

    def _create(self, programs: Path, version: str) -> None:
        """Run initdb beside the final place, so that an interrupted one leaves nothing that looks complete."""
        unfinished = self.folder.with_name(f"{self.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        private_folder(unfinished, self._owner)
        command = [str(programs / "initdb"), "-D", self._seen(unfinished), "--username=postgres"]
        command += ["--encoding=UTF8", "--locale=C", "--auth-local=reject", "--auth-host=reject", "--no-instructions"]
        if int(version) >= 17:  # sorts alike on every machine, and needs no locale of the system
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb = self._command(unfinished, command)
        initdb.start()
        try:
            if not initdb.wait(120) or initdb.exit_code != 0:
                raise ServerError("\n  ".join([f"initdb failed ({self.log}):", *initdb.last_lines()]))
        finally:
            initdb.kill()
        unfinished.rename(self.folder)

    def _write_access(self) -> None:
        """Write the access rules; at every start, since an older release let everyone connect."""
        try:
            starter = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            raise ServerError(
                f"PostgreSQL asks by its name who connects, and the user with id {os.geteuid()} has none: start this "
                "as a user whom the system knows"
            ) from None
        lines = {"pg_hba.conf": "local all all peer map=starter\n", "pg_ident.conf": f'starter "{starter}" all\n'}
        for name, line in lines.items():
            file = self.folder / name
            draft = self.folder / f"{name}.new"
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(line)
            os.chown(draft, *(self._owner or (os.geteuid(), os.getegid())))
            draft.replace(file)

    def _command(self, folder: Path, command: list[str]) -> Child:
        """Return a child that works in `folder` as the server's owner."""
        user, group = self._owner or (None, None)
        return Child(
            self.name,
            command,
            log=self.log,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            cwd=folder,
            user=user,
            group=group,
            keep_open=self.keep_open,
            orphan_signal=self.end_signal,
        )

    def _seen(self, folder: Path) -> str:
        """Return the name by which the server finds its folder.

        Under root it runs as somebody who may be unable to enter the folder's parents (/root is closed to others), and
        to open those would be wrong. So it starts inside the folder (the change of folder precedes the change of user),
        and calls it /proc/self/cwd, which Linux resolves to that very folder without a walk through the parents.
        """
        return str(folder) if self._owner is None else "/proc/self/cwd"

    def _forget_dead_server(self) -> None:
        """Wait for an earlier server that is still shutting down, and remove the lock files of one that was killed.

        PostgreSQL would do so itself, unless the old process id belongs to another process by now, as it may in a
        container, where the ids start again at 1.
        """
        lock = self.folder / "postmaster.pid"
        if lock.exists() and not wait_until(lambda: not self._processes_inside(), timeout=15, every=0.1):
            pids = ", ".join(map(str, self._processes_inside()))
            raise ServerError(f"another PostgreSQL (process {pids}) uses {self.folder}: stop it first")
        lock.unlink(missing_ok=True)
        for leftover in self.socket_dir.glob(".s.PGSQL.*"):
            leftover.unlink()

    def _processes_inside(self) -> list[int]:
        """Return the ids of the PostgreSQL processes that work in our folder."""
        folder = str(self.folder.resolve())
        processes = psutil.process_iter(["name", "cwd"])
        return [process.pid for process in processes if process.info == {"name": "postgres", "cwd": folder}]


def _short_folder() -> Path:
    """Return the folder for sockets: their paths have a limit, which the path of a data folder may exceed."""
    places = [tempfile.gettempdir()]
    if os.geteuid() != 0:  # root's server runs as somebody who may not enter root's runtime folder
        places.insert(0, os.environ.get("XDG_RUNTIME_DIR", ""))
    for place in places:
        longest = f"{place}/guichet-4294967295-0123456789ab/.s.PGSQL.5432.lock"
        if place and os.access(place, os.W_OK) and len(os.fsencode(longest)) <= _SOCKET_PATH_LIMIT:
            return Path(place)
    return Path("/tmp")  # noqa: S108  (the folder below it is private)
