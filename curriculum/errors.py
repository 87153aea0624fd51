"""The exceptions of the project: one base class and a class per boundary.

Each also inherits the standard type it stands for, so a caller may catch either. `UserError` is what
the person at the keyboard can fix: the command line prints it without a traceback and exits with 2.
"""

import errno

DISK_FAULTS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)


def is_disk_fault(error: OSError) -> bool:
    """Whether a file could not be written for a reason a person can mend: space, quotas, limits, rights or its name."""
    return error.errno in DISK_FAULTS


def disk_message(error: OSError, path: object = None) -> str:
    """What a person is told of such a fault, with how to go on."""
    if error.errno == errno.ENAMETOOLONG:
        return f"{str(error.filename)[:80]}…: expected a path that can be opened, got: {error.strerror}"
    return (
        f"{path or error.filename or 'a file'}: expected to read and write it, got: {error.strerror}. Free some space "
        "or mend the folder's rights; what was finished before is kept, go on with: tutelage resume RUN "
        "(a bench: its own command again)"
    )


class TutelageError(Exception):
    """Base of everything this project raises on purpose."""


class UserError(TutelageError, ValueError):
    """Something the user can fix: the message says what was expected, what came, where, what to do."""


class ConfigError(UserError):
    """The config is wrong; the message lists every fault found, one a line."""


class DataError(UserError):
    """The data cannot be used: too many bad rows, too few items, a gold answer its grader rejects."""


class LeakError(TutelageError, ValueError):
    """A training set touches a split that must stay unseen."""


class RunDirError(UserError):
    """The run directory is missing, taken, locked, or damaged in a way resuming cannot mend."""


class BundleError(UserError):
    """A bundle cannot be read: damaged, hostile, or no bundle at all."""


class NotRecomputed(TutelageError):
    """Something that a run recorded cannot be made again; the message says why."""


class GradingError(TutelageError, RuntimeError):
    """A grader broke; the item it was grading gets the verdict `failed`."""


class StudentError(TutelageError, RuntimeError):
    """The student's engine or trainer stopped without a result."""


class OutOfMemory(StudentError, UserError):
    """Memory ran out while the student worked, or its process was killed as the system does when it does."""


class TrainingError(StudentError):
    """Training ended without a usable adapter: the loss diverged, became NaN, or memory ran out."""


class TeacherError(TutelageError, RuntimeError):
    """The teacher could not do what the plan asked of it."""


class TeacherUnavailable(UserError):
    """The teacher's endpoint is down or asks to wait too long; what was bought is kept."""


class StopRequested(TutelageError):
    """A person or the system asked the run to stop; everything finished so far is on disk."""


class BudgetReached(StopRequested):
    """A limit of the teacher's budget; everything finished so far is on disk."""

    def __init__(self, message: str, limits: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.limits = limits
