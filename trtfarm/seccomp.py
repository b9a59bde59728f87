"""A seccomp filter: system calls that a process which reads a stranger's model never needs.

The numbers are those of the kernel's system call tables; the program is classic BPF over struct
seccomp_data (include/uapi/linux/seccomp.h): number, architecture, instruction, six arguments of 64 bits.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

# x86-64, arm64; None where the architecture does not have the call.
_REFUSED: Final[dict[str, tuple[int | None, int | None]]] = {
    # Sockets of every family, and io_uring, which makes them past this filter.
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "accept4": (288, 242),
    "sendmmsg": (307, 269),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Programs and processes; threads are made by clone, see below.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "tkill": (200, 130),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    # Its worker ends it by its process group.
    "setpgid": (109, 154),
    "setsid": (112, 157),
    # Memory, queues and locks that are shared with others.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "flock": (73, 32),
    # What Landlock does not know: modes, owners, times and attributes of files anywhere, links, what comes
    # and goes in a folder.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "link": (86, None),
    "linkat": (265, 37),
    "truncate": (76, 45),  # Landlock knows it since Linux 6.2
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # Users, capabilities, namespaces and mounts.
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "capset": (126, 91),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # The machine.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "uselib": (134, None),
}
# Refused by an argument: call → (numbers, index of the argument, its refused values).
_BY_ARGUMENT: Final[tuple[tuple[tuple[int, int], int, tuple[int, ...]], ...]] = (
    # prctl: PDEATHSIG, DUMPABLE, MM, PTRACER.
    ((157, 167), 0, (1, 4, 35, 0x59616D61)),
    # fcntl: SETOWN and SETOWN_EX send signals.
    ((72, 25), 1, (8, 15)),
    # ioctl: TIOCSTI, TIOCLINUX, TIOCSETD type into a terminal; FIOSETOWN and SIOCSPGRP send signals.
    ((16, 29), 1, (0x5412, 0x541C, 0x5423, 0x8901, 0x8902)),
)
_KILL, _TGKILL = (62, 129), (234, 131)
_SIGQUEUE, _TGSIGQUEUE = (129, 138), (297, 240)
_PRLIMIT, _SETAFFINITY = (302, 261), (203, 122)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_AF_UNIX: Final = 1
_CLONE_THREAD: Final = 0x10000
_NAMESPACES: Final = 0x7E020000 | 0x80  # CLONE_NEWNS … CLONE_NEWNET, CLONE_NEWTIME
_LAST_KNOWN: Final = 462  # mseal, Linux 6.10: what came later is answered as an older kernel would
_X32: Final = 0x40000000

_ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _GREATER, _GREATER_EQUAL, _SET, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE = 0, 4
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
Instruction = tuple[int, int, int, int]

_libc = ctypes.CDLL(None, use_errno=True)


def prepare() -> None:
    """What ``install`` can do ahead, for processes that this one forks."""
    _general(platform.machine(), frozenset())


def is_known() -> bool:
    """Whether there is a table for this machine's architecture."""
    return platform.machine() in _ARCHITECTURES


CUDA: Final = frozenset({"inotify_init", "inotify_init1", "inotify_add_watch"})
"""What a driver may use as long as it lives: not seen, and not tried without."""
CUDA_LOADS: Final = CUDA | {"socket", "bind", "listen", "truncate"}
"""What it uses to load, or may: without a Unix socket to listen on, it does not (580.159, H200). It connects
to nobody and accepts nothing."""


def install(leave: frozenset[str] = frozenset()) -> None:
    """Refuses the calls to every thread of this process, for good. ``no_new_privs`` must be set.

    Args:
        leave: names of calls that are not refused; of sockets, only Unix ones. A second filter may refuse
            them later.

    Raises:
        OSError: the kernel has no seccomp filters.
    """
    machine = platform.machine()
    column, _ = _ARCHITECTURES[machine]
    program = _general(machine, leave) + _packed(_of_process(column, os.getpid()))
    instructions = ctypes.create_string_buffer(program)
    filtered = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    result = _libc.syscall(
        _SECCOMP[machine], ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_ALL_THREADS), filtered
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


@cache
def _general(machine: str, leave: frozenset[str]) -> bytes:
    """The filter's beginning, the same for every process."""
    return _packed(_of_all(*_ARCHITECTURES[machine], leave))


def _packed(instructions: Iterable[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def _of_all(column: int, architecture: int, leave: frozenset[str]) -> Iterator[Instruction]:
    yield _LOAD, 0, 0, _ARCHITECTURE
    yield _EQUAL, 1, 0, architecture
    yield _RETURN, 0, 0, _KILL_PROCESS
    yield _LOAD, 0, 0, _NUMBER
    yield _GREATER_EQUAL, 0, 1, _X32
    yield _RETURN, 0, 0, _refusal(errno.EPERM)
    yield _GREATER, 0, 1, _LAST_KNOWN
    yield _RETURN, 0, 0, _refusal(errno.ENOSYS)
    if "socket" in leave:
        yield from _when(_REFUSED["socket"][column] or 0, 0, _only(_AF_UNIX))
    for name, numbers in _REFUSED.items():
        number = numbers[column]
        if number is not None and name not in leave:
            yield _EQUAL, 0, 1, number
            yield _RETURN, 0, 0, _refusal(errno.EPERM)
    # The C library then uses clone, whose flags can be seen.
    yield _EQUAL, 0, 1, _CLONE3[column]
    yield _RETURN, 0, 0, _refusal(errno.ENOSYS)
    for numbers, index, values in _BY_ARGUMENT:
        yield from _when(numbers[column], index, _refuse_values(values))
    yield from _when(_CLONE[column], 0, _threads_only())
    for numbers in (_PRLIMIT, _SETAFFINITY):
        yield from _when(numbers[column], 0, _only(0))


def _of_process(column: int, pid: int) -> Iterator[Instruction]:
    """Signals to itself, and the end."""
    for numbers in (_KILL, _TGKILL, _SIGQUEUE, _TGSIGQUEUE):
        yield from _when(numbers[column], 0, _only(pid))
    yield _RETURN, 0, 0, _ALLOW


def _when(number: int, argument: int, body: Iterable[Instruction]) -> Iterator[Instruction]:
    """``body`` sees the low half of the argument, and ends in a return."""
    instructions = [(_LOAD, 0, 0, 16 + 8 * argument), *body]
    yield _EQUAL, 0, len(instructions), number
    yield from instructions


def _refuse_values(values: Iterable[int]) -> Iterator[Instruction]:
    for value in values:
        yield _EQUAL, 0, 1, value
        yield _RETURN, 0, 0, _refusal(errno.EPERM)
    yield _RETURN, 0, 0, _ALLOW


def _only(value: int) -> Iterator[Instruction]:
    yield _EQUAL, 1, 0, value
    yield _RETURN, 0, 0, _refusal(errno.EPERM)
    yield _RETURN, 0, 0, _ALLOW


def _threads_only() -> Iterator[Instruction]:
    yield _SET, 1, 0, _CLONE_THREAD
    yield _RETURN, 0, 0, _refusal(errno.EPERM)
    yield _SET, 0, 1, _NAMESPACES
    yield _RETURN, 0, 0, _refusal(errno.EPERM)
    yield _RETURN, 0, 0, _ALLOW


def _refusal(number: int) -> int:
    return _ERRNO | number
