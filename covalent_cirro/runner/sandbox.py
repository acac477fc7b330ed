"""Restricts this process, and all that it starts, to what unpickling and calling untrusted code needs.

For the process on the server's host (`host.py`); jobs have their container. It needs no privileges: Landlock (Linux
5.13, landlock(7)) restricts files, a seccomp filter (seccomp(2)) sockets and access to other processes, and limits
(setrlimit(2)) resources. `enter` reports what the kernel lacks. No restriction can be removed later.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable

CPU_S = 3600
"""Seconds of CPU: the largest sublattice takes minutes to build."""

MEMORY_SHARE = 0.75
"""Share of the machine's memory for the data of one process: a job is the better place for a larger result."""

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/nix/store", "/proc", "/sys")
"""Paths that programs of the system may need to read. /proc: Landlock itself denies access to memory, environment and
files of other processes."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108
"""Python's locks between processes are files there; Covalent makes one when it is imported."""

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22  # linux/prctl.h
_CAPABILITIES_3 = 0x20080522  # linux/capability.h


def enter(read: Iterable[str], write: Iterable[str]) -> dict[str, bool]:
    """Enter the sandbox. Call it while the process has one thread: the kernel restricts the calling thread only.

    Args:
        read: Files and folders that it may read, besides the system's and Python's own.
        write: Folders in which it may do everything.

    Returns:
        ``{"files": ..., "network": ...}``: whether the kernel denies other files, and the network.
    """
    os.umask(0o077)
    _limit()
    if sys.platform != "linux":
        return {"files": False, "network": False}
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # A server that runs as root: CAP_PERFMON would read other processes past Landlock (kernel/fork.c, may_access_mm).
    libc.capset(struct.pack("=Ii", _CAPABILITIES_3, 0), bytes(24))
    return {
        "files": _keep_from_files(libc, [*SYSTEM_FOLDERS, *_python_paths(), *read], list(write)),
        "network": _keep_from_sockets(libc),
    }


def _limit() -> None:
    memory = int(_machine_memory() * MEMORY_SHARE)
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, CPU_S)]
    if memory and sys.platform == "linux":
        # Data, not address space: threads and libraries reserve much more than they use.
        limits.append((resource.RLIMIT_DATA, memory))
    for which, value in limits:
        _, hard = resource.getrlimit(which)
        with contextlib.suppress(ValueError, OSError):
            low = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (low, low))
    # If memory runs out all the same, the kernel is to kill this process, not the server.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _machine_memory() -> int:
    """Memory that this process could have in bytes, of the machine or its container; 0 if it is not known."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (ValueError, OSError):
        return 0
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            found.append(int(file.read()))
    return min(found)


def _python_paths() -> list[str]:
    """Paths of this Python and its modules, without a whole home folder, even if that is on ``sys.path``."""
    home = os.path.expanduser(f"~{_user()}")
    paths = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path]
    paths += os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):  # setuptools: packages that were installed with pip install --editable
            mapping = getattr(module, "MAPPING", None)
            paths += mapping.values() if isinstance(mapping, dict) else []
    paths += (os.path.dirname(os.path.dirname(os.path.abspath(__file__))),)
    above = f"{os.path.realpath(home)}{os.sep}"
    return [path for path in paths if os.path.isabs(path) and not above.startswith(os.path.realpath(path) + os.sep)]


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


# --- files: Landlock --------------------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""Rights that can be given for a file; the others can be given for folders only."""

_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""All rights on files that the kernel has, by the version of Landlock; from version 5 on `_ALL_RIGHTS`."""

_ALL_RIGHTS = (1 << 16) - 1
_TCP = 0b11
"""Binding and connecting; from version 4 on."""

_SCOPES = 0b11
"""Abstract Unix sockets, and signals to processes outside; from version 6 on."""


def _keep_from_files(libc: ctypes.CDLL, read: list[str], write: list[str]) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    handled = _RIGHTS.get(version, _ALL_RIGHTS)
    attributes = struct.pack("=QQQ", handled, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for path in read:
            _allow(libc, ruleset, path, _READ)
        for path in DEVICES:
            _allow(libc, ruleset, path, _READ_FILE | _WRITE_FILE)
        for path in (*write, SHARED_MEMORY):
            _allow(libc, ruleset, path, handled)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a path that does not exist needs no rule
    try:
        if not os.path.isdir(f"/proc/self/fd/{place}"):
            rights &= _OF_FILES
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


# --- sockets and other processes: seccomp -----------------------------------------------------------------------------

_SECCOMP_MODE_FILTER = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_X32 = 0x40000000
"""System calls of another ABI of the same processor begin here."""

_NAMES = (
    *("socket", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"),
    # A process that left the process group would outlive it.
    *("setsid", "setpgid"),
    # It can open sockets without the system calls above.
    "io_uring_setup",
)
_NUMBERS = {
    "x86_64": (0xC000003E, (41, 101, 310, 311, 438, 112, 109, 425)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 438, 157, 154, 425)),
}
"""By processor, how the kernel's audit calls it, and the numbers of `_NAMES`."""


def _keep_from_sockets(libc: ctypes.CDLL) -> bool:
    """Refuse (EACCES) to make a socket of any family. A filter sees no addresses: it is all of the network, or none."""
    if platform.machine() not in _NUMBERS:
        return False
    architecture, numbers = _NUMBERS[platform.machine()]
    refuse = _ERRNO | errno.EACCES
    program = [
        (_LOAD, 0, 0, 4),  # struct seccomp_data: int nr; u32 arch; ...
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, refuse),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, len(numbers) + 1, 0, _X32),
        *((_EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, refuse),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    # struct sock_fprog: u16 len; pointer, aligned.
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(whole), 0, 0) == 0)
