"""What a grading worker takes from itself before it reads anything: network, processes, files to write, secrets.

Everything is refused by the kernel, in as many ways as this one offers: an empty network namespace in a user
namespace of its own, Landlock (no file is made, changed or removed; no other process can be looked into, so neither
can its environment), a seccomp filter (no socket, no new process or thread, no signal, no program), and limits.
Python's own audit hook comes on top: it says what was refused, and is all there is for sockets on a processor
without a filter below. Imports nothing of this project.
"""

import ctypes
import errno
import os
import platform
import resource
import sys
from typing import Any

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
"""System calls; the numbers are the same on all processors."""
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_WRITES = 0b1_1111_1111_0011
"""Landlock's first 13 rights over files, without reading files and folders."""
LANDLOCK_TRUNCATE = 1 << 14

FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.kill")
"""Audit events of Python that no grader needs."""

# In this order: socket, socketpair, io_uring_setup; clone, clone3, (fork, vfork,) execve, execveat; kill, tkill,
# tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, pidfd_open; ptrace, process_vm_readv,
# process_vm_writev; unshare, setns.
_X86_64 = (41, 53, 425, 56, 435, 57, 58, 59, 322, 62, 200, 234, 129, 297, 424, 434, 101, 310, 311, 272, 308)
_AARCH64 = (198, 199, 425, 220, 435, 221, 281, 129, 130, 131, 138, 240, 424, 434, 117, 270, 271, 97, 268)
REFUSED_CALLS = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
"""By processor: its audit number, and its numbers of the system calls that no grader needs."""
X32_CALLS = 0x40000000
"""From here on x86_64 has the same calls under other numbers."""


class _Instruction(ctypes.Structure):
    """`struct sock_filter`: Berkeley packet filter code."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_not", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def leave_network() -> None:
    """Moves this process into an empty network namespace, where the kernel allows it; needs a single thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    # A user namespace comes with it: as root, too, it leaves no right over other processes.
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        libc.unshare(CLONE_NEWNET)


def confine() -> None:
    """Takes from this process everything else that no grader needs, as far as the kernel can."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _make_files_read_only(libc)
    _refuse_calls(libc)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    sys.addaudithook(_refuse)


def limit_memory(extra_bytes: int) -> None:
    """Leaves `extra_bytes` of memory beyond what is in use."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra_bytes, used + extra_bytes))


def _make_files_read_only(libc: ctypes.CDLL) -> None:
    """Source: https://docs.kernel.org/userspace-api/landlock.html."""
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return
    rights = ctypes.c_uint64(LANDLOCK_WRITES | (LANDLOCK_TRUNCATE if version >= 3 else 0))
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(rights), ctypes.c_size_t(8), 0)
    if ruleset >= 0:
        libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def _refuse_calls(libc: ctypes.CDLL) -> None:
    """Source: https://docs.kernel.org/userspace-api/seccomp_filter.html."""
    if platform.machine() not in REFUSED_CALLS:
        return
    audit_number, calls = REFUSED_CALLS[platform.machine()]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    tests = [(equal, call) for call in calls] + [(at_least, X32_CALLS)]
    code = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, len(tests) + 2, audit_number),
        (load, 0, 0, 0),  # seccomp_data.nr
        *((kind, len(tests) - at, 0, k) for at, (kind, k) in enumerate(tests)),
        (give, 0, 0, 0x7FFF0000),  # allow
        (give, 0, 0, 0x00050000 | errno.EPERM),
    ]
    instructions = (_Instruction * len(code))(*(_Instruction(*each) for each in code))
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(code), instructions)))


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        raise PermissionError(f"a grader may not use {event}")
